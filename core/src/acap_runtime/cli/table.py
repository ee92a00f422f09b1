"""Rows for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows that have the same keys: as a JSON list, or as a table with the keys for a heading."""
    if as_json:
        _write(json.dumps(rows, indent=2))
    elif not rows:
        _write("none")
    else:
        _write("\n".join(_lines(rows)))


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines = [
        [key.upper().replace("_", " ") for key in rows[0]],
        *([_cell(value) for value in row.values()] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # here, where a reader that went away can still be told from other errors


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
