"""The digits model of examples/digits keeps what its README promises."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
PICTURES = sorted((EXAMPLE / "pictures").glob("*.png"))
ROUNDING = 0.25  # in percent, two pictures of 900: kernels and scalers of other machines round differently


def _module(name):
    spec = importlib.util.spec_from_file_location(f"digits_example_{name}", EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rendering = _module("rendering")


@pytest.fixture(scope="module")
def splits():
    return _module("digits").split()


@pytest.fixture(scope="module")
def held_back(splits):
    return splits[1]


@pytest.fixture(scope="module")
def model():
    interpreter = Interpreter(model_path=str(EXAMPLE / "digits.tflite"))
    interpreter.allocate_tensors()
    return interpreter


def _read(model, pictures):
    read = []
    for picture in pictures:
        model.set_tensor(model.get_input_details()[0]["index"], np.asarray(picture)[np.newaxis])
        model.invoke()
        read.append(model.get_tensor(model.get_output_details()[0]["index"]).argmax())
    return np.array(read)


def _claimed(way):
    row = re.search(rf"^\| {way}: .*\| ([\d.]+) % \|$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    assert row, f"README.md has no row '{way}' that ends in an accuracy"
    return float(row[1])


def test_the_model_file_is_small():
    assert (EXAMPLE / "digits.tflite").stat().st_size < 100_000


def test_the_model_takes_and_gives_plain_bytes_under_plain_names(model):
    (data,), (digit,) = model.get_input_details(), model.get_output_details()
    assert (data["name"], data["dtype"], data["shape"].tolist()) == ("data", np.uint8, [1, 32, 32, 3])
    assert (digit["name"], digit["dtype"], digit["shape"].tolist()) == ("digit", np.uint8, [1, 10])
    assert data["quantization"] == pytest.approx((1 / 255, 0))
    assert digit["quantization"] == pytest.approx((1 / 256, 0))


def test_no_tensor_of_the_model_is_float(model):
    assert {np.dtype(tensor["dtype"]) for tensor in model.get_tensor_details()} <= {
        np.dtype(dtype) for dtype in ("uint8", "int8", "int32")
    }


def test_no_held_back_digit_is_among_those_learnt_from(splits):
    learn, held_back = splits
    assert len(learn.labels) + len(held_back.labels) == 1797
    assert not {stroke.tobytes() for stroke in learn.strokes} & {stroke.tobytes() for stroke in held_back.strokes}


@pytest.mark.parametrize(("way", "through_video"), [("as drawn", False), ("through video", True)])
def test_held_back_digits_are_read_as_accurately_as_the_readme_says(model, held_back, way, through_video):
    read = _read(model, rendering.exam(held_back.strokes, through_video=through_video))
    accuracy = 100 * np.mean(read == np.repeat(held_back.labels, 2))
    assert accuracy >= _claimed(way) - ROUNDING


def test_there_are_two_small_pictures_of_each_digit():
    assert [picture.name for picture in PICTURES] == [f"{label}-{which}.png" for label in range(10) for which in "ab"]
    assert sum(picture.stat().st_size for picture in PICTURES) < 60_000


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("how", ["smooth", "box", "sparse"])
def test_each_picture_is_read_right_however_it_is_shrunk(model, path, how):
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        seen = [rendering.shrink(picture, how), rendering.shrink(rendering.chroma_subsampled(picture), how)]
    assert _read(model, seen).tolist() == [int(path.stem[0])] * 2


def test_the_pictures_show_held_back_digits(held_back):
    drawn = dict(rendering.gallery(held_back.strokes, held_back.labels))
    assert drawn.keys() == {path.name for path in PICTURES}
    for path in PICTURES:
        with Image.open(path) as picture:
            difference = np.abs(np.asarray(picture, np.int16) - np.asarray(drawn[path.name], np.int16))
        assert difference.mean() < 1, f"{path.name} is not the held-back digit that train.py draws"
