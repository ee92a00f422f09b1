import logging
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_debug import Pictures
from PIL import Image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NV12_RED = (82, 90, 240)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "some, pictures"
    folder.mkdir()
    for name, colour in (("2 green.bmp", GREEN), ("1 red.PNG", RED), ("3 blue.jpg", BLUE)):
        Image.new("RGB", (40, 30), colour).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def colours(source: str, image: acap.Image, count: int, framerate: int = 20) -> list[tuple[int, ...]]:
    """Of the middle pixel of each frame, which must be that of the whole frame."""
    stream = Pictures().open(source, acap.StreamSettings(image.format, image.width, image.height, framerate))
    found = []
    for _ in range(count):
        picture = np.full(image.shape[1:], 77, np.uint8)
        stream.read(picture)
        match image.format:
            case "rgb-interleaved":
                pixels = picture.reshape(-1, 3)
            case "rgb-planar":
                pixels = picture.reshape(3, -1).T
            case "nv12":
                y, uv = picture[: image.height], picture[image.height :].reshape(image.height // 2, -1, 2)
                uv = uv.repeat(2, axis=0).repeat(2, axis=1)
                pixels = np.concatenate([y[..., np.newaxis], uv], axis=2).reshape(-1, 3)
        assert (pixels == pixels[0]).all()
        found.append(tuple(int(level) for level in pixels[0]))
    stream.close()
    return found


def test_each_picture_is_shown_for_its_time_in_alphabetical_order(folder):
    found = colours(f"pictures:{folder},seconds=0.1", acap.Image("rgb-interleaved", 50, 20), 8)
    blue = found[4]
    assert found == [RED, RED, GREEN, GREEN, blue, blue, RED, RED]
    assert np.abs(np.subtract(blue, BLUE)).max() <= 3


def test_a_picture_is_shown_for_a_second_where_nothing_is_said(folder):
    assert colours(f"pictures:{folder}", acap.Image("rgb-planar", 33, 21), 23) == [RED] * 20 + [GREEN] * 3


def test_every_picture_has_a_frame_where_its_time_is_shorter(folder):
    found = colours(f"pictures:{folder},seconds=0.001", acap.Image("rgb-interleaved", 4, 4), 4)
    assert found[:2] == [RED, GREEN]
    assert found[3] == RED


@pytest.mark.parametrize("image", [acap.Image("nv12", 2, 2), acap.Image("nv12", 322, 182)], ids=str)
def test_nv12_is_bt601_of_limited_range(folder, image):
    (found,) = colours(f"pictures:{folder}", image, 1)
    assert np.abs(np.subtract(found, NV12_RED)).max() <= 1


def test_pictures_are_stretched_with_bilinear_interpolation(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[:, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    stream = Pictures().open(f"pictures:{tmp_path}", acap.StreamSettings("rgb-interleaved", 8, 4, 20))
    picture = np.zeros((4, 8, 3), np.uint8)
    stream.read(picture)
    stream.close()
    row = picture[2, :, 0].astype(int)
    assert np.abs(row - [0, 0, 32, 96, 159, 223, 255, 255]).max() <= 2


def test_what_cannot_be_read_is_left_out_with_a_warning(folder, caplog):
    (folder / "1a broken.png").write_bytes(b"no picture")
    (folder / "1b cut.png").write_bytes((folder / "1 red.PNG").read_bytes()[:60])
    with caplog.at_level(logging.WARNING):
        assert colours(f"pictures:{folder},seconds=0.05", acap.Image("rgb-interleaved", 4, 4), 2) == [RED, GREEN]
    assert "1a broken.png is left out" in caplog.text
    assert "1b cut.png is left out" in caplog.text


def test_any_kind_of_picture_becomes_rgb(tmp_path):
    for mode in ("1", "L", "P", "RGBA", "LA", "I;16"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode.replace(';', '')}.png")
    black = (0, 0, 0)
    assert colours(f"pictures:{tmp_path},seconds=0.05", acap.Image("rgb-interleaved", 4, 4), 6) == [black] * 6


def test_pictures_that_go_away_end_the_stream(folder):
    stream = Pictures().open(f"pictures:{folder},seconds=0.05", acap.StreamSettings("rgb-planar", 4, 4, 20))
    picture = np.zeros((3, 4, 4), np.uint8)
    stream.read(picture)
    for path in folder.iterdir():
        path.unlink()

    def read_on() -> None:
        for _ in range(3):  # the next picture may have been ready
            stream.read(picture)

    with pytest.raises(acap.Unavailable, match="none of 3 pictures can be read any more"):
        read_on()
    stream.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "expected a folder of pictures"),
        (lambda path: path.write_text("a file"), "expected a folder of pictures"),
        (lambda path: path.mkdir(), "expected pictures .*, got none"),
        (lambda path: (path.mkdir(), (path / "a.png").write_text("x")), "expected a picture that can be read, got 1"),
    ],
)
def test_a_folder_that_shows_nothing_is_not_ready(tmp_path, make, message):
    path = tmp_path / "folder"
    make(path)
    with pytest.raises(acap.NotReady, match=message):
        Pictures().probe(f"pictures:{path}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pictures", "expected pictures:/FOLDER"),
        ("pictures:", "expected pictures:/FOLDER"),
        ("pictures:/folder,seconds=0", r"seconds: expected 0.001 to 86400 seconds, got '0'"),
        ("pictures:/folder,seconds=", "seconds: expected"),
        ("pictures:/folder,seconds=long", "seconds: expected"),
    ],
)
def test_a_malformed_source_is_refused(source, message):
    with pytest.raises(acap.InvalidRequest, match=message):
        Pictures().probe(source)


def test_a_folder_may_be_called_like_an_option(tmp_path):
    folder = tmp_path / "a,seconds=2"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    Pictures().probe(f"pictures:{folder}/")
    with pytest.raises(acap.NotReady):
        Pictures().probe(f"pictures:{folder}")


def test_encoded_formats_are_refused(folder):
    with pytest.raises(acap.InvalidRequest, match="format jpeg: expected one of nv12"):
        Pictures().open(f"pictures:{folder}", acap.StreamSettings("jpeg", 320, 240, 30))
