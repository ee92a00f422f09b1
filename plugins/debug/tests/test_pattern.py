import io
import itertools
import signal
import subprocess
import sys
import threading
import time

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.lateness import Lateness
from acap_runtime_debug import Stamp, TestPattern, read_stamp
from acap_runtime_debug.faults import CHIPLESS_FAULTS
from acap_runtime_debug.knobs import CAMERA_KNOBS
from PIL import Image

IN_A_PROCESS_OF_ITS_OWN = """
import sys, threading, time
import acap_runtime as acap, numpy as np
from acap_runtime_debug import TestPattern

def tick():
    time.sleep(0.3)
    print("other threads run", flush=True)

stream = TestPattern().open(sys.argv[1], acap.StreamSettings("nv12", 64, 32, 240))
picture = np.zeros((48, 64), np.uint8)
threading.Thread(target=tick).start()
for number in range(3):
    stream.read(picture)
    print("frame", number, flush=True)
"""


def open_stream(image: acap.Image, framerate: int = 240, source: str = "test-pattern") -> acap.Stream:
    return TestPattern().open(source, acap.StreamSettings(image.format, image.width, image.height, framerate))


def blank(image: acap.Image) -> acap.Array:
    return np.full(image.shape[1:], 77, np.uint8)


def images(*sizes: tuple[int, int]) -> list[acap.Image]:
    pairs = itertools.product(acap.IMAGE_FORMATS, sizes)
    return [acap.Image(name, *size) for name, size in pairs if name != "nv12" or not (size[0] % 2 or size[1] % 2)]


