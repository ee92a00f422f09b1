"""Checks from its bytes, without a decoder, that a compressed frame keeps the contract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import acap_runtime as acap


@dataclass(frozen=True, slots=True)
class _Codec:
    """The NAL unit types of a codec that the check needs, and the way to find them."""

    header_size: int
    shift: int
    mask: int
    slices: frozenset[int]
    intra_slices: frozenset[int]
    parameter_sets: frozenset[int]

    def type_of(self, unit: bytes) -> int:
        return unit[0] >> self.shift & self.mask

    def begins_picture(self, unit: bytes) -> bool:
        # h264: first_mb_in_slice is 0, coded as a single 1 bit. h265: first_slice_segment_in_pic_flag.
        return self.type_of(unit) in self.slices and unit[self.header_size :][:1] >= b"\x80"


_H264: Final = _Codec(1, 0, 0x1F, frozenset({1, 2, 5}), frozenset({5}), frozenset({7, 8}))
_H265: Final = _Codec(2, 1, 0x3F, frozenset(range(32)), frozenset(range(16, 24)), frozenset({32, 33, 34}))

_JPEG_START: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_encoded(frame: acap.Frame, settings: acap.StreamSettings) -> None:
    """Fail with the reason if the compressed frame of a stream is wrong."""
    data = frame.encoded
    assert isinstance(data, bytes), f"encoded of {settings}: expected bytes, got {type(data)}"
    assert data, f"encoded of {settings}: expected the compressed frame, got nothing"
    match settings.format:
        case "h264":
            _check_annex_b(data, frame.keyframe, _H264)
        case "h265":
            _check_annex_b(data, frame.keyframe, _H265)
        case "jpeg":
            assert frame.keyframe, "keyframe False: every JPEG decodes by itself"
            _check_jpeg(data, settings)


def _check_annex_b(data: bytes, keyframe: bool, codec: _Codec) -> None:
    assert data.startswith(b"\0\0\0\1"), f"begins with {data[:5].hex(' ')}: expected a start code, 00 00 00 01"
    short = re.search(rb"(?<!\x00)\x00\x00\x01", data)
    assert not short, f"a start code of 3 bytes at byte {short.start() if short else 0}: expected 4 bytes, 00 00 00 01"
    units = data.split(b"\0\0\0\1")[1:]
    assert all(units), "a NAL unit is empty"
    kinds = {codec.type_of(unit) for unit in units}
    pictures = sum(codec.begins_picture(unit) for unit in units)
    assert pictures == 1, f"{pictures} pictures in NAL units of types {sorted(kinds)}: expected one access unit"
    if keyframe:
        complete = kinds & codec.intra_slices and codec.parameter_sets <= kinds
        assert complete, (
            f"a keyframe of NAL units of types {sorted(kinds)}: expected the parameter sets "
            f"{sorted(codec.parameter_sets)} and one of {sorted(codec.intra_slices)}, so that it decodes by itself"
        )
    else:
        assert not kinds & codec.intra_slices, f"keyframe False, but NAL units of types {sorted(kinds)}: it is one"


def _check_jpeg(data: bytes, settings: acap.StreamSettings) -> None:
    assert data.startswith(_JPEG_START), f"begins with {data[:2].hex(' ')}: expected ff d8, a whole JPEG"
    assert data.endswith(_JPEG_END), f"ends with {data[-2:].hex(' ')}: expected ff d9, one whole JPEG and no more"
    size = _jpeg_size(data)
    assert size == (settings.width, settings.height), (
        f"a JPEG of {size} pixels: expected {settings.width}x{settings.height}"
    )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = len(_JPEG_START)
    while place + 9 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 - the byte that begins every marker
        if data[place + 1] in _JPEG_SIZES:
            return int.from_bytes(data[place + 7 : place + 9]), int.from_bytes(data[place + 5 : place + 7])
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None
