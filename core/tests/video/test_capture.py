"""The front's end of a capture: frames, who holds their slots, and what becomes of them when the camera is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from acap_runtime import DeviceError, Unavailable
from acap_runtime.chips.memory import CallMemory
from acap_runtime.contract.camera import StreamSettings
from acap_runtime.link.messages import Channel, pack_error
from acap_runtime.link.ring import Ring, RingLayout
from acap_runtime.link.segment import ALIGNMENT, Segment
from acap_runtime.video.capture import CapturedFrame, RemoteCapture
from acap_runtime.video.streams import NewestPicture

GREY = StreamSettings("rgb-interleaved", 4, 2, 10)
H264 = StreamSettings("h264", 64, 64, 10)
KEPT = 3


class FakeCamera:
    """The other end of a capture's channel: a camera's process without the process."""

    def __init__(self, capture: RemoteCapture) -> None:
        self.capture = capture
        self.layout = RingLayout(capture.settings, capture.slots)
        self._number = 0
        self.connect()

    def connect(self) -> None:
        ours, self.channel = Channel.pair()
        self.free = set(range(self.layout.slots))
        self._number = 0
        self.keyframes_wanted = 0
        self.capture.attach(ours)

    async def open(self, layout: RingLayout | None = None) -> None:
        self.segment = Segment.create((layout or self.layout).nbytes)
        self.channel.send({"opened": True}, self.segment.descriptor)
        self.segment.close_descriptor()
        await settle()

    async def frame(self, fill: int = 0, *, keyframe: bool = True, encoded: bytes = b"") -> CapturedFrame:
        self.hear()
        slot = min(self.free)
        self.free.discard(slot)
        self._number += 1
        start = self.layout.picture_offset(slot)
        self.segment.view[start : start + self.layout.picture_nbytes] = bytes([fill]) * self.layout.picture_nbytes
        start = self.layout.encoded_offset(slot)
        self.segment.view[start : start + len(encoded)] = encoded
        now = time.monotonic_ns()
        message = {"frame": [self._number, slot, len(encoded), keyframe, True], "times": [now, now]}
        self.channel.send(message)
        await settle()
        assert self.capture.latest is not None
        return self.capture.latest

    def hear(self) -> None:
        self.channel.set_nonblocking()
        while True:
            try:
                received = self.channel.receive()
            except BlockingIOError:
                return
            assert received is not None
            self.free.update(received[0].get("free", ()))
            self.keyframes_wanted += received[0].get("keyframe", False)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.001)


def run(test: Callable[[FakeCamera], Awaitable[None]], settings: StreamSettings = GREY) -> None:
    async def main() -> None:
        capture = RemoteCapture(settings, KEPT)
        camera = FakeCamera(capture)
        try:
            await test(camera)
        finally:
            capture.detach(Unavailable("the test ends"))
            camera.channel.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [
        StreamSettings("nv12", 300, 300, 10),
        StreamSettings("rgb-interleaved", 301, 201, 10),
        StreamSettings("rgb-planar", 1, 1, 10),
        StreamSettings("h264", 66, 34, 10),
        StreamSettings("jpeg", 301, 201, 10),
    ],
    ids=str,
)
def test_slots_are_aligned_and_do_not_overlap(settings: StreamSettings) -> None:
    layout = RingLayout(settings, 5)
    ends = [0]
    for slot in range(5):
        assert layout.picture_offset(slot) % ALIGNMENT == 0
        assert layout.picture_offset(slot) >= ends[-1]
        assert layout.encoded_offset(slot) % ALIGNMENT == 0
        assert layout.encoded_offset(slot) >= layout.picture_offset(slot) + layout.picture_nbytes
        ends.append(layout.encoded_offset(slot) + layout.encoded_nbytes)
    assert ends[-1] <= layout.nbytes
    shape = settings.picture.shape
    count = 1
    for size in shape:
        count *= size
    assert layout.picture_nbytes == count


def test_an_opened_capture_gives_the_newest_frame_and_frees_the_others() -> None:
    async def test(camera: FakeCamera) -> None:
        capture = camera.capture
        assert not capture.settled.is_set()
        await camera.open()
        assert capture.settled.is_set()
        assert capture.after(0, decodable=False) is None
        for number in range(1, 30):
            frame = await camera.frame(number)
            assert frame.number == number
            assert frame.content == bytes([number]) * camera.layout.picture_nbytes
            assert capture.after(number - 1, decodable=True) is frame
            assert capture.after(number, decodable=True) is None
        camera.hear()
        assert len(camera.free) == camera.layout.slots - 1

    run(test)


def test_a_frame_that_is_held_stays_and_a_frame_that_is_kept_stays_a_copy() -> None:
    async def test(camera: FakeCamera) -> None:
        await camera.open()
        held = (await camera.frame(1)).hold()
        kept = await camera.frame(2)
        kept.keep_count += 1
        camera.capture.keep(kept)
        for number in range(3, 3 + 2 * KEPT):
            camera.capture.keep(await camera.frame(number))
        for number in range(20):
            await camera.frame(100 + number)
        assert set(held.content) == {1}
        assert set(kept.content) == {2}
        camera.hear()
        # The newest, those that are kept, and the one that is held.
        assert len(camera.free) == camera.layout.slots - 1 - KEPT - 1
        held.release()
        camera.hear()
        assert len(camera.free) == camera.layout.slots - 1 - KEPT

    run(test)


def test_a_frame_whose_slot_was_freed_is_kept_as_a_copy_and_its_slot_is_freed_once() -> None:
    async def test(camera: FakeCamera) -> None:
        await camera.open()
        capture = camera.capture
        lent = [await camera.frame(fill) for fill in range(1, 6)]
        assert all(capture.lend(frame) for frame in lent)
        copied = await camera.frame(6)
        assert not capture.lend(copied)
        pixels = bytearray(copied.picture_nbytes)
        copied.copy_picture(memoryview(pixels))
        await camera.frame(7)  # the slot of the copied one is free now
        copied.keep_count += 1
        capture.keep(copied)
        for frame in lent:
            capture.give_back(frame)
        for fill in range(8, 40):
            frame = await camera.frame(fill)
            assert frame.content == bytes([fill]) * len(pixels)
            frame.keep_count += 1
            capture.keep(frame)
            frame.keep_count -= 1
        camera.hear()
        assert len(camera.free) == camera.layout.slots - KEPT
        assert copied.content == bytes(pixels) == b"\6" * len(pixels)

    run(test)


def test_waiters_wake_with_the_next_frame_and_with_the_end() -> None:
    async def test(camera: FakeCamera) -> None:
        await camera.open()
        waiters = [camera.capture.waiter() for _ in range(3)]
        waiters[0].cancel()
        await camera.frame()
        assert waiters[0].cancelled()
        assert waiters[1].result() is None
        waiter = camera.capture.waiter()
        camera.capture.detach(Unavailable("the cable is out"))
        with pytest.raises(Unavailable, match="the cable is out"):
            await waiter
        with pytest.raises(Unavailable, match="the cable is out"):
            camera.capture.check()

    run(test)


def test_numbers_go_on_in_the_next_ring_and_old_frames_can_be_read_on() -> None:
    async def test(camera: FakeCamera) -> None:
        capture = camera.capture
        await camera.open()
        old = await camera.frame(1)
        old.keep_count += 1
        capture.keep(old)
        await camera.frame(2)
        ring, _ = old.picture
        capture.detach(Unavailable("gone"))
        assert ring.retired
        assert capture.latest is None
        assert set(old.content) == {1}
        camera.channel.close()
        camera.connect()
        await camera.open()
        capture.check()
        assert (await camera.frame(3)).number == 3
        capture.keep(old)  # by a model that ran on it meanwhile
        for number in range(2 * KEPT):
            capture.keep(await camera.frame(number))
        assert set(old.content) == {1}

    run(test)


def test_a_picture_between_two_lives_of_a_camera_is_unavailable() -> None:
    """A call that waited for the chip finds the capture open again, and no frame there yet."""

    async def test(camera: FakeCamera) -> None:
        await camera.open()
        await camera.frame()
        picture = NewestPicture(SimpleNamespace(capture=camera.capture, check=camera.capture.check))
        camera.capture.detach(Unavailable("gone"))
        with pytest.raises(Unavailable):
            picture.locate()
        camera.channel.close()
        camera.connect()
        await camera.open()
        with pytest.raises(Unavailable):
            picture.locate()
        await camera.frame(9)
        ring, offset = picture.locate()
        assert ring.segment.view[offset] == 9
        picture.close()

    run(test)


def test_the_reason_of_the_camera_is_heard_even_where_it_left_something_unread() -> None:
    async def test(camera: FakeCamera) -> None:
        await camera.open()
        for number in range(3):
            await camera.frame(number)  # slots are freed meanwhile, which nobody reads any more
        camera.capture.want_keyframe()
        held = camera.capture.latest.hold()
        await camera.frame()
        held.release()
        camera.channel.send({"error": pack_error(Unavailable("the file ended"))})
        camera.channel.hang_up()
        camera.channel.close()
        error = await asyncio.wait_for(camera.capture.lost, 2)
        assert isinstance(error, Unavailable)
        assert str(error) == "the file ended"

    run(test)


def test_a_channel_that_closes_without_a_word_ends_the_capture() -> None:
    async def test(camera: FakeCamera) -> None:
        await camera.open()
        camera.channel.close()
        assert await asyncio.wait_for(camera.capture.lost, 2) is None

    run(test)


def test_a_ring_that_is_too_small_is_refused() -> None:
    async def test(camera: FakeCamera) -> None:
        small = SimpleNamespace(nbytes=1)
        big = RemoteCapture(StreamSettings("rgb-interleaved", 640, 480, 10), KEPT)
        other = FakeCamera(big)
        await other.open(small)  # type: ignore[arg-type]
        assert isinstance(await asyncio.wait_for(big.lost, 2), DeviceError)
        big.detach(Unavailable("the test ends"))
        other.channel.close()

    run(test)


def test_clients_of_h264_get_each_frame_in_turn_from_a_keyframe_on() -> None:
    async def test(camera: FakeCamera) -> None:
        capture = camera.capture
        await camera.open()
        for number in range(1, 7):
            await camera.frame(keyframe=number in {1, 4}, encoded=bytes([number]))

        def after(number: int, *, decodable: bool = True) -> Any:
            frame = capture.after(number, decodable=decodable)
            return frame and (frame.number, frame.content)

        assert after(0) == (1, b"\x01")
        assert after(1) == (2, b"\x02")
        assert after(1, decodable=False) == (4, b"\x04")
        assert after(4, decodable=False) is None
        assert after(6) is None
        for number in range(200):
            await camera.frame(keyframe=number == 150, encoded=b"x")
        # Who is late by more than is remembered goes on at a keyframe.
        assert after(6)[0] == 6 + 151
        capture.want_keyframe()
        camera.hear()
        assert camera.keyframes_wanted == 1

    run(test, H264)


def make_ring() -> Ring:
    layout = RingLayout(GREY, 2)
    return Ring(layout, Segment.create(layout.nbytes))


def test_a_ring_is_forgotten_once_it_is_retired_and_no_call_reads_from_it() -> None:
    told: list[list[int]] = []
    memory = CallMemory(lambda: told.append(list(memory.forget)))
    idle, busy = make_ring(), make_ring()
    number = memory.enter_ring(idle)
    assert memory.enter_ring(idle) == number
    memory.leave_ring(idle)
    memory.leave_ring(idle)
    other = memory.enter_ring(busy)
    assert other != number
    idle.retire()
    assert told == [[number]]
    busy.retire()
    assert told == [[number]]
    memory.leave_ring(busy)
    assert told == [[number], [number, other]]


def test_memory_of_a_worker_that_is_gone_hears_of_no_ring_any_more() -> None:
    told: list[int] = []
    memory = CallMemory(lambda: told.append(1))
    ring = make_ring()
    first = memory.enter_ring(ring)
    memory.clear()
    assert memory.forget == []
    memory.leave_ring(ring)
    second = memory.enter_ring(ring)
    assert second != first
    memory.leave_ring(ring)
    ring.retire()
    assert (told, memory.forget) == ([1], [second])


def test_numbers_of_segments_and_rings_are_never_used_twice() -> None:
    memory = CallMemory(lambda: None)
    slot, ring = memory.take(100), make_ring()
    numbers = {slot.number, memory.enter_ring(ring), memory.take(100).number}
    assert len(numbers) == 3
    slot.sent()
    memory.give_back(slot)
    assert memory.take(50) is slot
    memory.give_back(slot)
    assert memory.take(1_000_000).number not in numbers
    assert memory.forget == [slot.number]
    ring.retire()