@pytest.mark.parametrize("image", images((64, 32), (65, 33), (320, 240), (1920, 1080), (480, 854)), ids=str)
def test_number_and_time_are_read_from_the_pixels(image):
    stream, picture = open_stream(image), blank(image)
    stamps, frames = [], []
    for _ in range(4):
        frames.append(stream.read(picture))
        stamps.append(read_stamp(picture, image.format))
        assert read_stamp(picture[np.newaxis], image.format) == stamps[-1]
    assert [stamp.captured_us for stamp in stamps] == [frame.captured_ns // 1000 for frame in frames]
    assert stamps[0].number == 0
    assert all(one.number < other.number for one, other in itertools.pairwise(stamps))
    assert {(frame.encoded, frame.keyframe, frame.has_picture) for frame in frames} == {(b"", True, True)}


@pytest.mark.parametrize("size", [(64, 32), (130, 97), (640, 480)])
@pytest.mark.parametrize("quality", [30, 75])
def test_a_stamp_survives_lossy_encoding(size, quality):
    image = acap.Image("rgb-interleaved", *size)
    picture = blank(image)
    frame = open_stream(image).read(picture)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    assert read_stamp(np.asarray(Image.open(file)), image.format) == Stamp(0, frame.captured_ns // 1000)


def test_a_picture_without_a_stamp_says_so():
    with pytest.raises(ValueError, match="at least 64x32 pixels"):
        read_stamp(np.zeros((31, 64, 3), np.uint8), "rgb-interleaved")
    with pytest.raises(ValueError, match="whose checksum is wrong"):
        read_stamp(np.zeros((3, 240, 320), np.uint8), "rgb-planar")


@pytest.mark.parametrize("image", images((1, 1), (2, 2), (3, 5), (1, 9), (62, 2), (62, 48), (63, 47)), ids=str)
def test_small_pictures_are_whole_and_have_no_stamp(image):
    first, other = blank(image), ~blank(image)
    open_stream(image).read(first)
    open_stream(image).read(other)
    assert np.array_equal(first, other)
    with pytest.raises(ValueError, match="have no stamp"):
        read_stamp(first, image.format)


@pytest.mark.parametrize("image", images((160, 120)), ids=str)
def test_something_moves_from_frame_to_frame(image):
    stream = open_stream(image)
    pictures = [blank(image) for _ in range(4)]
    for picture in pictures:
        stream.read(picture)
    for one, other in itertools.pairwise(pictures):
        below = slice(60, 75)
        changed = one[:, below] != other[:, below] if image.format == "rgb-planar" else one[below] != other[below]
        assert changed.any()


def test_formats_show_the_same_picture():
    interleaved, planar, nv12 = images((160, 120))[1], images((160, 120))[2], images((160, 120))[0]
    shown = {}
    for image in (interleaved, planar, nv12):
        shown[image.format] = blank(image)
        open_stream(image).read(shown[image.format])
    colours, luma, chroma = shown["rgb-interleaved"], shown["nv12"][:120], shown["nv12"][120:]
    below = slice(16, 120)  # the stamp tells the formats' times apart
    assert np.array_equal(np.moveaxis(shown["rgb-planar"], 0, 2)[below], colours[below])
    red, green, blue = (colours[..., channel].astype(float) for channel in range(3))
    wanted = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    assert np.abs(luma - wanted)[below].max() <= 2
    red_bar = (50, 110)
    assert tuple(colours[red_bar[0], red_bar[1]]) == (235, 16, 16)
    u, v = chroma[25, 110], chroma[25, 111]
    assert (int(u), int(v)) == pytest.approx((128 - 37.9 * 219 / 256, 128 + 112.4 * 219 / 256), abs=2)


def test_frames_come_at_the_frame_rate_and_errors_do_not_add_up():
    image = acap.Image("nv12", 320, 240)
    stream, picture = open_stream(image, framerate=40), blank(image)
    first = stream.read(picture)
    with Lateness() as lateness:
        started = time.monotonic()
        for _ in range(60):
            frame = stream.read(picture)
        took = time.monotonic() - started
    assert 1.5 * 0.95 <= took <= 1.5 * 1.05 + lateness.total_s
    intervals, rest = divmod(frame.captured_ns - first.captured_ns, 25_000_000)
    assert (intervals, rest) == (read_stamp(picture, "nv12").number, 0)


def test_frames_that_nobody_took_are_left_out():
    image = acap.Image("nv12", 320, 240)
    stream, picture = open_stream(image, framerate=50), blank(image)
    stream.read(picture)
    time.sleep(0.21)
    late = stream.read(picture)
    number = read_stamp(picture, "nv12").number
    assert number >= 10
    assert time.monotonic_ns() - late.captured_ns < 200_000_000
    stream.read(picture)
    assert read_stamp(picture, "nv12").number > number


@pytest.mark.parametrize("name", ["h264", "h265", "jpeg"])
def test_encoded_formats_are_refused_with_what_to_do(name):
    with pytest.raises(acap.InvalidRequest, match=f"format {name}: .* video plugin's do"):
        TestPattern().open("test-pattern", acap.StreamSettings(name, 320, 240, 30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("crush=3", "option 'crush=3': expected NAME=VALUE, with one of crash, exit, .*open_delay"),
        ("crash", "option 'crash': expected NAME=VALUE"),
        ("fail=1,", "option '': expected NAME=VALUE"),
        ("fail=1,fail=2", "option fail: expected it once"),
        ("fail=-1", "fail: expected a number from 0"),
        ("fail=soon", "fail: expected a number from 0"),
        ("open_fail=maybe", "open_fail: expected 'yes' or 'no'"),
        ("open_delay=nan", "open_delay: expected 0 to 86400 seconds"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    camera, source = TestPattern(), f"test-pattern:{options}"
    assert camera.claims(source)
    with pytest.raises(acap.InvalidRequest, match=message):
        camera.probe(source)
    with pytest.raises(acap.InvalidRequest, match=message):
        camera.open(source, acap.StreamSettings("nv12", 64, 32, 30))


def test_probe_passes_whatever_goes_wrong_later():
    for source in ("test-pattern", "test-pattern:", "test-pattern:crash=0,open_fail=yes,open_delay=9"):
        TestPattern().probe(source)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ("fail=2", acap.Unavailable, "told to fail"),
        ("raise=2", RuntimeError, "told to raise"),
        ("end=2", acap.Unavailable, "ended after 2 frames"),
    ],
)
def test_errors_come_at_the_frame_that_was_asked_for(option, error, message):
    image = acap.Image("nv12", 64, 32)
    stream, picture = open_stream(image, 20, f"test-pattern:{option}"), blank(image)
    stream.read(picture)
    stream.read(picture)
    with pytest.raises(error, match=message):
        stream.read(picture)


def test_an_error_comes_though_its_frame_was_left_out():
    image = acap.Image("nv12", 64, 32)
    stream, picture = open_stream(image, 50, "test-pattern:fail=2"), blank(image)
    stream.read(picture)
    time.sleep(0.1)
    with pytest.raises(acap.Unavailable):
        stream.read(picture)


def test_opening_fails_or_takes_its_time():
    image = acap.Image("nv12", 64, 32)
    with pytest.raises(acap.Unavailable, match="told to fail"):
        open_stream(image, source="test-pattern:open_fail=yes")
    started = time.monotonic()
    open_stream(image, source="test-pattern:open_fail=no,open_delay=0.2").close()
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(("option", "status"), [("crash=2", -signal.SIGSEGV), ("exit=2", 3)])
def test_the_process_ends_at_the_frame_that_was_asked_for(option, status):
    with started(option) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status
        assert output.splitlines() == ["frame 0", "frame 1"]


def test_a_hang_leaves_other_threads_alone():
    with started("hang=1") as process:
        lines = [process.stdout.readline().strip() for _ in range(2)]
        assert process.poll() is None
        process.kill()
        assert lines == ["frame 0", "other threads run"]


def test_a_freeze_stops_every_thread():
    with started("freeze=1") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        assert process.stdout.read().splitlines() in ([], ["frame 0"])


def test_every_fault_is_an_option():
    assert CHIPLESS_FAULTS.keys() <= CAMERA_KNOBS.keys()


def test_streams_of_one_source_are_read_side_by_side():
    numbers = {}

    def watch(image: acap.Image) -> None:
        stream, picture = open_stream(image, framerate=50), blank(image)
        for _ in range(10):
            stream.read(picture)
        numbers[image] = read_stamp(picture, image.format).number

    threads = [threading.Thread(target=watch, args=(image,)) for image in images((320, 240))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 3
    assert min(numbers.values()) >= 9


def started(option: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, f"test-pattern:{option}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
