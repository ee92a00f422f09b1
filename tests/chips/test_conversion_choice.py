"""Which chip converts an image for a model, and chips that convert images as their main job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from acap_runtime import NotReady
from acap_runtime_libyuv import LibyuvBackend
from calls import code_of
from surprises import surprises

IMAGE_MODEL = 'inputs = [{name = "image", shape = [1, 8, 8, 3]}]'
FITS = np.full((1, 8, 8, 3), 100, np.uint8)
NEEDS_A_CONVERSION = np.full((1, 20, 30, 3), 100, np.uint8)
ADVICE = "pip install acap-runtime-libyuv"
BROKEN_LIBYUV = {"ACAPRUNTIME_LIBYUV_CHROMA": "no such path"}
"""With this, libyuv's own probe says that it is not ready."""

PAINTER = '''
"""A processing chip that paints everything in one colour, so that it is known who converted."""
import os
import acap_runtime as acap
import numpy as np

class Painter(acap.Model):
    def __init__(self, conversion):
        self.inputs, self.outputs = conversion.inputs, conversion.outputs

    def run(self, inputs):
        return {"output": np.full(self.outputs[0].shape, COLOUR, np.uint8)}

    def close(self):
        pass

class PainterBackend(acap.ProcessingBackend):
    chip_id, name, aliases = None, "painter-COLOUR", ("LAROD_CHIP_PAINTER_COLOUR",)

    def probe(self):
        if os.environ.get("ACAP_TEST_PAINTER_COLOUR") == "broken":
            raise acap.NotReady("the brush is missing")

    def prepare(self, conversion):
        return Painter(conversion)

@acap.hookimpl
def acap_runtime_backends():
    return [PainterBackend()]
'''


def libyuv_is_ready() -> bool:
    try:
        LibyuvBackend().probe()
    except NotReady:
        return False
    return True


needs_libyuv = pytest.mark.skipif(not libyuv_is_ready(), reason="libyuv is not installed")


