"""A conversion as a chain of steps, and the libyuv functions for the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import acap_runtime as acap

from acap_runtime_libyuv.chroma import Chroma
from acap_runtime_libyuv.declarations import BILINEAR
from acap_runtime_libyuv.picture import LAYOUTS, PLANES, Layout, Picture, is_rgb

FUNCTIONS: Final[dict[tuple[Layout, Layout], str]] = {
    ("nv12", "i420"): "NV12ToI420",
    ("nv12", "raw"): "NV12ToRAW",
    ("nv12", "argb"): "NV12ToARGB",
    ("i420", "nv12"): "I420ToNV12",
    ("i420", "raw"): "I420ToRAW",
    ("raw", "i420"): "RAWToI420",
    ("raw", "argb"): "RAWToARGB",
    ("raw", "planar"): "SplitRGBPlane",
    ("argb", "raw"): "ARGBToRAW",
    ("planar", "raw"): "MergeRGBPlane",
}
SCALERS: Final[dict[Layout, str]] = {"i420": "I420Scale", "argb": "ARGBScale"}
COPY: Final = "CopyPlane"
MOVES: Final = frozenset((COPY, *(name for pair, name in FUNCTIONS.items() if is_rgb(pair[0]) == is_rgb(pair[1]))))
"""Functions that only move bytes, and that `picture.move` can replace."""


def route(source: Layout, target: Layout) -> list[Layout]:
    """Return the layouts to pass through after `source`, up to `target`."""
    if source == target:
        return []
    if (source, target) in FUNCTIONS:
        return [target]
    via: Layout = "i420" if (source, target) == ("raw", "nv12") else "raw"
    return [*route(source, via), *route(via, target)]


def chain(conversion: acap.Conversion, chroma: Chroma) -> Iterator[tuple[Layout, int, int]]:
    """Yield each picture on the way from the input to the output: layout, width and height."""
    region, output = conversion.region, conversion.output
    source, target = LAYOUTS[conversion.input.format], LAYOUTS[output.format]
    if (region.width, region.height) == (output.width, output.height):
        for layout in route(source, target) or [target]:
            yield layout, output.width, output.height
        return
    # A colour for every pixel gains nothing if both input and output are 4:2:0.
    middle: Layout = "argb" if chroma == "full" and not source == target == "nv12" else "i420"
    for layout in route(source, middle):
        yield layout, region.width, region.height
    for layout in [middle, *route(middle, target)]:
        yield layout, output.width, output.height


def function_for(source: Picture, target: Picture) -> str:
    """Return the name of the function that converts one picture to the next."""
    if source.layout != target.layout:
        return FUNCTIONS[source.layout, target.layout]
    same = (source.width, source.height) == (target.width, target.height)
    return COPY if same else SCALERS[target.layout]


def calls(function: str, source: Picture, target: Picture) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of each call of `function` that the step needs."""
    size = (target.width, target.height)
    if function == COPY:
        for index, plane in enumerate(PLANES[target.layout]):
            place = slice(2 * index, 2 * index + 2)
            yield *source.planes[place], *target.planes[place], plane.stride(target.width), plane.rows(target.height)
    elif function in SCALERS.values():
        yield *source.planes, source.width, source.height, *target.planes, *size, BILINEAR
    else:
        yield *source.planes, *target.planes, *size
