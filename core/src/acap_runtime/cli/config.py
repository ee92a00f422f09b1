"""``acapruntime config``: shows every setting as the server would have it, and the origin of its value."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acap_runtime.cli.discovery import discover
from acap_runtime.cli.table import show
from acap_runtime.errors import InvalidRequest, redacted
from acap_runtime.settings.camera_source import CameraSource
from acap_runtime.settings.model_source import ModelSource, as_option_text
from acap_runtime.settings.options import Settings, add_arguments, option_name
from acap_runtime.settings.reading import read_settings, traced_settings
from acap_runtime.stores.choice import make_store
from acap_runtime.stores.overrides import Override, applied, read_overrides


def run(arguments: Sequence[str]) -> int:
    """Run the command. It takes the options of ``serve``. It reads the device's parameters only if ``-o`` lets them
    override settings.
    """
    parser = argparse.ArgumentParser(
        "acapruntime config",
        description="Show every setting that the server would have, and where it comes from.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--check", metavar="FILE", help="say what is wrong in a configuration file, and exit with 1 if anything is"
    )
    parser.add_argument("nothing", nargs="*", help=argparse.SUPPRESS)
    add_arguments(parser)
    given = vars(parser.parse_args(arguments))
    if surplus := [word for word in given["nothing"] if word]:
        parser.error(f"unrecognized arguments: {' '.join(surplus)}")
    if given["check"]:
        return _check(Path(given["check"]), as_json=given["json"])
    try:
        settings, origins = traced_settings(given)
    except InvalidRequest as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.WARNING, format="acapruntime: %(message)s", stream=sys.stderr)
    if settings.parameters_override:
        overrides = asyncio.run(_read_overrides(settings))
        settings = applied(settings, overrides)
        origins |= {name: f"parameter {override.key}" for override in overrides for name in override.values}
    show(_rows(settings, origins), as_json=given["json"])
    return 0


def _check(path: Path, *, as_json: bool) -> int:
    try:
        read_settings({"config": str(path)}, {})
        problems = []
    except InvalidRequest as error:
        problems = str(error).splitlines()
    if as_json:
        print(json.dumps({"file": str(path), "problems": problems}, indent=2))  # noqa: T201 - the requested output
    else:
        print("\n".join(problems) or f"{path}: nothing is wrong")  # noqa: T201 - the requested output
    return 1 if problems else 0


async def _read_overrides(settings: Settings) -> list[Override]:
    store = make_store(settings, discover(settings.blocked))
    try:
        return await read_overrides(settings, store)
    finally:
        if store is not None:
            await store.close()


def _rows(settings: Settings, origins: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "setting": option_name(field),
            "value": _shown(getattr(settings, field.name)),
            "origin": origins[field.name],
        }
        for field in dataclasses.fields(settings)
    ]


def _shown(value: Any) -> Any:
    """Return a value in a form that JSON allows and the command line would take, without the passwords in URLs."""
    if isinstance(value, tuple):
        return [_shown(each) for each in value]
    if isinstance(value, ModelSource):
        return as_option_text(value)
    if isinstance(value, CameraSource):
        source = redacted(value.source)
        return source if source == value.name else f"{value.name}={source}"
    if isinstance(value, str | Path):
        return redacted(str(value))
    return value
