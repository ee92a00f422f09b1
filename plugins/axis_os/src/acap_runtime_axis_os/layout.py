"""The layout of a raw picture in VDO's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import acap_runtime as acap
import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a tight picture, and the byte distance of neighbours in each dimension in VDO's memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, image: acap.Image, pitch: int) -> Self:
        """Make a layout whose rows, in all planes, are `pitch` bytes apart. Planes follow each other without a gap."""
        shape = image.shape[1:]
        match image.format:
            case "nv12":
                return cls(shape, (pitch, 1))
            case "rgb-interleaved":
                return cls(shape, (pitch, 3, 1))
            case "rgb-planar":
                return cls(shape, (pitch * image.height, pitch, 1))

    @property
    def nbytes(self) -> int:
        """Bytes from the first to the last, without the padding of the last row."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def copy(self, memory: memoryview, picture: acap.Array) -> None:
        """Copy a picture, without the padding, out of at least `nbytes` of memory."""
        flat = np.frombuffer(memory, np.uint8)
        np.copyto(picture, np.lib.stride_tricks.as_strided(flat, self.shape, self.strides, writeable=False))


def tight_pitch(image: acap.Image) -> int:
    """Bytes of a row without padding."""
    return image.width * (3 if image.format == "rgb-interleaved" else 1)
