"""A conversion that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping

import acap_runtime as acap
import numpy as np

from acap_runtime_libyuv.chroma import Chroma
from acap_runtime_libyuv.conversion import calls, chain, function_for
from acap_runtime_libyuv.faults import functions_to_avoid
from acap_runtime_libyuv.library import check, ffi, open_library
from acap_runtime_libyuv.picture import LAYOUTS, Picture, move, nbytes, picture_in


class LibyuvModel(acap.Model):
    """One conversion with its buffers."""

    def __init__(self, conversion: acap.Conversion, chroma: Chroma) -> None:
        self.inputs, self.outputs = conversion.inputs, conversion.outputs
        self._avoided = functions_to_avoid()
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
        function = function_for(source, target)
        if function in self._avoided:
            move(source, target)
            return
        for arguments in calls(function, source, target):
            check(function, getattr(self._library, function)(*arguments))
