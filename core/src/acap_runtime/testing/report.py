"""Makes the table at the end of a run of the kit. It lists what a plugin supports, as far as tests have shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import pytest

Result: TypeAlias = Literal["met", "failed", "not supported", "replaced", "skipped"]

_ORDER: tuple[Result, ...] = ("failed", "not supported", "replaced", "met", "skipped")
"""The order of results: a check has the first of these that any of its tests has."""


@dataclass(slots=True)
class Outcome:
    """The result of a test, or of a check with several tests, and the reason if it did not simply pass."""

    result: Result
    reason: str = ""


@dataclass(slots=True)
class TestedClass:
    """The results of one test class about a chip, a camera or a parameter store.

    `about` describes the subject. `supports` has only entries whose tests have all passed. `cannot` has what the class
    declares as unsupported, with the reasons. `proven` has the number of repetitions of each action, and the number
    that it would have reached with enough time.
    """

    name: str
    kind: str
    tested_on: str
    needs_hardware: bool
    about: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Outcome] = field(default_factory=dict)
    supports: dict[str, list[str]] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)
    proven: dict[str, tuple[int, int]] = field(default_factory=dict)


def tested(reports: Iterable[tuple[pytest.TestReport, Mapping[str, Any]]]) -> list[TestedClass]:
    """Return every test class of the kit, from pytest's reports of all test phases and the results of `evidence_of`."""
    outcomes: dict[str, Outcome] = {}
    evidence: dict[str, dict[str, Mapping[str, Any]]] = {}
    for report, found in reports:
        outcome = _outcome(report, found["replaced"])
        known = outcomes.get(report.nodeid)
        if outcome is not None and (known is None or outcome.result == "failed"):
            outcomes[report.nodeid] = outcome
        tests = evidence.setdefault(found["class"], {})
        # A fixture's teardown comes last and says less.
        if report.when != "teardown":
            tests[report.nodeid] = found
    return [_class(name, tests, outcomes) for name, tests in evidence.items()]


def _outcome(report: pytest.TestReport, replaced: bool) -> Outcome | None:
    if report.failed:
        return Outcome("failed", f"in its {report.when}" if report.when != "call" else "")
    if report.skipped:
        if hasattr(report, "wasxfail"):
            return Outcome("not supported", str(report.wasxfail))
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return Outcome("skipped", reason.removeprefix("Skipped: "))
    if report.when != "call":
        return None
    return Outcome("replaced", "by a test of the plugin's own") if replaced else Outcome("met")


def _class(name: str, tests: Mapping[str, Mapping[str, Any]], outcomes: Mapping[str, Outcome]) -> TestedClass:
    first = next(iter(tests.values()))
    found = TestedClass(name, first["kind"], first["tested_on"], first["needs_hardware"], cannot=first["cannot"])
    shown: dict[tuple[str, str], bool] = {}
    for nodeid, test in tests.items():
        outcome = outcomes.get(nodeid, Outcome("skipped", "did not come to its end"))
        found.about = found.about or test["about"]
        known = found.checks.get(test["check"])
        if known is None or _ORDER.index(outcome.result) < _ORDER.index(known.result):
            found.checks[test["check"]] = outcome
        if outcome.result == "met":
            found.proven.update(test["proven"])
        if outcome.result != "skipped":
            for each in map(tuple, test["shows"]):
                shown[each] = shown.get(each, True) and outcome.result == "met"
    for (group, value), met in shown.items():
        if met:
            found.supports.setdefault(group, []).append(value)
    return found


def as_json(classes: Iterable[TestedClass]) -> str:
    """Format the report for programs."""
    return json.dumps({"tested": [asdict(each) for each in classes]}, indent=2) + "\n"


def as_lines(classes: Iterable[TestedClass]) -> Iterator[str]:
    """Format the report for people."""
    for each in classes:
        yield each.name
        rows = [(name, value) for name, value in _rows(each) if value]
        width = max(len(name) for name, _ in rows)
        yield from (f"  {name:<{width}}  {value}" for name, value in rows)


def _rows(found: TestedClass) -> Iterator[tuple[str, str]]:
    about, supports = found.about, found.supports
    number = about.get("chip_id")
    name = about.get("name", "")
    yield found.kind, f"{number} {name}" if number is not None else name
    yield "aliases", ", ".join(about.get("aliases", []))
    yield "sources", about.get("sources", "")
    yield "plugin", f"{about.get('distribution', '')} {about.get('version', '')}".strip()
    yield "tested on", found.tested_on
    yield "formats", _listed(supports.get("formats", []))
    yield "sizes", _listed(supports.get("sizes", []))
    yield "does", _listed(_words(each) for each in supports.get("capabilities", []))
    yield (
        "does not",
        "; ".join(_words(each) + (f": {reason}" if reason else "") for each, reason in found.cannot.items()),
    )
    yield "proven", _listed(map(_counted, found.proven.items()))
    results = [check.result for check in found.checks.values()]
    yield "checks", _listed(f"{results.count(result)} {result}" for result in _ORDER[::-1] if result in results)
    for check, outcome in found.checks.items():
        if outcome.result != "met":
            yield outcome.result, check + (f": {outcome.reason}" if outcome.reason else "")


def _counted(proven: tuple[str, tuple[int, int]]) -> str:
    what, (done, wanted) = proven
    return f"{what} {done:,}" + (f" (no more of {wanted:,} in the time given)" if done < wanted else "")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values)
