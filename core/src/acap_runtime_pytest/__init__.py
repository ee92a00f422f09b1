"""A pytest plugin that ends a run of the compliance kit with a table of what the tested plugin supports.

It is outside `acap_runtime` because every run of pytest imports it wherever the core is installed. It costs nothing if
no test of the kit runs.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

_EVIDENCE = "acap_runtime_evidence"
"""The attribute of pytest's reports with the kit's facts about a test. With pytest-xdist, it crosses processes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the table to a file."""
    parser.getgroup("acap-runtime", "compliance kit of acap-runtime").addoption(
        "--compliance-report", type=Path, metavar="FILE", help="write what the plugin supports to FILE, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register a listener for the results of this run's tests."""
    config.pluginmanager.register(_Listener(), "acap-runtime-compliance")


class _Listener:
    """Collects the reports of the kit's tests until the run ends."""

    def __init__(self) -> None:
        self._reports: list[pytest.TestReport] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if "acap_runtime.testing.contract" in sys.modules:
            from acap_runtime.testing.evidence import evidence_of  # noqa: PLC0415 - cheap here, and nowhere else

            if (evidence := evidence_of(item)) is not None:
                vars(report)[_EVIDENCE] = evidence
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, _EVIDENCE):
            self._reports.append(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        path: Path | None = config.getoption("--compliance-report")
        if not self._reports and path is None:
            return
        from acap_runtime.testing.report import as_json, as_lines, tested  # noqa: PLC0415 - as above

        classes = tested((report, getattr(report, _EVIDENCE)) for report in self._reports)
        if classes:
            terminalreporter.section("what the compliance kit has tested")
        for line in as_lines(classes):
            terminalreporter.line(line)
        if path is not None:
            path.write_text(as_json(classes), encoding="utf-8")
