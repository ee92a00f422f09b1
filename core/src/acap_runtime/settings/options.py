"""Every setting of the server, in one place: its names on the command line and in the environment, its default, its
meaning. The command line goes before the environment, then come the configuration file and defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from acap_runtime.errors import InvalidRequest, redacted
from acap_runtime.settings.config_file import ConfigFile, closest
from acap_runtime.settings.model_source import ModelSource, make_source, parse_model
from acap_runtime.settings.option_values import integer, parse_switch, seconds

PREFIX: Final = "ACAPRUNTIME_"


@dataclass(frozen=True, slots=True)
class CameraSource:
    """A source of video, and what the operator and clients call it."""

    name: str
    source: str


def parse_camera(text: str) -> CameraSource:
    """``SOURCE`` or ``NAME=SOURCE``; a name has letters, digits, ``-``, ``_`` and dots, so that URLs may have ``=``."""
    found = re.fullmatch(r"(?:([A-Za-z0-9._-]+)=)?([^=].*)", text, re.DOTALL)
    name, source = found.groups() if found else (None, "")
    if not source or (source.endswith("=") and re.fullmatch(r"[A-Za-z0-9._-]+=", source)):
        raise InvalidRequest(f"expected SOURCE or NAME=SOURCE, got {redacted(text)!r}")
    if name and name.isdecimal():
        raise InvalidRequest(
            f"expected a name that is no number, which clients count cameras by, got {redacted(text)!r}"
        )
    return CameraSource(name or redacted(source), source)


def parse_parameters(text: str) -> str:
    """A file, a plugin's store, or a camera: ``http(s)://HOST[:PORT][/PATH]``, without anything secret in it."""
    if "://" not in text:
        return text
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        port_is_one = False
    # What is wrong with a password in it is said first, and the text itself never.
    if "@" in text:
        raise InvalidRequest(
            "expected a URL without user name and password, which every user of this machine would see; put them "
            "into a file (--parameters-credentials) or the environment (ACAPRUNTIME_PARAMETERS_USER, "
            "ACAPRUNTIME_PARAMETERS_PASSWORD)"
        )
    if not port_is_one or url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise InvalidRequest(f"expected https://HOST[:PORT] or http://HOST[:PORT], got {text!r}")
    return text


