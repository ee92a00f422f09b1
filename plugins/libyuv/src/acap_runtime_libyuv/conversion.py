"""A conversion as a chain of libyuv calls, planned once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import acap_runtime as acap
import numpy as np

from acap_runtime_libyuv.backend import Chroma
from acap_runtime_libyuv.declarations import BILINEAR
from acap_runtime_libyuv.library import check, ffi, open_library
from acap_runtime_libyuv.picture import LAYOUTS, PLANES, Layout, Picture, nbytes, picture_in

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


def route(source: Layout, target: Layout) -> list[Layout]:
    """Name the layouts to pass through after `source`, up to `target`."""
    if source == target:
        return []
    if (source, target) in FUNCTIONS:
        return [target]
    via: Layout = "i420" if (source, target) == ("raw", "nv12") else "raw"
    return [*route(source, via), *route(via, target)]


def chain(conversion: acap.Conversion, chroma: Chroma) -> Iterator[tuple[Layout, int, int]]:
    """Each picture on the way from the input to the output: layout, width and height."""
    region, output = conversion.region, conversion.output
    source, target = LAYOUTS[conversion.input.format], LAYOUTS[output.format]
    if (region.width, region.height) == (output.width, output.height):
        for layout in route(source, target) or [target]:
            yield layout, output.width, output.height
        return
    # A colour for every pixel gains nothing where 4:2:0 comes in and goes out.
    middle: Layout = "argb" if chroma == "full" and not source == target == "nv12" else "i420"
    for layout in route(source, middle):
        yield layout, region.width, region.height
    for layout in [middle, *route(middle, target)]:
        yield layout, output.width, output.height


class LibyuvModel(acap.Model):
    """One conversion with its buffers."""

    def __init__(self, conversion: acap.Conversion, chroma: Chroma) -> None:
        self.inputs, self.outputs = conversion.inputs, conversion.outputs
        self._library = open_library()
        self._conversion = conversion
        self._output = np.empty(conversion.output.shape, np.uint8)
        *between, _ = chain(conversion, chroma)
        self._targets = [picture_in(ffi.new("uint8_t[]", nbytes(*form)), *form) for form in between]
        self._targets.append(self._over(self._output, conversion.output))

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        source = self._over(inputs["input"], self._conversion.input, self._conversion.region)
        for target in self._targets:
            self._step(source, target)
            source = target
        return {"output": self._output}

    def close(self) -> None:
        del self._targets, self._output

    @staticmethod
    def _over(array: acap.Array, image: acap.Image, region: acap.Crop | None = None) -> Picture:
        memory = ffi.from_buffer("uint8_t[]", array.data)
        return picture_in(memory, LAYOUTS[image.format], image.width, image.height, region)

    def _step(self, source: Picture, target: Picture) -> None:
        size = (target.width, target.height)
        if source.layout != target.layout:
            self._call(FUNCTIONS[source.layout, target.layout], *source.planes, *target.planes, *size)
        elif (source.width, source.height) != size:
            scaler = SCALERS[target.layout]
            self._call(scaler, *source.planes, source.width, source.height, *target.planes, *size, BILINEAR)
        else:
            for index, plane in enumerate(PLANES[target.layout]):
                place = slice(2 * index, 2 * index + 2)
                extent = (plane.stride(target.width), plane.rows(target.height))
                self._call("CopyPlane", *source.planes[place], *target.planes[place], *extent)

    def _call(self, function: str, *arguments: Any) -> None:
        check(function, getattr(self._library, function)(*arguments))