@pytest.fixture
def painters(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes a distribution with a painting chip for each colour; gives the environment in which they are found."""

    def install(*colours: int) -> dict[str, str]:
        folder = tmp_path / "plugins"
        for colour in colours:
            name = f"acap_test_painter_{colour}"
            info = folder / f"{name}-1.dist-info"
            info.mkdir(parents=True)
            (folder / f"{name}.py").write_text(PAINTER.replace("COLOUR", str(colour)))
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1\n")
            (info / "entry_points.txt").write_text(f"[acap_runtime]\npainter{colour} = {name}\n")
        return {"PYTHONPATH": str(folder)}

    return install


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "image.toml"
    path.write_text(IMAGE_MODEL)
    return str(path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def write_file(name: str, text: str) -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write_file


def converted(client: Any, model: str) -> np.ndarray:
    image = client.predict(model, {"image": NEEDS_A_CONVERSION})["image"]
    assert image.shape == FITS.shape
    return image


def failed_start(start_server: Callable[..., Any], *arguments: object, **options: Any) -> str:
    """The log of a server whose start has to fail."""
    server = start_server(*arguments, ready=False, **options)
    assert server.process.wait(30) == 1
    return server.log


def test_without_a_converter_only_requests_that_need_one_fail_and_say_what_to_install(start_server, model: str) -> None:
    server = start_server("-j", "1", "-m", model, "--block", "libyuv", "--block", "opencl")
    with server.client() as client:
        assert (client.predict(model, {"image": FITS})["image"] == FITS).all()
        for _ in range(2):
            code, details = code_of(lambda: client.predict(model, {"image": NEEDS_A_CONVERSION}))
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert ADVICE in details
        assert (client.predict(model, {"image": FITS})["image"] == FITS).all()


def test_what_is_no_image_is_refused_and_not_converted(start_server, model: str, painters) -> None:
    server = start_server("-j", "1", "-m", model, "--block", "libyuv", environment=painters(7))
    with server.client() as client:
        for shape in ((1, 20, 30, 4), (2, 20, 30, 3), (600,), (20, 30)):
            code, details = code_of(lambda shape=shape: client.predict(model, {"image": np.zeros(shape, np.uint8)}))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert "[1, 8, 8, 3]" in details


@needs_libyuv
def test_libyuv_converts_by_default_also_beside_others(start_server, model: str, painters) -> None:
    server = start_server("-j", "1", "-m", model, environment=painters(7))
    with server.client() as client:
        assert np.abs(converted(client, model).astype(int) - 100).max() <= 4
    assert "images are converted by chip 11 (cpu-proc)" in server.log


@pytest.mark.parametrize("word", ["painter-7", "LAROD_CHIP_PAINTER_7"])
def test_a_second_chip_names_the_converter(start_server, model: str, painters, word: str) -> None:
    environment = painters(7, 9)
    for words in (("-j", "1", "-j", word), ("-j", word, "-j", "1")):
        server = start_server(*words, "-m", model, environment=environment)
        with server.client() as client:
            assert (converted(client, model) == 7).all()
        assert "images are converted by chip painter-7" in server.log


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"ACAP_TEST_PAINTER_7": "broken"}, "the brush is missing")],
)
def test_a_named_converter_that_is_not_ready_stops_the_start(
    start_server, model: str, painters, environment: dict[str, str], reason: str
) -> None:
    words = ("-j", "1", "-j", "painter-7", "-m", model)
    log = failed_start(start_server, *words, environment={**painters(7), **environment})
    assert "painter-7" in log
    assert reason in log
    assert not surprises(log)


def test_a_named_converter_that_is_not_used_stops_the_start_and_says_why(start_server, model: str) -> None:
    log = failed_start(start_server, "-j", "1", "-j", "10", "-m", model, "--block", "ace")
    assert "plugin ace of acap-runtime-ace is not used: blocked by --block" in log


@pytest.mark.parametrize("libyuv", ["not ready", "blocked"])
def test_another_ready_chip_converts_where_libyuv_cannot(start_server, model: str, painters, libyuv: str) -> None:
    environment = {**painters(7, 9), "ACAP_TEST_PAINTER_7": "broken"}
    words = ["--block", "opencl", *(["--block", "libyuv"] if libyuv == "blocked" else [])]
    if libyuv == "not ready":
        environment |= BROKEN_LIBYUV
    server = start_server("-j", "1", "-m", model, *words, environment=environment)
    with server.client() as client:
        assert (converted(client, model) == 9).all()
    server.wait_for_log("images are converted by chip painter-9")


def test_where_no_converter_is_ready_each_reason_is_told(start_server, model: str, painters) -> None:
    environment = {**painters(7), **BROKEN_LIBYUV, "ACAP_TEST_PAINTER_7": "broken"}
    server = start_server("-j", "1", "-m", model, "--block", "opencl", environment=environment)
    with server.client() as client:
        assert (client.predict(model, {"image": FITS})["image"] == FITS).all()
        code, details = code_of(lambda: client.predict(model, {"image": NEEDS_A_CONVERSION}))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "the brush is missing" in details
    assert "cpu-proc" in details


def test_two_inputs_that_need_the_same_conversion_do_not_overwrite_each_other(start_server, write) -> None:
    if not libyuv_is_ready():
        pytest.skip("libyuv is not installed")
    shape = "shape = [1, 8, 8, 3]"
    model = write("two", f'inputs = [{{name = "one", {shape}}}, {{name = "two", {shape}}}]')
    with start_server("-j", "1", "-m", model).client() as client:
        inputs = {"one": np.full((1, 20, 30, 3), 20, np.uint8), "two": np.full((1, 20, 30, 3), 220, np.uint8)}
        for _ in range(3):
            outputs = client.predict(model, inputs)
            assert np.abs(outputs["one"].astype(int) - 20).max() <= 4
            assert np.abs(outputs["two"].astype(int) - 220).max() <= 4


def test_ever_new_sizes_are_converted(start_server, model: str) -> None:
    if not libyuv_is_ready():
        pytest.skip("libyuv is not installed")
    with start_server("-j", "1", "-m", model, "--instances", "2").client() as client:
        for size in range(2, 42):
            image = np.full((1, size, size + 1, 3), 5 * size, np.uint8)
            result = client.predict(model, {"image": image})["image"]
            assert np.abs(result.astype(int) - 5 * size).max() <= 4


CONVERSION = """
image.input.format = "{0}"
image.input.size = [{1}, {2}]
image.output.format = "{3}"
image.output.size = [{4}, {5}]
"""


@pytest.fixture
def halves() -> np.ndarray:
    """An NV12 picture without colour, black on the left and white on the right."""
    picture = np.full((1, 96, 64), 128, np.uint8)
    picture[:, :64, :32] = 16
    picture[:, :64, 32:] = 235
    return picture


@needs_libyuv
def test_a_processing_chip_serves_predict_with_larods_parameters(start_server, write, halves: np.ndarray) -> None:
    resize = write("resize", CONVERSION.format("nv12", 64, 64, "rgb-interleaved", 16, 8))
    planar = write("planar", CONVERSION.format("nv12", 64, 64, "rgb-planar", 32, 32))
    back = write("back", CONVERSION.format("rgb-interleaved", 16, 8, "nv12", 64, 64))
    left = CONVERSION.format("nv12", 64, 64, "rgb-interleaved", 16, 16) + "image.input.crop = [0, 0, 16, 64]\n"
    right = CONVERSION.format("nv12", 64, 64, "rgb-interleaved", 16, 16) + "image.input.crop = [48, 0, 16, 64]\n"
    server = start_server("-j", "11", "-m", f"resize={resize}", "-m", f"back={back}")
    with server.client() as client:
        (picture,) = client.predict("resize", {"data": halves}).values()
        assert picture.shape == (1, 8, 16, 3)
        assert picture[:, :, :6].max() <= 8
        assert picture[:, :, 10:].min() >= 247
        (same,) = client.predict("back", {"data": picture}).values()
        assert same.shape == (1, 96, 64)
        assert np.abs(same[:, :64, :16].astype(int) - 16).max() <= 8
        assert np.abs(same[:, :64, 48:].astype(int) - 235).max() <= 8
        # By path, loaded on demand; and planes instead of pixels.
        (planes,) = client.predict(planar, {"data": halves}).values()
        assert planes.shape == (1, 3, 32, 32)
        assert planes[:, :, :, 20:].min() >= 247
        for name, text, colour in (("left", left, 0), ("right", right, 255)):
            (part,) = client.predict(write(name, text), {"data": halves}).values()
            assert np.abs(part.astype(int) - colour).max() <= 8


@needs_libyuv
def test_a_picture_of_another_size_is_fitted_to_a_processing_model_too(start_server, write) -> None:
    shrink = write("shrink", CONVERSION.format("rgb-interleaved", 32, 32, "rgb-interleaved", 8, 8))
    with start_server("-j", "11", "-m", shrink).client() as client:
        (picture,) = client.predict(shrink, {"data": np.full((1, 48, 100, 3), 77, np.uint8)}).values()
        assert picture.shape == (1, 8, 8, 3)
        assert np.abs(picture.astype(int) - 77).max() <= 6


GOOD_PAIR = CONVERSION.format("nv12", 64, 64, "rgb-interleaved", 16, 8)
BAD_FILES = {
    "no TOML": ("image.input.format = nv12", "larod parameters"),
    "nothing": ("", "image.input.format"),
    "unknown format": (CONVERSION.format("yuyv", 64, 64, "nv12", 16, 8), "image.input.format"),
    "no output format": ('image.input.format = "nv12"\nimage.input.size = [64, 64]', "image.output.format"),
    "no size": ('image.input.format = "nv12"', "image.input.size"),
    "three numbers": (GOOD_PAIR.replace("[16, 8]", "[16, 8, 3]"), "image.output.size"),
    "no integers": (GOOD_PAIR.replace("[16, 8]", "[16.0, 8]"), "image.output.size"),
    "no area": (GOOD_PAIR.replace("[16, 8]", "[0, 8]"), "0x8"),
    "odd nv12": (GOOD_PAIR.replace("[64, 64]", "[63, 64]"), "63x64"),
    "crop outside": (GOOD_PAIR + "image.input.crop = [60, 0, 8, 8]", "crop"),
    "crop of three": (GOOD_PAIR + "image.input.crop = [0, 0, 8]", "image.input.crop"),
    "odd crop": (GOOD_PAIR + "image.input.crop = [1, 0, 8, 8]", "crop"),
    "row pitch": (GOOD_PAIR + "image.input.row-pitch = 80", "image.input.row-pitch"),
    "unknown key": (GOOD_PAIR + "image.input.colour = 3", "image.input.colour"),
    "not a table": ("image = 3", "image"),
}


@needs_libyuv
def test_a_file_that_is_no_conversion_stops_the_start_naming_the_key(start_server, write) -> None:
    log = failed_start(start_server, "-j", "11", "-m", write("bad", BAD_FILES["three numbers"][0]))
    assert "image.output.size" in log
    assert "bad.toml" in log
    assert not surprises(log)


@needs_libyuv
def test_files_that_are_no_conversion_are_refused_to_who_names_them(start_server, write) -> None:
    with start_server("-j", "11").client() as client:
        for fault, (text, key) in BAD_FILES.items():
            path = write(fault, text)
            code, details = code_of(lambda path=path: client.predict(path, {"data": np.zeros((1, 96, 64), np.uint8)}))
            assert code == grpc.StatusCode.INVALID_ARGUMENT, fault
            assert key in details, fault
