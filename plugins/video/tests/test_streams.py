from __future__ import annotations

import contextlib
import gc
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import acap_runtime as acap
import av
import numpy as np
import pytest
from acap_runtime.testing.lateness import Lateness
from acap_runtime_video import FileCamera, FilterCamera

BARS = "lavfi:testsrc2=size=320x240:rate=25"
DECODERS = {"h264": "h264", "h265": "hevc", "jpeg": "mjpeg"}
SIZES = [(640, 480), (480, 320), (300, 300), (224, 224), (1280, 720)]
ODD_SIZES = [(301, 201), (33, 17), (1, 1)]


@contextlib.contextmanager
def opened(camera: acap.Camera, source: object, settings: acap.StreamSettings) -> Iterator[Callable[..., acap.Frame]]:
    """A function that reads a frame of a stream; its picture is `read.picture`."""
    stream = camera.open(str(source), settings)

    def read(**options: bool) -> acap.Frame:
        return stream.read(read.picture, **options)

    read.picture = np.full(settings.picture.shape[1:], 7, np.uint8)
    try:
        yield read
    finally:
        stream.close()


def as_rgb(picture: np.ndarray, image: acap.Image) -> np.ndarray:
    """What BT.601 with limited range says about a picture, computed in floating point."""
    if image.format == "rgb-interleaved":
        return picture.astype(float)
    if image.format == "rgb-planar":
        return picture.transpose(1, 2, 0).astype(float)
    y = (picture[: image.height].astype(float) - 16) * 255 / 219
    uv = picture[image.height :].reshape(image.height // 2, image.width // 2, 2).astype(float) - 128
    u, v = (uv.repeat(2, 0).repeat(2, 1) * 255 / 224).transpose(2, 0, 1)
    return np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1).clip(0, 255)


class Decoder:
    """Decodes what a stream gives; a frame that is not one whole access unit does not come out at once."""

    def __init__(self, settings: acap.StreamSettings) -> None:
        self._context = av.CodecContext.create(DECODERS[settings.format], "r")
        self._context.thread_count = 1

    def decode(self, data: bytes) -> np.ndarray:
        (frame,) = self._context.decode(av.Packet(data))
        return frame.to_ndarray(format="rgb24").astype(float)


def units(data: bytes) -> list[bytes]:
    return re.split(rb"\x00\x00\x00\x01", data)[1:]


def kinds(data: bytes, settings: acap.StreamSettings) -> list[int]:
    return [unit[0] & 31 if settings.format == "h264" else unit[0] >> 1 & 63 for unit in units(data)]


def descriptors_of(path: Path) -> int:
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += link.readlink() == path
    return count


@pytest.mark.parametrize("size", [*SIZES, *ODD_SIZES])
@pytest.mark.parametrize("form", acap.STREAM_FORMATS)
def test_pictures_are_the_sources(ramp_clip: Path, ramp: Callable[..., np.ndarray], form: str, size: tuple) -> None:
    if size in ODD_SIZES and form in ("nv12", "h264", "h265"):
        return
    settings = acap.StreamSettings(form, *size, 100)
    with opened(FileCamera(), ramp_clip, settings) as read:
        frame = read()
        difference = abs(as_rgb(read.picture, settings.picture) - ramp(*size))
        assert difference.mean() < 3
        assert np.percentile(difference, 99) < 10
        assert frame.keyframe
        assert frame.has_picture
        assert bool(frame.encoded) == settings.encoded
        if settings.encoded:
            assert abs(Decoder(settings).decode(frame.encoded) - ramp(*size)).mean() < 5


@pytest.mark.parametrize("form", ["h264", "h265", "jpeg"])
def test_every_frame_is_one_access_unit_of_its_picture(form: str) -> None:
    settings = acap.StreamSettings(form, 320, 240, 50)
    decoder = Decoder(settings)
    with opened(FilterCamera(), BARS, settings) as read:
        for _ in range(12):
            frame = read()
            error = decoder.decode(frame.encoded) - as_rgb(read.picture, settings.picture)
            assert 10 * np.log10(255**2 / (error**2).mean()) > 25


@pytest.mark.parametrize("form", ["h264", "h265"])
def test_start_codes_have_four_bytes(form: str) -> None:
    settings = acap.StreamSettings(form, 320, 240, 50)
    with opened(FilterCamera(), BARS, settings) as read:
        for number in range(12):
            data = read(keyframe=number == 6).encoded
            assert data.startswith(b"\0\0\0\1")
            assert all(b"\0\0\1" not in unit and not unit.endswith(b"\0") for unit in units(data))


