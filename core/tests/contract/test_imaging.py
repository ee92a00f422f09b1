"""Which tensors are images, which conversion one needs, and the files that describe conversions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from acap_runtime.contract.backend import Conversion, Crop, Image, TensorSpec
from acap_runtime.contract.conversions import conversion_for, image_of, read_conversion
from acap_runtime.errors import InvalidRequest

UINT8 = np.dtype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((1, 10, 20, 3), Image("rgb-interleaved", 20, 10)),
        ((1, 3, 10, 20), Image("rgb-planar", 20, 10)),
        ((1, 3, 10, 3), Image("rgb-interleaved", 10, 3)),
        ((1, 1, 1, 3), Image("rgb-interleaved", 1, 1)),
        ((10, 20, 3), None),
        ((2, 10, 20, 3), None),
        ((1, 10, 20, 4), None),
        ((1, 10, 20, 1), None),
        ((1, 0, 20, 3), None),
        ((1, -1, -1, 3), None),
        ((), None),
    ],
)
def test_an_image_is_three_channels_of_bytes(shape: tuple[int, ...], image: Image | None) -> None:
    assert image_of(UINT8, shape) == image


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint16"])
def test_other_dtypes_are_no_images(dtype: str) -> None:
    assert image_of(np.dtype(dtype), (1, 10, 20, 3)) is None


def test_a_conversion_needs_an_image_on_both_sides() -> None:
    wanted = TensorSpec("x", UINT8, (1, 3, 8, 9))
    conversion = conversion_for(wanted, UINT8, (1, 10, 20, 3))
    assert conversion == Conversion(Image("rgb-interleaved", 20, 10), Image("rgb-planar", 9, 8))
    assert conversion_for(wanted, UINT8, (1, 10, 20, 4)) is None
    assert conversion_for(wanted, np.dtype(np.float32), (1, 10, 20, 3)) is None
    assert conversion_for(TensorSpec("x", UINT8, (1, 100)), UINT8, (1, 10, 20, 3)) is None


GOOD = """
image.input.format = "nv12"
image.input.size = [20, 10]
image.output.format = "rgb-interleaved"
image.output.size = [7, 5]
"""


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "conversion.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_of_larods_parameters_is_a_conversion(tmp_path: Path) -> None:
    expected = Conversion(Image("nv12", 20, 10), Image("rgb-interleaved", 7, 5))
    assert read_conversion(_file(tmp_path, GOOD)) == expected
    tables = (
        '[image.input]\nformat = "nv12"\nsize = [20, 10]\n[image.output]\nformat = "rgb-interleaved"\nsize = [7, 5]'
    )
    assert read_conversion(_file(tmp_path, tables)) == expected


def test_it_may_have_a_crop_and_pitches_without_padding(tmp_path: Path) -> None:
    more = "image.input.crop = [2, 4, 8, 6]\nimage.input.row-pitch = 20\nimage.output.row-pitch = 21\n"
    assert read_conversion(_file(tmp_path, GOOD + more)).crop == Crop(2, 4, 8, 6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", ["image.input.format", "expected one of nv12", "got None"], id="empty"),
        pytest.param("x", ["expected a TOML file"], id="no TOML"),
        pytest.param(b"\xff\xfe", ["expected a TOML file"], id="no UTF-8"),
        pytest.param("a = " + "[" * 5000, ["expected a TOML file"], id="nested without end"),
        pytest.param("#" * 70_000, ["more than 65536 bytes"], id="too large"),
        pytest.param(GOOD.replace("nv12", "nv21"), ["image.input.format", "'nv21'"], id="unknown format"),
        pytest.param(GOOD.replace('"nv12"', "12"), ["image.input.format", "got 12"], id="format of a number"),
        pytest.param(GOOD.replace("[20, 10]", "[20]"), ["image.input.size: expected 2 integers"], id="half a size"),
        pytest.param(GOOD.replace("[20, 10]", "[20.0, 10.0]"), ["expected 2 integers"], id="size of floats"),
        pytest.param(GOOD.replace("[20, 10]", "[true, true]"), ["expected 2 integers"], id="size of booleans"),
        pytest.param(GOOD.replace("[7, 5]", "[0, 5]"), ["0x5", "at least 1x1"], id="no width"),
        pytest.param(GOOD.replace("[7, 5]", "[-7, 5]"), ["-7x5", "at least 1x1"], id="negative width"),
        pytest.param(GOOD.replace("[20, 10]", "[21, 10]"), ["21x10", "even"], id="odd nv12"),
        pytest.param(GOOD + "image.input.crop = [16, 0, 8, 8]", ["crop", "a part of the input"], id="crop outside"),
        pytest.param(GOOD + "image.input.crop = [1, 0, 8, 8]", ["crop", "even"], id="odd crop of nv12"),
        pytest.param(GOOD + "image.input.crop = [0, 0, 0, 8]", ["crop", "a part of the input"], id="empty crop"),
        pytest.param(GOOD + "image.input.row-pitch = 32", ["image.input.row-pitch: expected 20", "got 32"], id="pitch"),
        pytest.param(GOOD + "image.input.colour = 1", ["image.input.colour", "no such parameter"], id="unknown"),
        pytest.param(GOOD + "image.output.crop = [0, 0, 2, 2]", ["image.output.crop", "no such"], id="output crop"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(InvalidRequest) as caught:
        read_conversion(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), caught.value
