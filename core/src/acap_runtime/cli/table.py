"""Prints rows, for people or for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows that have the same keys, as a JSON list or as a table with the keys as its heading."""
    if as_json:
        write(json.dumps(rows, indent=2))
    elif not rows:
        write("none")
    else:
        write("\n".join(lines(rows)))


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return the table's lines. The first one is the heading."""
    cells = [
        [key.upper().replace("_", " ") for key in rows[0]],
        *([_cell(value) for value in row.values()] for row in rows),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def write(text: str) -> None:
    """Print lines."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # here a closed pipe can still be told from other errors


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
