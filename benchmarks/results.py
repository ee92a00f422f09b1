"""Measured results: rows of samples, their medians, their ratios and the targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from timing import Sample
from workloads import BARE, FIRST_ANSWER, IN_PROCESS, OURS, OURS_SHARED, OURS_TWO, Workload


@dataclass(frozen=True)
class Row:
    """A contestant with a workload and a number of clients. It has one sample per round.

    `paced_per_s` is the number of requests that a client sends per second, or None for as many as it can.
    """

    workload: Workload
    contestant: str
    clients: int
    paced_per_s: float | None = None
    samples: list[Sample] = field(default_factory=list)

    def median(self, value: str) -> float:
        """Return the median of a `Sample`'s field over rounds."""
        return float(median(getattr(sample, value) for sample in self.samples))

    def ratio(self, other: Row, value: str = "per_s") -> float:
        """Return the median over rounds of this row's value divided by the other's."""
        return median(mine / theirs for mine, theirs in self._pairs(other, value))

    def difference(self, other: Row, value: str) -> float:
        """Return the median over rounds of this row's value minus the other's."""
        return median(mine - theirs for mine, theirs in self._pairs(other, value))

    def _pairs(self, other: Row, value: str) -> list[tuple[float, float]]:
        pairs = zip(self.samples, other.samples, strict=True)
        return [(getattr(mine, value), getattr(theirs, value)) for mine, theirs in pairs]


@dataclass(frozen=True)
class Target:
    """A target of this project, and the measured value."""

    workload: str
    meaning: str
    limit: float
    value: float
    unit: str
    met: bool


@dataclass(frozen=True)
class Results:
    """A whole run."""

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    first_answers_s: Mapping[str, Sequence[float]]
    """Seconds to the first answer of each contestant's starts."""

    def ratio(self, row: Row, contestant: str) -> float | None:
        """Return the ratio of a row's requests/s to another contestant's.

        A paced row has no rate of its own: its ratio is that of the inverted p50s.
        """
        other = self._find(row.workload.name, contestant, row.clients, row.paced_per_s)
        if other is None:
            return None
        return row.ratio(other) if row.paced_per_s is None else other.ratio(row, "p50_ms")

    def targets(self) -> list[Target]:
        """Return the targets that this run covers."""
        targets = [
            self._rate("mobilenet_v2", OURS, 0.92),
            self._rate("mobilenet_v2", OURS_TWO, 1.7),
            self._above_bare("mobilenet_v2", 0.3),
            self._latency("echo-6.2MB", OURS, 7.0),
            self._latency("input-6.2MB", OURS, 7.0),
            self._latency("input-6.2MB", OURS_SHARED, 2.5),
            self._first_answer(1.2),
        ]
        return [target for target in targets if target is not None]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "rows": [self._row_as_json(row) for row in self.rows],
            "first_answers": [
                {"contestant": contestant, "median_s": median(times), "times_s": list(times)}
                for contestant, times in self.first_answers_s.items()
            ],
            "targets": [dataclasses.asdict(target) for target in self.targets()],
        }

    def _row_as_json(self, row: Row) -> dict[str, Any]:
        return {
            "workload": row.workload.name,
            "contestant": row.contestant,
            "clients": row.clients,
            "paced_per_s": row.paced_per_s,
            **{each.name: row.median(each.name) for each in dataclasses.fields(Sample)},
            "of_in_process": self.ratio(row, IN_PROCESS),
            "of_bare_server": self.ratio(row, BARE),
            "rounds": [dataclasses.asdict(sample) for sample in row.samples],
        }

    def _find(self, workload: str, contestant: str, clients: int, paced_per_s: float | None = None) -> Row | None:
        for row in self.rows:
            if row.workload.name == workload and (row.contestant, row.clients, row.paced_per_s) == (
                contestant,
                clients,
                paced_per_s,
            ):
                return row
        return None

    def _rate(self, workload: str, contestant: str, limit: float) -> Target | None:
        row, alone = (self._find(workload, each, 4) for each in (contestant, IN_PROCESS))
        if row is None or alone is None:
            return None
        value = row.ratio(alone)
        meaning = f"{contestant}, requests/s at 4 clients, as a share of {IN_PROCESS}: at least"
        return Target(workload, meaning, limit, value, "", value >= limit)

    def _above_bare(self, workload: str, limit: float) -> Target | None:
        ours, bare = (self._find(workload, contestant, 1) for contestant in (OURS, BARE))
        if ours is None or bare is None:
            return None
        value = ours.difference(bare, "p50_ms")
        return Target(workload, f"{OURS}, p50 at 1 client, above {BARE}: at most", limit, value, " ms", value <= limit)

    def _latency(self, workload: str, contestant: str, limit: float) -> Target | None:
        row = self._find(workload, contestant, 1)
        if row is None:
            return None
        value = row.median("p50_ms")
        return Target(workload, f"{contestant}, p50 at 1 client: at most", limit, value, " ms", value <= limit)

    def _first_answer(self, limit: float) -> Target | None:
        if OURS not in self.first_answers_s:
            return None
        value = median(self.first_answers_s[OURS])
        return Target(FIRST_ANSWER, f"{OURS}, first answer after start: at most", limit, value, " s", value <= limit)
