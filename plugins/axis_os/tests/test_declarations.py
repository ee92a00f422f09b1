"""The declarations against a table of what is published."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acap_runtime as acap
import pytest
from acap_runtime_axis_os import declarations
from acap_runtime_axis_os.library import Library
from acap_runtime_axis_os.store import open_axparameter
from acap_runtime_axis_os.vdo import open_vdo, settings_of

PUBLISHED = tomllib.loads(Path(__file__).with_name("published_api.toml").read_text())


def kind(ctype: Any) -> str:
    if ctype.kind in ("pointer", "function"):
        return "pointer"
    return {"size_t": "size"}.get(ctype.cname, ctype.cname.removesuffix("_t"))


@pytest.mark.usefixtures("fake_libraries")
@pytest.mark.parametrize(("name", "open_it"), [("vdo", open_vdo), ("axparameter", open_axparameter)])
def test_functions_are_declared_as_published(name: str, open_it: Callable[[], Library]) -> None:
    library = open_it()
    types = {each: library.ffi.typeof(getattr(library.functions, each)) for each in dir(library.functions)}
    declared = {each: [kind(found.result), *map(kind, found.args)] for each, found in types.items()}
    assert declared == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED["numbers"])
def test_numbers_are_as_published(name: str) -> None:
    assert {each.name: each.value for each in getattr(declarations, name)} == PUBLISHED["numbers"][name]


def test_settings_have_the_published_types() -> None:
    given = {}
    for format_ in acap.STREAM_FORMATS:
        given |= {name: type_ for type_, name, _ in settings_of(acap.StreamSettings(format_, 64, 48, 5), channel=1)}
    assert given == PUBLISHED["settings"]