@pytest.mark.parametrize(("form", "sets", "idr"), [("h264", [7, 8], {5}), ("h265", [32, 33, 34], {19, 20})])
def test_keyframes_come_where_asked_and_every_two_seconds(form: str, sets: list[int], idr: set[int]) -> None:
    settings = acap.StreamSettings(form, 64, 64, 20)
    asked = {3, 4, 9}
    with opened(FilterCamera(), "lavfi:testsrc2=size=64x64:rate=20", settings) as read:
        for number in range(55):
            frame = read(keyframe=number in asked)
            expected = number in {0, *asked, 9 + 40}
            assert frame.keyframe == expected, number
            found = kinds(frame.encoded, settings)
            assert bool(idr & {*found}) == expected, number
            if expected:
                assert found[: len(sets)] == sets


def test_a_jpeg_is_a_jfif_file_of_full_range(make_clip: Callable[..., Path]) -> None:
    settings = acap.StreamSettings("jpeg", 64, 48, 25)
    with opened(FileCamera(), make_clip("white.mkv", [255, 255]), settings) as read:
        data = read().encoded
    assert data[:11] == b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
    assert data.endswith(b"\xff\xd9")
    assert (Decoder(settings).decode(data) > 250).all()


@pytest.mark.parametrize("form", ["nv12", "rgb-interleaved", "rgb-planar", "h264"])
def test_a_source_of_the_same_form_is_not_handed_out_itself(form: str) -> None:
    """FFmpeg then has nothing to convert; upside down, its rows also run backwards in memory."""
    for pixels in ("nv12", "rgb24", "gbrp"):
        source = f"lavfi:color=red:size=300x200:rate=25,format={pixels},vflip"
        if pixels == "nv12":
            source += ",setparams=range=limited:colorspace=smpte170m"
        with opened(FilterCamera(), source, acap.StreamSettings(form, 300, 200, 25)) as read:
            read(keyframe=True)
            image = acap.StreamSettings(form, 300, 200, 25).picture
            assert abs(as_rgb(read.picture, image) - (255, 0, 0)).max() < 6


def test_colours_of_hd_become_those_of_bt601() -> None:
    tagged = "scale=out_color_matrix=bt709:out_range=limited,format=yuv420p,setparams=colorspace=bt709:range=limited"
    for colour, rgb in (("red", (255, 0, 0)), ("blue", (0, 0, 255)), ("0x80c020", (128, 192, 32))):
        source = f"lavfi:color={colour}:size=64x48:rate=25,format=rgb24,{tagged}"
        for form in acap.IMAGE_FORMATS:
            settings = acap.StreamSettings(form, 64, 48, 25)
            with opened(FilterCamera(), source, settings) as read:
                read()
                assert abs(as_rgb(read.picture, settings.picture) - rgb).max() < 8