def _option(
    flags: str, default: Any, parse: Callable[[str], Any], metavar: str, help_: str, *, repeatable: bool = False
) -> Any:
    metadata = {"flags": flags.split(), "parse": parse, "metavar": metavar, "help": help_, "repeatable": repeatable}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server was told."""

    config: Path | None = _option(
        "--config", None, Path, "FILE", "TOML file of settings: the options' names, and tables for models and cameras"
    )
    verbose: bool = _option("-v --verbose", False, parse_switch, "", "extended logging: a line per request too")
    address: str = _option("-a --address", "0.0.0.0", str, "ADDR", "address to listen on when a port is given")  # noqa: S104 - the original's default
    port: int = _option("-p --port", 0, integer(0, 65535), "PORT", "TCP port; 0 for the unix socket")
    socket: Path = _option(
        "--socket",
        Path("/tmp/acap-runtime.sock"),  # noqa: S108 - the original's default
        Path,
        "PATH",
        "unix socket to listen on without a port",
    )
    run_for_s: float = _option("-t --run-for", 0.0, seconds(0), "SECONDS", "stop after that many seconds; 0 for never")
    certificate: Path | None = _option("-c --certificate", None, Path, "FILE", "TLS certificate chain, PEM")
    key: Path | None = _option("-k --key", None, Path, "FILE", "TLS private key, PEM")
    client_ca: Path | None = _option(
        "--client-ca", None, Path, "FILE", "demand client certificates signed by these authorities, PEM"
    )
    chips: tuple[str, ...] = _option(
        "-j --chip", (), str, "CHIP",
        "chip for inference, by number, name or alias; a second -j names the chip that converts images",
        repeatable=True,
    )  # fmt: skip
    models: tuple[ModelSource, ...] = _option(
        "-m --model", (), parse_model,
        "[NAME=]PATH[,OPTION=VALUE]",
        "model to serve: a file, or a folder with one folder for each version; options are its chip, instances, queue, "
        "versions, labels, warm_up, batch, batch_delay and the chip's own",
        repeatable=True,
    )  # fmt: skip
    model_dir: Path | None = _option(
        "--model-dir", None, Path, "DIR", "folder of models: files, named without their suffix, and folders of versions"
    )
    model_control: bool = _option(
        "--model-control",
        False,
        parse_switch,
        "",
        "let clients load and unload models over TCP too, as those on the unix socket may",
    )
    cameras: tuple[CameraSource, ...] = _option(
        "--camera", (), parse_camera, "[NAME=]SOURCE",
        "where video comes from, such as test-pattern, rtsp://HOST/PATH, FILE, /dev/video0; clients get the first "
        "unless they name another",
        repeatable=True,
    )  # fmt: skip
    parameters: str | None = _option(
        "--parameters", None, parse_parameters, "FILE|URL|STORE",
        "where parameters come from: a file of KEY=VALUE lines, a camera (https://HOST), a plugin's store",
    )  # fmt: skip
    parameters_credentials: Path | None = _option(
        "--parameters-credentials", None, Path, "FILE",
        "who asks the camera for parameters: a file with one line user:password that only its owner can read",
    )  # fmt: skip
    parameters_ca: Path | None = _option(
        "--parameters-ca", None, Path, "FILE", "trust a camera with these certificates, PEM, instead of the system's"
    )
    parameters_override: bool = _option(
        "-o --override", False, parse_switch, "", "let the device's parameters override the command line"
    )
    instances: int = _option("--instances", 1, integer(1, 64), "N", "copies of each model that run side by side")
    threads: int | None = _option(
        "--threads", None, integer(1, 256), "N", "threads of each instance, where the chip has that option"
    )
    run_timeout_s: float = _option(
        "--run-timeout", 30.0, seconds(0.05), "SECONDS", "a run that takes longer is ended with its worker"
    )
    load_timeout_s: float = _option("--load-timeout", 300.0, seconds(0.05), "SECONDS", "the same for loading a model")
    queue: int = _option("--queue", 64, integer(1, 100000), "N", "calls that may wait for each model")
    on_demand_models: int = _option(
        "--on-demand-models", 16, integer(0, 100000), "N",
        "model files that clients on the unix socket may have loaded by path, at most; 0 for none",
    )  # fmt: skip
    max_streams: int = _option("--max-streams", 64, integer(1, 10000), "N", "video streams that may be open at once")
    stream_lease_s: float = _option(
        "--stream-lease", 600.0, seconds(0.1), "SECONDS", "a stream that nobody uses for that long is deleted"
    )
    kept_frames: int = _option(
        "--kept-frames", 3, integer(1, 100), "N", "frames of each stream that stay fetchable after models ran on them"
    )
    max_message_size: int = _option(
        "--max-message-size", 64, integer(1, 2046), "MIB", "largest request, and largest input in shared memory"
    )
    grace_s: float = _option(
        "--grace", 5.0, seconds(0), "SECONDS", "time that running calls have when the server stops"
    )
    blocked: tuple[str, ...] = _option(
        "--block", (), str, "PLUGIN", "leave out a plugin, by its name or its distribution's", repeatable=True
    )

    def __post_init__(self) -> None:
        for option, named in (("model", self.models), ("camera", self.cameras)):
            names = Counter(each.name for each in named)
            if twice := sorted(name for name, count in names.items() if count > 1):
                raise InvalidRequest(f"--{option}: expected each name once, got {', '.join(twice)} again")


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Give a parser the settings called `names` (all by default). What is not given is not in its result."""
    for field in dataclasses.fields(Settings):
        if names is not None and field.name not in names:
            continue
        flags, help_ = field.metadata["flags"], field.metadata["help"]
        shared: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        note = "" if field.default in (None, (), False, 0.0) else f" (default {field.default})"
        text = f"{help_}{note} [{variable_name(field)}{', several with blanks between' * field.metadata['repeatable']}]"
        if field.metadata["parse"] is parse_switch:
            parser.add_argument(*flags, action="store_const", const="yes", help=text, **shared)
        else:
            action = "append" if field.metadata["repeatable"] else "store"
            parser.add_argument(*flags, action=action, metavar=field.metadata["metavar"], help=text, **shared)


