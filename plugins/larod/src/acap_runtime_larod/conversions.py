"""The conversions of each larod device, and the parameters that request them.

The limits come from larod's page on preprocessing (liblarod 3.2.254): "supported operations", "supported formats" and
the constraints of each backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

import acap_runtime as acap

Parameter: TypeAlias = str | int | tuple[int, int] | tuple[int, int, int, int]
"""A value of larod's parameter maps."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a device. `does` describes them in the error for a conversion outside them."""

    does: str
    pairs: frozenset[tuple[str, str]]
    """Formats, input and output."""
    scales: bool = True
    crops: bool = True
    moves_whole: frozenset[tuple[str, str]] = frozenset()
    """Pairs that it neither crops nor scales, although it crops and scales others."""
    even: bool = False
    """True if all widths and heights must be even."""
    width_multiple: int = 1
    lowest_height: int = 1
    pixels_below: int | None = None
    """The input's width times height must be less than this."""
    row_multiple: int | None = None
    """Rows in memory are padded to a multiple of so many bytes; None for rows without padding."""
    largest_scale: int | None = None
    """The largest factor in each direction, up or down."""


_ACE: Final = Limits(
    "converts nv12 to rgb-interleaved of the same size, without crop, where the width is a multiple of 8, the height "
    "at least 4, and width * height less than 4194304",
    frozenset({("nv12", "rgb-interleaved")}),
    scales=False,
    crops=False,
    width_multiple=8,
    lowest_height=4,
    pixels_below=4_194_304,
)
_VPROC: Final = Limits(
    "converts nv12 to rgb-planar, nv12 to nv12 and rgb-planar to rgb-planar, with crop, and scales each side by at "
    "most 256",
    frozenset({("nv12", "rgb-planar"), ("nv12", "nv12"), ("rgb-planar", "rgb-planar")}),
    row_multiple=32,
    largest_scale=256,
)
_OPENCL: Final = Limits(
    "converts nv12 to rgb-interleaved, nv12 to nv12 and rgb-planar to rgb-planar, with crop and scale",
    frozenset({("nv12", "rgb-interleaved"), ("nv12", "nv12"), ("rgb-planar", "rgb-planar")}),
)
_LIBYUV: Final = Limits(
    "converts all formats, with even widths and heights; rgb-planar to rgb-interleaved without crop and scale",
    frozenset(product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS)),
    moves_whole=frozenset({("rgb-planar", "rgb-interleaved")}),
    even=True,
)

LIMITS: Final[Mapping[str, Limits]] = {
    "axis-a8-ace-proc": _ACE,
    "axis-ace-proc": _ACE,
    "ambarella-cvflow-proc": _VPROC,
    "axis-a8-gpu-proc": _OPENCL,
    "axis-a8-dlpu-proc": _OPENCL,
    "a9-gpu-proc": _OPENCL,
    "axis-a7-gpu-proc": _OPENCL,
    "cpu-proc": _LIBYUV,
}
"""Limits by device name. For a device that is not here, larod alone reports what it cannot do."""

_CHANNELS: Final = 3


def does(device: str, conversion: acap.Conversion) -> bool:
    """Return True if a conversion is within a device's limits."""
    limits = LIMITS.get(device)
    return limits is None or not list(_problems(limits, conversion))


def load_parameters(device: str, conversion: acap.Conversion) -> Mapping[str, Parameter]:
    """Return the load parameters that set up `device` for a conversion.

    Raises `InvalidRequest` with the device's limits for a conversion outside them.
    """
    limits = LIMITS.get(device)
    if limits is not None and (problems := list(_problems(limits, conversion))):
        raise acap.InvalidRequest(f"{conversion}: {', '.join(problems)}; {device} {limits.does}")
    parameters: dict[str, Parameter] = {}
    for side, image in (("input", conversion.input), ("output", conversion.output)):
        parameters[f"image.{side}.format"] = image.format
        parameters[f"image.{side}.size"] = (image.width, image.height)
        if limits is not None and limits.row_multiple is not None:
            row = image.width * (_CHANNELS if image.format == "rgb-interleaved" else 1)
            parameters[f"image.{side}.row-pitch"] = -(-row // limits.row_multiple) * limits.row_multiple
    return parameters


def job_parameters(conversion: acap.Conversion) -> Mapping[str, Parameter]:
    """Return the parameters of each job. larod takes the crop with a job, not with the load."""
    if not _cropped(conversion):
        return {}
    region = conversion.region
    return {"image.input.crop": (region.x, region.y, region.width, region.height)}


def _cropped(conversion: acap.Conversion) -> bool:
    return conversion.region != acap.Crop(0, 0, conversion.input.width, conversion.input.height)


def _problems(limits: Limits, conversion: acap.Conversion) -> Iterator[str]:
    region, source, target = conversion.region, conversion.input, conversion.output
    pair = (source.format, target.format)
    if pair not in limits.pairs:
        yield "these formats cannot be converted here"
    whole = pair in limits.moves_whole
    scaled = (region.width, region.height) != (target.width, target.height)
    if scaled and (whole or not limits.scales):
        yield f"{region.width}x{region.height} cannot be scaled to {target.width}x{target.height} here"
    if _cropped(conversion) and (whole or not limits.crops):
        yield "a part of the image cannot be taken here"
    yield from _problems_of_size(limits, conversion)


def _problems_of_size(limits: Limits, conversion: acap.Conversion) -> Iterator[str]:
    region, source, target = conversion.region, conversion.input, conversion.output
    sizes = (source.width, source.height, region.width, region.height, target.width, target.height)
    if limits.even and any(size % 2 for size in sizes):
        yield "a width or height is odd"
    if source.width % limits.width_multiple:
        yield f"the width {source.width} is no multiple of {limits.width_multiple}"
    if source.height < limits.lowest_height:
        yield f"the height {source.height} is less than {limits.lowest_height}"
    if limits.pixels_below is not None and source.width * source.height >= limits.pixels_below:
        yield f"the image has {source.width * source.height} pixels"
    if limits.largest_scale is not None:
        for before, after in ((region.width, target.width), (region.height, target.height)):
            if max(before, after) > limits.largest_scale * min(before, after):
                yield f"{before} pixels cannot become {after}"
