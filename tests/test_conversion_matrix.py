"""Any chip that converts images does so for any chip that runs models: formats and sizes, as far as its limits go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, connect
from acap_runtime.plugins import discover
from acap_runtime.testing.reference import Reference
from acap_runtime_larod.fake import FakeLarod, build_fake

SHAPES = {"interleaved": (1, 96, 128, 3), "planar": (1, 3, 96, 128), "same-size": (1, 240, 320, 3)}
"""Inputs of the models: uint8 images."""
STREAMS: list[tuple[acap.ImageFormat, int, int]] = [
    ("nv12", 320, 240),
    ("nv12", 640, 360),
    ("rgb-interleaved", 320, 240),
    ("rgb-interleaved", 224, 224),
    ("rgb-planar", 320, 240),
    ("rgb-planar", 300, 300),
]
CONVERTERS = ["cpu-proc", "axis-a8-gpu-proc", "ambarella-cvflow-proc", "axis-a8-ace-proc"]
ON_THE_STAND_IN = {"ambarella-cvflow-proc", "axis-a8-ace-proc"}
SOFT = 14.0
"""Mean difference allowed, of 255: chips may scale chroma at half its resolution, and the pattern has hard edges."""


@pytest.fixture(scope="module")
def larod(tmp_path_factory: pytest.TempPathFactory) -> FakeLarod:
    folder = tmp_path_factory.mktemp("larod")
    try:
        return FakeLarod(folder, build_fake(folder))
    except acap.NotReady as error:
        pytest.skip(str(error))


def model_for(chip: str, larod: FakeLarod, folder: Path, shape: tuple[int, ...]) -> Path:
    name = "-".join(map(str, shape))
    if chip == "12":
        layout, dims = "nhwc" if shape[3] == 3 else "nchw", ",".join(map(str, shape))
        lines = [f"input data uint8 {layout} {dims}", f"output data uint8 {layout} {dims}"]
        return larod.write_model(folder / f"{name}.larod", lines)
    path = folder / f"{name}.toml"
    path.write_text(f'inputs = [{{name = "image", shape = {list(shape)}}}]\n')
    return path


def image_of(shape: tuple[int, ...]) -> acap.Image:
    if shape[3] == 3:
        return acap.Image("rgb-interleaved", shape[2], shape[1])
    return acap.Image("rgb-planar", shape[3], shape[2])


@pytest.mark.parametrize("chip", ["1", "12"])
@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_converter_serves_whatever_it_says_it_does(
    start_server: Callable[..., Any], larod: FakeLarod, tmp_path: Path, converter: str, chip: Literal["1", "12"]
) -> None:
    (backend,) = (each.backend for each in discover().chips if each.backend.name == converter)
    assert isinstance(backend, acap.ProcessingBackend)
    if converter == "axis-a8-gpu-proc":
        pytest.importorskip("pyopencl")
    # Chip 13 would take larod's device where there is one: it is to be OpenCL's own here.
    environment = larod.environment if chip == "12" or converter in ON_THE_STAND_IN else {}
    if environment and converter == "axis-a8-gpu-proc":
        larod.tell("devices", "axis-a8-dlpu-tflite")
    server = start_server("-j", chip, "-j", converter, "--camera", "test-pattern", environment=environment)
    served = 0
    with connect(server.address) as client:
        for shape in SHAPES.values():
            path = model_for(chip, larod, tmp_path, shape)
            for stream_format, width, height in STREAMS:
                conversion = acap.Conversion(acap.Image(stream_format, width, height), image_of(shape))
                if conversion.input == conversion.output:
                    continue
                if not backend.converts(conversion):
                    refuse(client, path, conversion)
                    continue
                compare(client, path, conversion, echoed=chip == "1")
                served += 1
    larod.forget("devices")
    assert served >= {"axis-a8-ace-proc": 1, "ambarella-cvflow-proc": 4}.get(converter, 15)
    assert server.stop() == 0


def compare(client: Client, path: Path, conversion: acap.Conversion, *, echoed: bool) -> None:
    image = conversion.input
    with client.stream(image.format, image.width, image.height, framerate=30) as stream:
        prediction = client.predict_stream(str(path), stream)
        frame = stream.frame(prediction.reference)
    (output,) = prediction.outputs.values()
    assert output.shape == conversion.output.shape
    if echoed:
        wanted = Reference()(frame.array[np.newaxis], conversion)
        assert np.abs(output.astype(int) - wanted.astype(int)).mean() < SOFT, str(conversion)


def refuse(client: Client, path: Path, conversion: acap.Conversion) -> None:
    """The operator named this chip: it is asked, and says what it can do."""
    image = conversion.input
    stream = client.stream(image.format, image.width, image.height, framerate=30)
    with stream, pytest.raises(CallFailed, match="INVALID_ARGUMENT"):
        client.predict_stream(str(path), stream)
