"""Parses the text of ``param.cgi?action=list``: a line ``root.Brand.Brand=AXIS`` for each parameter.

Lines end with CR LF or LF. ``root.`` may be missing. A value may be empty and may contain ``=``. Lines that start with
``#`` are remarks; among them, ``# Error: …`` reports that a group does not exist.
"""

from __future__ import annotations

import re
from typing import Final

LARGEST: Final = 4 << 20
"""The largest size of a listing in bytes. All parameters of a camera take some 100 KiB."""

_LINE: Final = re.compile(r"\s*([A-Za-z0-9._-]+)\s*=(.*)", re.DOTALL)


def bare(key: str) -> str:
    """Remove a leading ``root.`` from a key. Both spellings mean the same parameter."""
    return key.removeprefix("root.")


def parse_listing(content: bytes) -> dict[str, str]:
    """Return values by bare key. If a key occurs twice, the later one counts. Invalid UTF-8 becomes U+FFFD."""
    return {bare(found[1]): found[2] for line in _lines(content) if (found := _LINE.fullmatch(line))}


def is_listing(content: bytes) -> bool:
    """Return True if this is a listing at all, rather than, for example, a login page. An empty text is a listing."""
    first = next((line for line in _lines(content) if line.strip()), "#")
    return first.startswith("#") or _LINE.fullmatch(first) is not None


def _lines(content: bytes) -> list[str]:
    # Not splitlines, which also splits at characters that a value may contain.
    return [line.removesuffix("\r") for line in content.decode("utf-8-sig", "replace").split("\n")]
