"""Writes the tables of settings in operations.md from the settings' definitions.

    python docs/build_settings.py

A test compares the tables with the definitions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from acap_runtime.settings.model_source import MODEL_OPTIONS
from acap_runtime.settings.option_values import parse_switch
from acap_runtime.settings.options import Settings, variable_name

OPERATIONS: Final = Path(__file__).resolve().parent / "operations.md"


def settings() -> str:
    """Return a table with a row for each setting."""
    rows = []
    for field in dataclasses.fields(Settings):
        flags, metavar = field.metadata["flags"], field.metadata["metavar"]
        switch = field.metadata["parse"] is parse_switch
        option = ", ".join(f"`{flag}`" for flag in flags) + ("" if switch else f" `{metavar}`")
        rows.append([option, f"`{variable_name(field)}`", _default(field), _meaning(field)])
    return _table(["option", "environment", "default", "meaning"], rows)


def model_options() -> str:
    """Return a table with a row for each of the server's own model options."""
    return _table(["option", "meaning"], [[f"`{name}`", meaning] for name, (meaning, _) in MODEL_OPTIONS.items()])


def written(text: str) -> str:
    """Return the page with its tables replaced."""
    for name, content in (("settings", settings()), ("model options", model_options())):
        begin, end = f"<!-- {name}: made by docs/build_settings.py -->\n", f"<!-- /{name} -->"
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        new = (begin + content + end).replace("\\", r"\\")
        text, count = re.subn(pattern, new, text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"operations.md: expected {begin.strip()} and {end} once, found them {count} times")
    return text


def _default(field: dataclasses.Field[Any]) -> str:
    match field.default:
        case None | ():
            return ""
        case bool():
            return "yes" if field.default else "no"
        case _:
            return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def _meaning(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata["help"]) + ("; may be given several times" if field.metadata["repeatable"] else "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    OPERATIONS.write_text(written(OPERATIONS.read_text()))