def read_settings(arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from parsed arguments, the environment and the file that either names; empty values count as not given.

    Raises `InvalidRequest` naming the option, variable, or line of the file, what was expected and what came.
    """
    return traced_settings(arguments, environment)[0]


def traced_settings(
    arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[Settings, dict[str, str]]:
    """`read_settings`, and by each field's name where its value came from: ``command line``, ``environment NAME``,
    ``FILE:LINE`` or ``default``.
    """
    named = arguments.get("config") or environment.get(f"{PREFIX}CONFIG")
    written = read_config(Path(named)) if named else {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in dataclasses.fields(Settings):
        option, variable = field.metadata["flags"][-1], variable_name(field)
        origins[field.name] = "default"
        for source, given, origin in (
            (option, arguments.get(field.name), "command line"),
            (variable, environment.get(variable), f"environment {variable}"),
        ):
            parsed = _parse(field, source, given)
            if parsed is not None:
                values[field.name], origins[field.name] = parsed, origin
                break
        else:
            if field.name in written:
                values[field.name], origins[field.name] = written[field.name]
    return Settings(**values), origins


def read_config(path: Path) -> dict[str, tuple[Any, str]]:
    """The values in a configuration file, and the place of each (``FILE:LINE``), by their fields' names.

    Its keys are the options' names; models and cameras are tables, ``[models.NAME]`` with a ``path`` and options as in
    ``-m``, and ``[cameras.NAME]`` with a ``source``. Raises `InvalidRequest` with a line for each thing wrong, naming
    file, line and key.
    """
    fields = {option_name(field): field for field in dataclasses.fields(Settings) if field.name != "config"}
    document = ConfigFile.read(path)
    values: dict[str, tuple[Any, str]] = {}
    problems: list[str] = []
    for keys, written in document.entries():
        try:
            match keys:
                case ("models" | "cameras" as kind, name):
                    known, place = values.get(kind, ((), document.place(keys)))
                    values[kind] = ((*known, _TABLES[kind](name, written)), place)
                case (key,) if key in fields:
                    values[fields[key].name] = (_parse_written(fields[key], written), document.place(keys))
                case (key, *_) if key in _TABLES:
                    raise InvalidRequest("expected tables")
                case (key, *_) if key in fields:
                    hint = f"; did you mean [{key}s.{keys[1]}]?" if f"{key}s" in _TABLES else ""
                    raise InvalidRequest(f"expected a value, got a table{hint}")
                case (key, *_):
                    raise InvalidRequest(f"unknown; {closest(key, [*fields, *_TABLES])}")
        except InvalidRequest as error:
            # What is wrong with an option of a model begins with its name.
            option = str(error).partition(":")[0]
            place = document.place((*keys, option) if isinstance(written, dict) and option in written else keys)
            problems.append(f"{place}: {'.'.join(keys)}: {error}")
    if problems:
        raise InvalidRequest("\n".join(problems))
    return values


def _parse_written(field: dataclasses.Field[Any], value: Any) -> Any:
    """A value of TOML for a field, by the same parser as its text on the command line."""
    try:
        if not field.metadata["repeatable"]:
            return field.metadata["parse"](_text(value))
        values = value if isinstance(value, list) else [value]
        return tuple(field.metadata["parse"](_text(each)) for each in values)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _text(value: Any) -> str:
    """A value of TOML as the command line has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str | int | float) or value == "":
        raise InvalidRequest(f"expected text, a number, true or false, got {value!r:.80}")
    return str(value)


def _written_model(name: str, written: Any) -> ModelSource:
    options = _table(written)
    if "path" not in options:
        raise InvalidRequest(f"expected a path, got {', '.join(options) or 'nothing'}")
    path = _text(options.pop("path"))
    return make_source(name, path, {option: _option_text(option, value) for option, value in options.items()})


def _option_text(option: str, value: Any) -> str:
    try:
        if option == "labels":
            return "+".join(f"{label}:{_text(number)}" for label, number in _table(value).items())
        if isinstance(value, list):
            return (":" if option == "warm_up" else "+").join(map(_text, value))
        return _text(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{option}: {error}") from None


def _written_camera(name: str, written: Any) -> CameraSource:
    known = _table(written)
    source = _text(known.pop("source", ""))
    if known:
        raise InvalidRequest(f"expected source alone, got {', '.join(known)} too")
    return parse_camera(f"{name}={source}")


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"expected a table, got {value!r:.80}")
    return dict(value)


_TABLES: Final[Mapping[str, Callable[[str, Any], Any]]] = {"models": _written_model, "cameras": _written_camera}


def _parse(field: dataclasses.Field[Any], source: str, given: str | list[str] | None) -> Any:
    try:
        if not field.metadata["repeatable"]:
            return field.metadata["parse"](given) if given else None
        texts = shlex.split(given) if isinstance(given, str) else given or []
        return tuple(field.metadata["parse"](text) for text in texts if text) or None
    except (InvalidRequest, ValueError) as error:
        raise InvalidRequest(f"{source}: {error}") from None


def variable_name(field: dataclasses.Field[Any]) -> str:
    """The variable of the environment that sets a field of `Settings`, such as ``ACAPRUNTIME_RUN_TIMEOUT``."""
    return PREFIX + option_name(field).replace("-", "_").upper()


def option_name(field: dataclasses.Field[Any]) -> str:
    """The option that sets a field of `Settings`, such as ``run-timeout``."""
    return str(field.metadata["flags"][-1]).removeprefix("--")
