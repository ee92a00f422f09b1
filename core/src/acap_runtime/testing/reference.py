"""A reference conversion in floating point. It is slow and plain, and shares no code with any chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

import acap_runtime as acap

_Planes: TypeAlias = list[np.ndarray[Any, np.dtype[np.float64]]]
_Space: TypeAlias = Literal["rgb", "yuv"]

_YUV_OF_RGB = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
_RGB_OF_YUV = np.linalg.inv(_YUV_OF_RGB)
_RANGE = np.array([219.0, 224.0, 224.0]) / 255
_ZERO = np.array([16.0, 128.0, 128.0])


@dataclass(frozen=True, slots=True)
class Reference:
    """Converts as most chips do: BT.601 with limited range, bilinear scaling of pixel centres.

    The two fields describe permitted differences of a chip.
    """

    chroma: Literal["full", "halved"] = "full"
    """``full`` scales R, G and B. ``halved`` scales Y, and U and V shared by four pixels, whatever the formats."""
    enlarging: Literal["centres", "corners"] = "centres"
    """The points that stay in place when enlarging. ``corners`` maps the outermost pixel centres of the input to those
    of the output."""

    def __call__(self, picture: acap.Array, conversion: acap.Conversion) -> acap.Array:
        """Convert `picture`, which has the shape of `conversion.input`."""
        region, source, target = conversion.region, conversion.input, conversion.output
        came, wanted = _space(source), _space(target)
        scaled = (region.width, region.height) != (target.width, target.height)
        halved = came == wanted == "yuv" or (scaled and self.chroma == "halved")
        between: _Space = "yuv" if halved else "rgb"

        planes = _cropped(_unpacked(picture, source), region, came)
        planes = _translated(planes, came, between, region.width, region.height)
        if scaled:
            share = _shares(between)
            planes = [
                self._scaled(plane, -(-target.width // shared), -(-target.height // shared))
                for plane, shared in zip(planes, share, strict=True)
            ]
        planes = _translated(planes, between, wanted, target.width, target.height)
        return _packed(planes, target)

    def _scaled(self, plane: acap.Array, width: int, height: int) -> acap.Array:
        return self._resampled(self._resampled(plane, height).T, width).T

    def _resampled(self, rows: acap.Array, wanted: int) -> acap.Array:
        count = len(rows)
        if self.enlarging == "corners" and wanted > count:
            places = np.linspace(0, count - 1, wanted)
        else:
            places = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
        before = np.floor(places).astype(int)
        share = (places - before)[:, None]
        result: acap.Array = rows[before] * (1 - share) + rows[np.minimum(before + 1, count - 1)] * share
        return result


def _space(image: acap.Image) -> _Space:
    return "yuv" if image.format == "nv12" else "rgb"


def _shares(space: _Space) -> tuple[int, int, int]:
    return (1, 2, 2) if space == "yuv" else (1, 1, 1)


def _unpacked(picture: acap.Array, image: acap.Image) -> _Planes:
    pixels = picture[0].astype(np.float64)
    if image.format == "rgb-planar":
        return list(pixels)
    if image.format == "rgb-interleaved":
        return list(np.moveaxis(pixels, 2, 0))
    chroma = pixels[image.height :].reshape(image.height // 2, image.width // 2, 2)
    return [pixels[: image.height], chroma[..., 0], chroma[..., 1]]


def _packed(planes: _Planes, image: acap.Image) -> acap.Array:
    if image.format == "nv12":
        chroma = np.stack(planes[1:], axis=-1).reshape(image.height // 2, image.width)
        pixels = np.concatenate([planes[0], chroma])
    else:
        pixels = np.stack(planes, axis=0 if image.format == "rgb-planar" else -1)
    result: acap.Array = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)[None]
    return result


def _cropped(planes: _Planes, region: acap.Crop, space: _Space) -> _Planes:
    return [
        plane[
            region.y // shared : (region.y + region.height) // shared,
            region.x // shared : (region.x + region.width) // shared,
        ]
        for plane, shared in zip(planes, _shares(space), strict=True)
    ]


def _translated(planes: _Planes, came: _Space, wanted: _Space, width: int, height: int) -> _Planes:
    if came == wanted:
        return planes
    if wanted == "yuv":
        y, u, v = np.moveaxis(np.stack(planes, axis=-1) @ _YUV_OF_RGB.T * _RANGE + _ZERO, -1, 0)
        return [y, _halved(u), _halved(v)]
    y, u, v = planes[0], _doubled(planes[1], width, height), _doubled(planes[2], width, height)
    pixels = (np.stack([y, u, v], axis=-1) - _ZERO) / _RANGE @ _RGB_OF_YUV.T
    return list(np.moveaxis(np.clip(pixels, 0, 255), -1, 0))


def _halved(plane: acap.Array) -> acap.Array:
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    result: acap.Array = even.reshape(len(even) // 2, 2, -1, 2).mean(axis=(1, 3))
    return result


def _doubled(plane: acap.Array, width: int, height: int) -> acap.Array:
    return plane.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
