"""The ways to scale colour."""

from __future__ import annotations

from typing import Final, Literal, get_args

Chroma = Literal["larod", "full"]
"""``larod`` scales 4:2:0 planes as larod does, ``full`` scales a colour for every pixel."""

CHROMAS: Final[tuple[Chroma, ...]] = get_args(Chroma)
