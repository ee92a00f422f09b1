"""The text of ``param.cgi?action=list``: a line ``root.Brand.Brand=AXIS`` for each parameter.

Lines end with CR LF or LF, ``root.`` may be missing, a value may be empty and may hold ``=``; lines that begin with
``#`` are remarks, of which ``# Error: …`` says that a group does not exist.
"""

from __future__ import annotations

import re
from typing import Final

LARGEST: Final = 4 << 20
"""Bytes of a listing, at most. Everything that a camera has is some 100 KiB."""

_LINE: Final = re.compile(r"\s*([A-Za-z0-9._-]+)\s*=(.*)", re.DOTALL)


def bare(key: str) -> str:
    """A key without the ``root.`` that may stand before it: both spellings mean the same parameter."""
    return key.removeprefix("root.")


def parse_listing(content: bytes) -> dict[str, str]:
    """Values by bare key; of a key that stands there twice, the later one. What is no UTF-8 becomes U+FFFD."""
    return {bare(found[1]): found[2] for line in _lines(content) if (found := _LINE.fullmatch(line))}


def is_listing(content: bytes) -> bool:
    """Whether this is a listing at all, rather than, say, a page that asks to log in. An empty one is."""
    first = next((line for line in _lines(content) if line.strip()), "#")
    return first.startswith("#") or _LINE.fullmatch(first) is not None


def _lines(content: bytes) -> list[str]:
    # Not splitlines, which also splits at characters that a value may hold.
    return [line.removesuffix("\r") for line in content.decode("utf-8-sig", "replace").split("\n")]
