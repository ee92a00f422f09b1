"""Writes the documents' tables of chips, cameras, stores and tested systems from test results.

    for plugin in plugins/*/; do
        python -m pytest $plugin/tests --compliance-report reports/$(basename $plugin).json
    done
    python docs/build_tables.py reports/*.json

It replaces the tables of README.md and writes docs/chips.md. The table of systems comes from docs/machines.json, which
``python3 dev.py fresh MACHINE --record`` writes. Without reports it makes that table alone. With --check it writes
nothing, and exits with 0 if both are up to date, with 1 and the differences if not, and with 3 if some tests could not
run here. The documents contain nothing that differs between machines: neither counts of what the kit checked nor
results that need hardware.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "README.md"
CHIPS: Final = ROOT / "docs" / "chips.md"
MACHINES: Final = ROOT / "docs" / "machines.json"
INCOMPLETE: Final = 3
IMAGE_FORMATS: Final = 3
NEEDS_A_DEVICE: Final = "probing again gives the same answer"
"""The check of every kit that is skipped for one reason only: the subject under test is missing."""

Tested: TypeAlias = dict[str, Any]
"""A test class of the kit, as in its report."""


class Subject:
    """A chip, a camera or a store, and the combined results of all its test classes."""

    def __init__(self, classes: Sequence[Tested]) -> None:
        self.kind: str = classes[0]["kind"]
        self.about: dict[str, Any] = classes[0]["about"]
        shown = [each for each in classes if not each["needs_hardware"]]
        self._shown = [each for each in shown if each["checks"][NEEDS_A_DEVICE]["result"] == "met"]

    @property
    def tested(self) -> str:
        """The systems on which it was tested."""
        places = dict.fromkeys(each["tested_on"] for each in self._shown)
        return "; ".join(f"on {place}" if place else "yes" for place in places) or "no: it needs hardware"

    def supported(self, what: str) -> list[str]:
        """Return the entries of one of the report's lists."""
        return sorted({value for each in self._shown for value in each["supports"].get(what, [])})

    @property
    def abilities(self) -> str:
        """Return what it supports, and what it does not support with the reason."""
        reasons = {name: reason for each in self._shown for name, reason in each["cannot"].items()}
        does = [words(name) for name in self.supported("capabilities") if name not in reasons]
        does_not = [f"not {words(name)}" + (f" ({reason})" if reason else "") for name, reason in reasons.items()]
        return "; ".join([*does, *does_not])

    @property
    def order(self) -> tuple[bool, int, str]:
        """The sort key: by number, and subjects without a number last."""
        number = self.about.get("chip_id")
        return number is None, number or 0, self.about["name"]

    @property
    def number(self) -> str:
        number = self.about.get("chip_id")
        return "" if number is None else str(number)

    @property
    def package(self) -> str:
        return f"`{self.about['distribution']}`"


def subjects_of(reports: Iterable[Path]) -> list[Subject]:
    """Return all subjects of the reports, by kind and number."""
    found: dict[tuple[str, str], list[Tested]] = {}
    for report in reports:
        for each in json.loads(report.read_text())["tested"]:
            failed = [check for check, outcome in each["checks"].items() if outcome["result"] == "failed"]
            if failed:
                sys.exit(f"{report}: {each['name']} has failed: {', '.join(failed)}; there is nothing to write of it")
            if each["about"]:
                found.setdefault((each["kind"], each["about"]["name"]), []).append(each)
    return sorted(map(Subject, found.values()), key=lambda subject: subject.order)


def missing(reports: Iterable[Path]) -> list[str]:
    """Return why tests that need no hardware were skipped: their substitute for it is missing here."""
    reasons = [
        f"{each['name']}: {outcome['reason']}"
        for report in reports
        for each in json.loads(report.read_text())["tested"]
        for outcome in each["checks"].values()
        if outcome["result"] == "skipped" and not each["needs_hardware"] and "the subclass" not in outcome["reason"]
    ]
    return list(dict.fromkeys(reasons))


