"""Formats results for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median

from results import Results, Row, Target
from workloads import BARE, FIRST_ANSWER, IN_PROCESS


def lines(results: Results) -> Iterator[str]:
    """Yield tables of all rows, with the targets below each."""
    yield ", ".join(f"{name} {value}" for name, value in results.machine.items())
    yield "Medians over rounds. Ratios are of requests/s in the same round. CPU is processor time per request."
    targets = results.targets()
    for (workload, paced_per_s), group in groupby(results.rows, lambda row: (row.workload, row.paced_per_s)):
        yield ""
        if paced_per_s is None:
            yield f"{workload.name} ({workload.meaning})"
        else:
            yield f"{workload.name}, a client that sends {paced_per_s:g} requests/s (ratios are of p50, inverted)"
        yield from _table(results, list(group))
        if paced_per_s is None:
            yield from (_verdict(target) for target in targets if target.workload == workload.name)
    if results.first_answers_s:
        yield ""
        yield f"{FIRST_ANSWER} (from the start of the process, mobilenet_v2 loaded at start)"
        cells = [["contestant", "median s", "each"]]
        for contestant, times in results.first_answers_s.items():
            cells.append([contestant, f"{median(times):.2f}", " ".join(f"{each:.2f}" for each in times)])
        yield from aligned(cells)
        yield from (_verdict(target) for target in targets if target.workload == FIRST_ANSWER)


def _table(results: Results, rows: Sequence[Row]) -> list[str]:
    others = [name for name in (IN_PROCESS, BARE) if any(row.contestant == name for row in rows)]
    headings = ["contestant", "clients", "p50 ms", "p99 ms", "requests/s", *(f"of {name}" for name in others)]
    return aligned(
        [[*headings, "server CPU ms", "client CPU ms"], *(_cells(row, results, others) for row in rows)],
    )


def _cells(row: Row, results: Results, others: Sequence[str]) -> list[str]:
    return [
        row.contestant,
        str(row.clients),
        *(f"{row.median(value):.2f}" for value in ("p50_ms", "p99_ms")),
        f"{row.median('per_s'):.1f}",
        *(f"{results.ratio(row, name):.2f}" for name in others),
        *(f"{row.median(value):.2f}" for value in ("server_cpu_ms", "client_cpu_ms")),
    ]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table]


def _verdict(target: Target) -> str:
    verdict = "met" if target.met else "NOT MET"
    return f"target {verdict}: {target.meaning} {target.limit:g}{target.unit}; measured {target.value:.2f}{target.unit}"
