"""Collects the report's facts about a test of the kit, beside its result, while the test item is available."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytest

import acap_runtime as acap
from acap_runtime.testing.contract import Contract
from acap_runtime.testing.discovery import package_of


def evidence_of(item: pytest.Item) -> dict[str, Any] | None:
    """Return a test's facts as plain values, or None for a test that is not the kit's.

    A check that the plugin's test class overrides is not the kit's either, but the report names it.
    """
    if not isinstance(item, pytest.Function) or item.cls is None or not issubclass(item.cls, Contract):
        return None
    check: str = item.originalname
    kits = [base for base in item.cls.__mro__ if base.__module__.startswith("acap_runtime.testing.")]
    if not any(check in vars(base) for base in kits):
        return None
    contract = item.instance
    arguments = {**(item.callspec.params if hasattr(item, "callspec") else {}), **item.funcargs}
    return {
        "class": item.nodeid.rpartition(f"::{item.name}")[0],
        "check": check.removeprefix("test_").replace("_", " "),
        "replaced": not item.function.__module__.startswith("acap_runtime.testing."),
        "kind": contract.kind,
        "tested_on": contract.tested_on,
        "needs_hardware": contract.needs_hardware,
        "about": next((_about(each) for each in arguments.values() if isinstance(each, _SUBJECTS)), {}),
        "cannot": {
            name: contract.reasons.get(name, "") for name in contract.capabilities if not getattr(contract, name)
        },
        "shows": [list(each) for each in contract.shows(check, arguments)],
        "proven": {what: list(count) for what, count in contract.proven.items()},
    }


_SUBJECTS = (acap.Backend, acap.Camera, acap.ParameterStore)


def _about(subject: acap.Backend | acap.Camera | acap.ParameterStore) -> dict[str, Any]:
    """Describe the subject. Its attributes may be wrong in any way: a check of the kit reports that."""
    about: dict[str, Any] = {
        "name": str(getattr(subject, "name", "")),
        "description": _first_sentence(inspect.getdoc(type(subject)) or ""),
        **_distribution(package_of(subject)),
    }
    match subject:
        case acap.Backend():
            number, aliases, options = (getattr(subject, each, None) for each in ("chip_id", "aliases", "options"))
            about["chip_id"] = number if isinstance(number, int) else None
            about["aliases"] = [str(alias) for alias in aliases] if isinstance(aliases, tuple) else []
            about["options"] = (
                {str(name): str(meaning) for name, meaning in options.items()} if isinstance(options, Mapping) else {}
            )
        case acap.Camera():
            about["sources"] = str(getattr(subject, "sources", ""))
    return about


def _first_sentence(text: str) -> str:
    return " ".join(re.split(r"\.\s|\n\n", text, maxsplit=1)[0].split()).removesuffix(".")


@cache
def _distribution(package: str) -> dict[str, str]:
    for point in entry_points(group="acap_runtime"):
        if point.module.partition(".")[0] == package and point.dist is not None:
            return {"distribution": point.dist.name, "version": point.dist.version}
    return {"distribution": "", "version": ""}
