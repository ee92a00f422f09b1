"""The ring of a capture's frames: slots of one segment, which the camera's process fills and chips' processes read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from acap_runtime.contract.backend import Array
from acap_runtime.contract.camera import StreamSettings
from acap_runtime.link.segment import ALIGNMENT, Segment

_SMALLEST_ENCODED = 64 * 1024


@dataclass(frozen=True, slots=True)
class RingLayout:
    """The offsets in a ring. A slot holds the raw picture and, behind it, the encoded frame.

    Memory that was never written costs nothing.
    """

    settings: StreamSettings
    slots: int

    @property
    def picture_nbytes(self) -> int:
        return prod(self.settings.picture.shape)

    @property
    def encoded_nbytes(self) -> int:
        """The most bytes of an encoded frame: more than any sane encoder makes of the picture."""
        return 2 * self.picture_nbytes + _SMALLEST_ENCODED if self.settings.encoded else 0

    @property
    def _encoded_start(self) -> int:
        return -(-self.picture_nbytes // ALIGNMENT) * ALIGNMENT

    @property
    def _stride(self) -> int:
        return -(-(self._encoded_start + self.encoded_nbytes) // ALIGNMENT) * ALIGNMENT

    @property
    def nbytes(self) -> int:
        return self.slots * self._stride

    def picture_offset(self, slot: int) -> int:
        return slot * self._stride

    def encoded_offset(self, slot: int) -> int:
        return slot * self._stride + self._encoded_start


class Ring:
    """The front's view of a ring. `retire` calls everyone who has it mapped in another process."""

    def __init__(self, layout: RingLayout, segment: Segment) -> None:
        self.layout = layout
        self.segment = segment
        self.retired = False
        self._when_retired: dict[object, Callable[[], None]] = {}

    def when_retired(self, who: object, call: Callable[[], None]) -> None:
        """Call `call` when the ring is retired, unless `who` leaves before."""
        self._when_retired[who] = call

    def leave(self, who: object) -> None:
        """Cancel the call that `who` asked for."""
        self._when_retired.pop(who, None)

    def retire(self) -> None:
        """Close the descriptor, as the ring is no longer written, and call those who asked for it."""
        self.retired = True
        self.segment.close_descriptor()
        for call in list(self._when_retired.values()):
            call()
        self._when_retired.clear()


def picture_array(layout: RingLayout, view: memoryview, slot: int) -> Array:
    """Return the picture of a slot, as an array for `Stream.read` to write."""
    return np.ndarray(layout.settings.picture.shape[1:], np.uint8, view, layout.picture_offset(slot))
