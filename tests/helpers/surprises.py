"""What a server or a command says that nobody foresaw."""

from __future__ import annotations

import re

_SURPRISE = re.compile(r"Traceback|\bunexpected [A-Z]\w+")


def surprises(log: str) -> list[str]:
    """The lines of it that tell of an exception which nobody meant to raise."""
    return [line for line in log.splitlines() if _SURPRISE.search(line)]