def readme(text: str, subjects: Sequence[Subject]) -> str:
    """Return the README with its tables replaced."""
    chips = [
        [subject.number, subject.about["name"], subject.about["description"], subject.package, subject.tested]
        for subject in subjects
        if subject.kind in ("inference", "processing")
    ]
    cameras = [
        [each.about["name"], f"`{each.about['sources']}`", each.package, each.tested]
        for each in subjects
        if each.kind == "camera"
    ]
    text = systems(text)
    text = replaced(text, "chips", table(["id", "larod's name", "what it does", "package", "tested"], chips))
    return replaced(text, "cameras", table(["camera", "source", "package", "tested"], cameras))


def systems(text: str) -> str:
    """Return the README with its table of tested systems replaced."""
    heads = ["system", "Python", "demo and tests", "numpy", "grpcio", "protobuf", "ai-edge-litert", "av", "libyuv"]
    rows = []
    for machine in json.loads(MACHINES.read_text()):
        libraries = machine["libraries"]
        counts = [f"{step['tests']['passed']} passed" for step in machine["steps"] if step["tests"]]
        rows.append([machine["system"], machine["python"], *counts, *(libraries[head] for head in heads[3:])])
    return replaced(text, "systems", table(heads, rows))


def replaced(text: str, name: str, content: str) -> str:
    """Return a text with new content between the markers of `name`."""
    begin, end = f"<!-- {name}: made by docs/build_tables.py -->\n", f"<!-- /{name} -->"
    found = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}{content}{end}", text, flags=re.DOTALL)
    if found[1] != 1:
        sys.exit(f"README.md: expected {begin.strip()} and {end} once, found them {found[1]} times")
    return found[0]


def chips_page(subjects: Sequence[Subject]) -> str:
    """Return the page about each chip, camera and store."""
    kinds = {kind: [each for each in subjects if each.kind == kind] for kind in {each.kind for each in subjects}}
    inference = [
        [chip(each), listed(each.about["options"]), each.abilities, each.tested] for each in kinds.get("inference", [])
    ]
    processing = [
        [chip(each), conversions(each.supported("formats")), each.abilities, each.tested]
        for each in kinds.get("processing", [])
    ]
    cameras = [
        [each.about["name"], each.about["description"], listed(each.supported("formats")), each.abilities, each.tested]
        for each in kinds.get("camera", [])
    ]
    stores = [
        [each.about["name"], each.about["description"], each.package, each.tested]
        for each in kinds.get("parameters", [])
    ]
    return "".join(
        [
            "# What the plugins support\n\n",
            "Made by docs/build_tables.py from what the compliance kit found in the plugins' own tests: only what\n",
            "has passed there is said here. `pytest` prints the same of any plugin after its tests, with counts.\n\n",
            "## Chips that run models\n\n",
            table(["chip", "load options", "does", "tested"], inference),
            "## Chips that convert images\n\n",
            table(["chip", "formats", "does", "tested"], processing),
            "## Cameras\n\n",
            table(["camera", "what it gives", "formats", "does", "tested"], cameras),
            "## Parameter stores\n\n",
            table(["store", "what it has", "package", "tested"], stores).removesuffix("\n"),
        ]
    )


def chip(subject: Subject) -> str:
    """Return everything that ``-j`` accepts for a chip."""
    return listed([*filter(None, [subject.number]), subject.about["name"], *subject.about["aliases"]])


def conversions(pairs: Sequence[str]) -> str:
    """List the pairs of formats, or state that all are supported."""
    names = {name for pair in pairs for name in pair.split(" to ")}
    if len(pairs) == len(names) ** 2 == IMAGE_FORMATS**2:
        return f"every one of {listed(sorted(names))} to every other, and to itself"
    return ", ".join(pairs)


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def words(name: str) -> str:
    return name.replace("_", " ")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table and the empty line after it."""
    aligned = ["---:" if head == "id" else "---" for head in heads]
    lines = [heads, aligned, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT", help="what --compliance-report wrote")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    given = parser.parse_args()
    if given.reports:
        subjects = subjects_of(given.reports)
        made = {README: readme(README.read_text(), subjects), CHIPS: chips_page(subjects)}
    else:
        made = {README: systems(README.read_text())}
    if not given.check:
        for path, text in made.items():
            path.write_text(text)
        return 0
    differences = [
        line
        for path, text in made.items()
        for line in difflib.unified_diff(
            path.read_text().splitlines(), text.splitlines(), path.name, "what the tests found", lineterm="", n=0
        )
    ]
    if differences and (reasons := missing(given.reports)):
        print("\n".join(reasons))
        return INCOMPLETE
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
