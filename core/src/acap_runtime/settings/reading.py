"""Finds the value of each setting. The command line comes first, then the environment, the configuration file and the
default.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from acap_runtime.errors import InvalidRequest
from acap_runtime.settings.camera_source import CameraSource, parse_camera
from acap_runtime.settings.config_file import ConfigFile, closest
from acap_runtime.settings.model_source import ModelSource, make_source
from acap_runtime.settings.options import VARIABLE_PREFIX, Settings, option_name, variable_name


def read_settings(arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read settings from parsed arguments, the environment and the configuration file that either of them names.

    An empty value counts as not given. Raises `InvalidRequest` naming the option, the variable or the line of the
    file, with what was expected and what came.
    """
    return traced_settings(arguments, environment)[0]


def traced_settings(
    arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[Settings, dict[str, str]]:
    """Read settings as `read_settings` does, and return the origin of each field's value by the field's name.

    An origin is ``command line``, ``environment NAME``, ``FILE:LINE`` or ``default``.
    """
    path = arguments.get("config") or environment.get(f"{VARIABLE_PREFIX}CONFIG")
    configured = read_config(Path(path)) if path else {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in dataclasses.fields(Settings):
        found = _given(field, arguments, environment) or configured.get(field.name)
        if found is None:
            origins[field.name] = "default"
        else:
            values[field.name], origins[field.name] = found
    return Settings(**values), origins


def _given(
    field: dataclasses.Field[Any], arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Any, str] | None:
    """Return a field's value from the command line or the environment, with its origin; None if neither gives one."""
    variable = variable_name(field)
    for label, text, origin in (
        (field.metadata["flags"][-1], arguments.get(field.name), "command line"),
        (variable, environment.get(variable), f"environment {variable}"),
    ):
        value = _parse_text(field, label, text)
        if value is not None:
            return value, origin
    return None


def _parse_text(field: dataclasses.Field[Any], label: str, text: str | list[str] | None) -> Any:
    """Parse a field's text, or the texts of a repeatable one; None if there is nothing but empty text."""
    parse = field.metadata["parse"]
    try:
        if not field.metadata["repeatable"]:
            return parse(text) if text else None
        texts = shlex.split(text) if isinstance(text, str) else text or []
        return tuple(parse(each) for each in texts if each) or None
    except (InvalidRequest, ValueError) as error:
        raise InvalidRequest(f"{label}: {error}") from None


def read_config(path: Path) -> dict[str, tuple[Any, str]]:
    """Read a configuration file: the value and the place (``FILE:LINE``) of each setting in it, by the field's name.

    Its keys are the options' names. Models are tables ``[models.NAME]`` with a ``path`` and the options of ``-m``;
    cameras are tables ``[cameras.NAME]`` with a ``source``. Raises `InvalidRequest` with one line for each mistake,
    naming file, line and key.
    """
    fields = {option_name(field): field for field in dataclasses.fields(Settings) if field.name != "config"}
    document = ConfigFile.read(path)
    values: dict[str, tuple[Any, str]] = {}
    mistakes: list[str] = []
    for keys, value in document.entries():
        try:
            match keys:
                case ("models" | "cameras" as kind, name):
                    earlier, place = values.get(kind, ((), document.place(keys)))
                    values[kind] = ((*earlier, _TABLES[kind](name, value)), place)
                case (key,) if key in fields:
                    values[fields[key].name] = (_parse_toml(fields[key], value), document.place(keys))
                case _:
                    raise _misplaced(keys, fields)
        except InvalidRequest as error:
            # A message about an option of a model begins with the option's name.
            option = str(error).partition(":")[0]
            place = document.place((*keys, option) if isinstance(value, dict) and option in value else keys)
            mistakes.append(f"{place}: {'.'.join(keys)}: {error}")
    if mistakes:
        raise InvalidRequest("\n".join(mistakes))
    return values


def _misplaced(keys: tuple[str, ...], fields: Mapping[str, Any]) -> InvalidRequest:
    """Return the error for a key that is unknown, or that is a table where a value belongs, or the reverse."""
    key = keys[0]
    if key in _TABLES:
        return InvalidRequest("expected tables")
    if key in fields:
        hint = f"; did you mean [{key}s.{keys[1]}]?" if f"{key}s" in _TABLES else ""
        return InvalidRequest(f"expected a value, got a table{hint}")
    return InvalidRequest(f"unknown; {closest(key, [*fields, *_TABLES])}")


def _parse_toml(field: dataclasses.Field[Any], value: Any) -> Any:
    """Parse a field's TOML value with the parser that the field has for the command line."""
    parse = field.metadata["parse"]
    try:
        if not field.metadata["repeatable"]:
            return parse(_spelled(value))
        return tuple(parse(_spelled(each)) for each in (value if isinstance(value, list) else [value]))
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _spelled(value: Any) -> str:
    """Spell a TOML value as the command line does."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str | int | float) or value == "":
        raise InvalidRequest(f"expected text, a number, true or false, got {value!r:.80}")
    return str(value)


def _model_of(name: str, table: Any) -> ModelSource:
    """Read the table ``[models.NAME]``."""
    options = _as_table(table)
    if "path" not in options:
        raise InvalidRequest(f"expected a path, got {', '.join(options) or 'nothing'}")
    path = _spelled(options.pop("path"))
    return make_source(name, path, {option: _spelled_option(option, value) for option, value in options.items()})


def _spelled_option(option: str, value: Any) -> str:
    """Spell a model's option as ``-m`` does."""
    try:
        if option == "labels":
            return "+".join(f"{label}:{_spelled(number)}" for label, number in _as_table(value).items())
        if isinstance(value, list):
            return (":" if option == "warm_up" else "+").join(map(_spelled, value))
        return _spelled(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{option}: {error}") from None


def _camera_of(name: str, table: Any) -> CameraSource:
    """Read the table ``[cameras.NAME]``."""
    options = _as_table(table)
    source = _spelled(options.pop("source", ""))
    if options:
        raise InvalidRequest(f"expected source alone, got {', '.join(options)} too")
    return parse_camera(f"{name}={source}")


def _as_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"expected a table, got {value!r:.80}")
    return dict(value)


_TABLES: Final[Mapping[str, Callable[[str, Any], Any]]] = {"models": _model_of, "cameras": _camera_of}