@pytest.mark.parametrize(
    ("source_rate", "rate", "distinct"), [(25, 25, (45, 50)), (10, 25, (19, 22)), (50, 20, (50,) * 2)]
)
def test_the_frame_rate_is_the_streams(source_rate: int, rate: int, distinct: tuple[int, int]) -> None:
    source = f"lavfi:testsrc2=size=64x48:rate={source_rate}"
    with opened(FilterCamera(), source, acap.StreamSettings("nv12", 64, 48, rate)) as read:
        read()
        with Lateness() as lateness:
            start = time.monotonic()
            times = [read().captured_ns for _ in range(50)]
            took = time.monotonic() - start
            age = (time.monotonic_ns() - times[-1]) / 1e9
    assert 50 / rate * 0.95 <= took <= 50 / rate * 1.05 + lateness.total_s
    assert all(one < other for one, other in pairwise(times))
    # A picture that is given again is a nanosecond younger. A busy machine loses pictures, or sees more of them.
    missed = lateness.total_s * source_rate
    assert distinct[0] - missed <= len({taken // 1000 for taken in times}) <= distinct[1] + missed
    assert 0 <= age < 2 / source_rate + lateness.total_s


def test_a_reader_that_was_late_gets_the_newest_frame_and_no_burst() -> None:
    with opened(FilterCamera(), BARS, acap.StreamSettings("nv12", 64, 48, 25)) as read:
        read()
        time.sleep(0.5)
        woken = time.monotonic_ns()
        assert read().captured_ns > woken - 100_000_000
        for _ in range(5):
            read()
        assert time.monotonic_ns() - woken > 140_000_000


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.avi", "clip.h264"])
def test_a_clip_is_played_over_and_over_in_real_time(make_clip: Callable[..., Path], name: str) -> None:
    greys = [40, 80, 120, 160, 200]
    path = make_clip(name, greys, codec="ffv1" if name == "clip.mkv" else "libx264")
    settings = acap.StreamSettings("rgb-interleaved", 64, 48, 50)
    seen, times = [], []
    with opened(FileCamera(), path, settings) as read:
        for _ in range(40):
            taken = read().captured_ns // 1000
            if taken not in times:
                times.append(taken)
                seen.append(min(range(5), key=lambda index: abs(greys[index] - int(read.picture.mean()))))
    assert times == sorted(times)
    assert len(seen) == pytest.approx(20, abs=3)
    follows = sum((after - before) % 5 == 1 for before, after in pairwise(seen))
    assert follows >= len(seen) - 4


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    settings = acap.StreamSettings("jpeg", 64, 48, 50)
    with opened(FilterCamera(), "lavfi:color=red:size=64x48:rate=25", settings) as read:
        path = tmp_path / "picture.jpg"
        path.write_bytes(read().encoded)
    raw = acap.StreamSettings("rgb-interleaved", 64, 48, 50)
    with opened(FileCamera(), path, raw) as read:
        for _ in range(5):
            read()
            assert abs(read.picture.astype(int) - (255, 0, 0)).max() < 8


def test_a_truncated_file_is_played_as_far_as_it_goes(make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mkv", [40, 80, 120, 160, 200, 240, 40, 80])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with opened(FileCamera(), path, acap.StreamSettings("rgb-planar", 64, 48, 25)) as read:
        assert len({read().captured_ns // 1000 for _ in range(20)}) > 10


def test_a_file_that_goes_away_ends_its_streams(make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mkv", [40, 80, 120])
    camera, settings = FileCamera(), acap.StreamSettings("nv12", 64, 48, 25)
    with opened(camera, path, settings) as read:
        path.unlink()
        with pytest.raises(acap.Unavailable, match=r"clip\.mkv: expected a file with video: No such file"):
            [read() for _ in range(50)]
    make_clip("clip.mkv", [200] * 3)
    with opened(camera, path, settings) as read:
        read()
        assert read.picture[:48].mean() > 150


def test_streams_of_a_source_share_one_decoder(ramp_clip: Path) -> None:
    camera = FileCamera()
    before = threading.active_count()
    with (
        opened(camera, ramp_clip, acap.StreamSettings("nv12", 64, 48, 25)) as first,
        opened(camera, ramp_clip, acap.StreamSettings("h264", 320, 240, 25)) as second,
    ):
        camera.probe(str(ramp_clip))
        times = [[read().captured_ns // 1000 for read in (first, second)] for _ in range(4)]
        assert len({*chain(*times)}) <= 6
        assert descriptors_of(ramp_clip) == 1
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert descriptors_of(ramp_clip) == 0


def test_a_stream_goes_on_when_another_of_its_source_is_closed(ramp_clip: Path) -> None:
    camera = FileCamera()
    settings = acap.StreamSettings("nv12", 64, 48, 50)
    with opened(camera, ramp_clip, settings) as first:
        with opened(camera, ramp_clip, settings) as second:
            second()
        assert len({first().captured_ns // 1000 for _ in range(10)}) > 3


def test_many_streams_side_by_side_each_get_their_own_pictures(
    ramp_clip: Path, ramp: Callable[..., np.ndarray]
) -> None:
    camera, failures = FileCamera(), []

    def run(form: acap.StreamFormat, size: tuple[int, int]) -> None:
        try:
            settings = acap.StreamSettings(form, *size, 25)
            with opened(camera, ramp_clip, settings) as read:
                for _ in range(15):
                    read()
                    assert abs(as_rgb(read.picture, settings.picture) - ramp(*size)).mean() < 3
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    sizes = [(64, 48), (300, 300), (640, 480)]
    threads = [threading.Thread(target=run, args=(form, size)) for form in acap.STREAM_FORMATS for size in sizes[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_opening_and_closing_leaves_nothing_behind(ramp_clip: Path) -> None:
    camera = FileCamera()

    def held() -> tuple[int, int]:
        gc.collect()
        return len([*Path("/proc/self/fd").iterdir()]), len([*Path("/proc/self/task").iterdir()])

    def cycle() -> None:
        for form in ("h264", "h265", "jpeg", "rgb-planar"):
            with opened(camera, ramp_clip, acap.StreamSettings(form, 64, 48, 100)) as read:
                read()

    cycle()
    before = held()
    for _ in range(20):
        cycle()
    assert held() == before


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mkv", [40, 80, 120, 160, 200, 240])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    for form in acap.STREAM_FORMATS:
        with opened(FileCamera(), path, acap.StreamSettings(form, 64, 48, 100)) as read:
            read()
    assert capfd.readouterr() == ("", "")
