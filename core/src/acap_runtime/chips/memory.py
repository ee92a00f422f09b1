"""The shared memory of one model's calls: segments of its own, and the rings of captures that it reads from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from acap_runtime.errors import Busy
from acap_runtime.link.ring import Ring
from acap_runtime.link.segment import Segment


@dataclass(slots=True, eq=False)
class Slot:
    """A segment and its number; `known` is True once the worker has mapped it."""

    number: int
    segment: Segment
    known: bool = False

    def sent(self) -> None:
        """Note that the worker has the segment. It needs no descriptor any more."""
        if not self.known:
            self.segment.close_descriptor()
            self.known = True


@dataclass(slots=True)
class _MappedRing:
    number: int
    calls: int = 0


class CallMemory:
    """The memory that the worker has mapped for a model, by number.

    `when_forgettable` is called when `forget` grows although no call is about to tell the worker.
    """

    def __init__(self, when_forgettable: Callable[[], None]) -> None:
        self.forget: list[int] = []
        """The numbers of memory that the worker may unmap, to be sent with the next message."""
        self._when_forgettable = when_forgettable
        self._free: list[Slot] = []
        self._rings: dict[Ring, _MappedRing] = {}
        self._last = 0

    def take(self, size: int) -> Slot:
        """Take the smallest free slot that has `size` bytes, or make one that replaces the largest.

        Raises `Busy` if memory is short.
        """
        self._free.sort(key=lambda slot: slot.segment.size)
        for index, slot in enumerate(self._free):
            if slot.segment.size >= size:
                return self._free.pop(index)
        if self._free:
            self._drop(self._free.pop())
        try:
            segment = Segment.create(size)
        except OSError as error:
            raise Busy(f"no shared memory for {size} bytes: {error.strerror}") from None
        self._last += 1
        return Slot(self._last, segment)

    def give_back(self, slot: Slot) -> None:
        """Free a slot that was taken."""
        self._free.append(slot)

    def descriptors(self, slot: Slot, rings: Iterable[Ring]) -> dict[int, int]:
        """Return the descriptors to send with a call, by the numbers of the memory.

        A ring's descriptor goes with every call: another instance may take the call before the one that was told to
        map it.
        """
        found = {} if slot.known else {slot.number: slot.segment.descriptor}
        for ring in rings:
            found[self._rings[ring].number] = ring.segment.descriptor
        return found

    def enter_ring(self, ring: Ring) -> int:
        """Return the number of a ring, which a call reads from until `leave_ring`."""
        if ring not in self._rings:
            self._last += 1
            self._rings[ring] = _MappedRing(self._last)
            ring.when_retired(self, partial(self._forget_ring, ring))
        mapped = self._rings[ring]
        mapped.calls += 1
        return mapped.number

    def leave_ring(self, ring: Ring) -> None:
        """Note that a call that entered the ring has ended."""
        if ring in self._rings:
            self._rings[ring].calls -= 1
            if ring.retired:
                self._forget_ring(ring)

    def clear(self) -> None:
        """Free everything, as the worker is gone."""
        for slot in self._free:
            self._drop(slot)
        for ring in self._rings:
            ring.leave(self)
        self._rings.clear()
        self._free, self.forget = [], []

    def _drop(self, slot: Slot) -> None:
        if slot.known:
            self.forget.append(slot.number)
        else:
            slot.segment.close_descriptor()

    def _forget_ring(self, ring: Ring) -> None:
        # Not while a call reads from it: another instance could hear of this before that one begins.
        if not self._rings[ring].calls:
            self.forget.append(self._rings.pop(ring).number)
            self._when_forgettable()
