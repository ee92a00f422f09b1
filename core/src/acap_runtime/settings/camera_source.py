"""A camera as the operator configures it: a source of video and its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from acap_runtime.errors import InvalidRequest, redacted


@dataclass(frozen=True, slots=True)
class CameraSource:
    """A source of video and the name that the operator and clients call it by."""

    name: str
    source: str


def parse_camera(text: str) -> CameraSource:
    """Parse ``SOURCE`` or ``NAME=SOURCE``.

    A name consists of letters, digits, ``-``, ``_`` and dots, so a URL may contain ``=``. Without a name, the redacted
    source is the name. Raises `InvalidRequest`.
    """
    found = re.fullmatch(r"(?:([A-Za-z0-9._-]+)=)?([^=].*)", text, re.DOTALL)
    name, source = found.groups() if found else (None, "")
    if not source or (source.endswith("=") and re.fullmatch(r"[A-Za-z0-9._-]+=", source)):
        raise InvalidRequest(f"expected SOURCE or NAME=SOURCE, got {redacted(text)!r}")
    if name and name.isdecimal():
        raise InvalidRequest(
            f"expected a name that is no number, which clients count cameras by, got {redacted(text)!r}"
        )
    return CameraSource(name or redacted(source), source)
