"""The contract passes a camera only if it is right: each fault here must make one of its checks fail."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.camera import CameraContract

H264_SETS = b"\0\0\0\1\x67\x42\x80\0\0\0\1\x68\xce"
H264_KEY, H264_OTHER = H264_SETS + b"\0\0\0\1\x65\x88\x80", b"\0\0\0\1\x41\x9a\x02"
H265_SETS = b"\0\0\0\1\x40\1\x0c\0\0\0\1\x42\1\1\0\0\0\1\x44\1\xc1"
H265_KEY, H265_OTHER = H265_SETS + b"\0\0\0\1\x26\1\xaf", b"\0\0\0\1\2\1\xd0"


def jpeg(width: int, height: int) -> bytes:
    size = height.to_bytes(2) + width.to_bytes(2)
    return b"\xff\xd8\xff\xe0\0\4ab\xff\xc0\0\x0b\x08" + size + b"\1\1\x11\0\xff\xda\0\2abc\xff\xd9"


class RightStream(acap.Stream):
    """Frames as they should be, and what goes wrong after that."""

    def __init__(self, settings: acap.StreamSettings, fault: Fault) -> None:
        self.settings = settings
        self.fault = fault
        self.number = 0
        self.kept: list[Any] = []
        self.start = time.monotonic_ns()

    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        due = self.start + self.number * 1_000_000_000 // self.settings.framerate
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        picture[...] = np.random.default_rng().integers(0, 256, picture.shape, np.uint8)
        frame = self.fault(self, picture, self.encode(due, keyframe or self.number % 4 == 0))
        self.number += 1
        return frame

    def encode(self, due: int, keyframe: bool) -> acap.Frame:
        match self.settings.format:
            case "h264":
                return acap.Frame(due, H264_KEY if keyframe else H264_OTHER, keyframe)
            case "h265":
                return acap.Frame(due, H265_KEY if keyframe else H265_OTHER, keyframe)
            case "jpeg":
                return acap.Frame(due, jpeg(self.settings.width, self.settings.height))
        return acap.Frame(due)


Fault: TypeAlias = Callable[[RightStream, acap.Array, acap.Frame], acap.Frame]


def no_fault(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    return frame


class RightCamera(acap.Camera):
    name = "right"
    sources = "right[:THING]"
    own_source = "right:own"

    def __init__(self, fault: Fault = no_fault) -> None:
        self.fault = fault

    def probe(self, source: str) -> None:
        if not source.endswith((":thing", ":own")):
            raise acap.NotReady(f"{source}: expected thing or own")

    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        return RightStream(settings, self.fault)


class Contract(CameraContract):
    sizes = ((64, 48), (31, 23))
    framerate = 50


SOURCE = "right:thing"
NV12 = acap.StreamSettings("nv12", 64, 48, 50)
PLANAR = acap.StreamSettings("rgb-planar", 31, 23, 50)
H264 = acap.StreamSettings("h264", 64, 48, 50)
H265 = acap.StreamSettings("h265", 64, 48, 50)
JPEG = acap.StreamSettings("jpeg", 64, 48, 50)

STREAM_CHECKS: tuple[Callable[..., None], ...] = (
    Contract.test_a_frame_fills_its_picture_and_nothing_else,
    Contract.test_frames_are_what_they_say,
    Contract.test_frames_come_with_the_time_they_were_taken,
    Contract.test_a_keyframe_comes_when_it_is_asked_for,
    Contract.test_frames_come_at_the_frame_rate,
    Contract.test_close_gives_everything_back,
)


@pytest.mark.parametrize("settings", Contract().one_of_each_format(), ids=str)
@pytest.mark.parametrize("check", STREAM_CHECKS, ids=lambda check: check.__name__)
def test_a_right_camera_passes(check: Callable[..., None], settings: acap.StreamSettings) -> None:
    check(Contract(), RightCamera(), SOURCE, settings)


def test_a_right_camera_passes_what_asks_for_no_format() -> None:
    contract, camera = Contract(), RightCamera()
    contract.test_it_tells_who_it_is(camera)
    contract.test_it_claims_its_own_sources(camera, SOURCE)
    contract.test_it_claims_no_others(camera)
    contract.test_a_source_that_does_not_exist_is_not_ready(camera, "right:nothing")
    contract.test_a_malformed_source_is_refused(camera, "right:\0")
    contract.test_formats_that_it_does_not_give_are_refused(camera, SOURCE)
    contract.test_streams_run_side_by_side(camera, SOURCE)


def test_odd_sizes_are_tried_where_a_format_has_them() -> None:
    odd = {each.format for each in Contract().supported() if each.width == 31}
    assert odd == {"jpeg", "rgb-interleaved", "rgb-planar"}


def leaves_the_last_row(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    # As if the frame had one row less: what was there before stays.
    picture[-1] = stream.kept.pop()
    return frame


class ForgetfulStream(RightStream):
    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        self.kept.append(picture[-1].copy())
        return super().read(picture, keyframe=keyframe)


class ForgetfulCamera(RightCamera):
    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        return ForgetfulStream(settings, self.fault)


@pytest.mark.parametrize("settings", [NV12, PLANAR, H264], ids=str)
def test_a_row_that_is_never_written(settings: acap.StreamSettings) -> None:
    camera = ForgetfulCamera(leaves_the_last_row)
    with pytest.raises(AssertionError, match="bytes are never written"):
        Contract().test_a_frame_fills_its_picture_and_nothing_else(camera, SOURCE, settings)


def writes_too_far(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    memory = picture.base
    memory[len(memory) // 2 + picture.size // 2] ^= 1
    return frame


def writes_into_the_last(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    stream.kept.append(picture)
    stream.kept[max(0, stream.number - 1)][0, 0] = stream.number
    return frame


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (writes_too_far, "bytes after the picture are written"),
        (writes_into_the_last, "changed while the next was read"),
    ],
)
def test_a_picture_that_is_written_elsewhere(fault: Fault, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_a_frame_fills_its_picture_and_nothing_else(RightCamera(fault), SOURCE, NV12)


def encoded(change: Callable[[bytes], bytes]) -> Fault:
    return lambda stream, picture, frame: replace(frame, encoded=change(frame.encoded))


@pytest.mark.parametrize(
    ("settings", "fault", "message"),
    [
        (NV12, lambda *_: None, "expected a Frame"),
        (NV12, lambda _, __, frame: replace(frame, captured_ns=1.5), r"captured_ns 1.5: expected an int"),
        (NV12, encoded(lambda _: b"x"), "1 bytes in encoded"),
        (NV12, lambda _, __, frame: replace(frame, keyframe=False), "every raw frame is one"),
        (NV12, lambda _, __, frame: replace(frame, has_picture=False), "the raw picture is the frame itself"),
        (H264, encoded(lambda _: b""), "got nothing"),
        (H264, encoded(bytearray), "expected bytes"),
        (H264, encoded(lambda data: data[1:]), "expected a start code"),
        (H264, encoded(lambda data: data.replace(b"\0\0\0\1\x68", b"\0\0\1\x68")), "a start code of 3 bytes at byte 7"),
        (H264, encoded(lambda data: data.replace(H264_SETS, b"")), "expected the parameter sets"),
        (H264, encoded(lambda data: data + H264_OTHER), "2 pictures .* expected one access unit"),
        (H264, encoded(lambda _: H264_SETS), "0 pictures .* expected one access unit"),
        (H264, encoded(lambda _: H264_OTHER), "a keyframe of NAL units of types"),
        (H264, encoded(lambda _: H264_KEY), "keyframe False, but"),
        (
            H264,
            lambda _, __, frame: replace(frame, encoded=H264_OTHER, keyframe=False),
            "the first frame is no keyframe",
        ),
        (H265, encoded(lambda data: data[1:]), "expected a start code"),
        (H265, encoded(lambda data: data.replace(H265_SETS, H265_SETS[7:])), "expected the parameter sets"),
        (H265, encoded(lambda data: data + H265_OTHER), "expected one access unit"),
        (H265, encoded(lambda _: H264_KEY), "expected one access unit"),
        (H265, encoded(lambda _: H265_KEY), "keyframe False, but"),
        (JPEG, encoded(lambda data: data[2:]), "expected ff d8"),
        (JPEG, encoded(lambda data: data[:-2]), "expected ff d9"),
        (JPEG, encoded(lambda _: jpeg(48, 64)), "expected 64x48"),
        (JPEG, lambda _, __, frame: replace(frame, keyframe=False), "every JPEG decodes by itself"),
    ],
)
def test_a_wrong_frame(settings: acap.StreamSettings, fault: Fault, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_frames_are_what_they_say(RightCamera(fault), SOURCE, settings)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda _, __, frame: replace(frame, captured_ns=time.time_ns()), "expected time.monotonic_ns"),
        (lambda _, __, frame: replace(frame, captured_ns=time.monotonic_ns() // 1000), "expected time.monotonic_ns"),
        (lambda stream, __, frame: replace(frame, captured_ns=stream.start), "expected growing numbers"),
    ],
)
def test_a_wrong_time(fault: Fault, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_frames_come_with_the_time_they_were_taken(RightCamera(fault), SOURCE, NV12)


def never_again(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    return frame if stream.number == 0 else replace(frame, encoded=H264_OTHER, keyframe=False)


def test_a_keyframe_that_does_not_come() -> None:
    with pytest.raises(AssertionError, match="is no keyframe"):
        Contract().test_a_keyframe_comes_when_it_is_asked_for(RightCamera(never_again), SOURCE, H264)


def hurries(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    stream.start -= 5_000_000
    return frame


def dawdles(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
    stream.start += 5_000_000
    return frame


@pytest.mark.parametrize("fault", [hurries, dawdles])
def test_a_wrong_pace(fault: Fault) -> None:
    with pytest.raises(AssertionError, match="expected 50, within 10 %"):
        Contract().test_frames_come_at_the_frame_rate(RightCamera(fault), SOURCE, NV12)


def test_a_format_that_is_given_and_not_named() -> None:
    class Modest(Contract):
        formats = ("nv12",)

    with pytest.raises(pytest.fail.Exception, match="expected InvalidRequest, or"):
        Modest().test_formats_that_it_does_not_give_are_refused(RightCamera(), SOURCE)


def test_streams_that_disturb_each_other() -> None:
    running: list[int] = []

    def fault(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
        running.append(stream.number)
        time.sleep(0.005)
        disturbed = len(running) > 1
        running.pop()
        return replace(frame, encoded=b"x") if disturbed else frame

    with pytest.raises(AssertionError):
        Contract().test_streams_run_side_by_side(RightCamera(fault), SOURCE)


def test_a_source_that_opens_only_once() -> None:
    class Jealous(RightCamera):
        opened = 0

        def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
            self.opened += 1
            if self.opened > 1:
                raise acap.Unavailable(f"{source} is in use")
            return super().open(source, settings)

    with pytest.raises(acap.Unavailable, match="in use"):
        Contract().test_streams_run_side_by_side(Jealous(), SOURCE)


@pytest.mark.usefixtures("impatient")
def test_a_file_that_stays_open() -> None:
    kept: list[int] = []

    def fault(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
        kept.append(os.open(os.devnull, os.O_RDONLY))
        return frame

    with pytest.raises(AssertionError, match="leave 5 files open"):
        Contract().test_close_gives_everything_back(RightCamera(fault), SOURCE, NV12)
    for file in kept:
        os.close(file)


@pytest.mark.usefixtures("impatient")
def test_a_thread_that_runs_on() -> None:
    end = threading.Event()

    def fault(stream: RightStream, picture: acap.Array, frame: acap.Frame) -> acap.Frame:
        threading.Thread(target=end.wait).start()
        return frame

    try:
        with pytest.raises(AssertionError, match="leave 5 threads running"):
            Contract().test_close_gives_everything_back(RightCamera(fault), SOURCE, NV12)
    finally:
        end.set()


class Greedy(RightCamera):
    def claims(self, source: str) -> bool:
        return True


class Shy(RightCamera):
    own_source = "other"


class Unnamed(RightCamera):
    name = "two words"


class Trusting(RightCamera):
    def probe(self, source: str) -> None:
        pass


class Uninstalled(RightCamera):
    __module__ = "numpy"


def test_a_wrong_identity() -> None:
    with pytest.raises(AssertionError, match="source '': expected False"):
        Contract().test_it_claims_no_others(Greedy())
    with pytest.raises(AssertionError, match="source 'other': expected True"):
        Contract().test_it_claims_its_own_sources(Shy(), SOURCE)
    with pytest.raises(AssertionError, match="expected no white space"):
        Contract().test_it_tells_who_it_is(Unnamed())
    with pytest.raises(AssertionError, match="Is the plugin installed"):
        Contract().test_its_plugin_is_found_by_an_entry_point(Uninstalled())


def test_a_probe_that_passes_everything() -> None:
    with pytest.raises(pytest.fail.Exception, match="expected NotReady"):
        Contract().test_a_source_that_does_not_exist_is_not_ready(Trusting(), "right:nothing")
    with pytest.raises(pytest.fail.Exception, match="expected InvalidRequest or NotReady"):
        Contract().test_a_malformed_source_is_refused(Trusting(), "right:\0")
