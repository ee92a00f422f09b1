"""Any chip that converts images does so for any chip that runs models: formats and sizes, as far as its limits go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, connect
from acap_runtime.client.video import Stream
from acap_runtime.plugins.installed import discover
from acap_runtime.testing.backend import require
from acap_runtime.testing.pictures import noise
from acap_runtime.testing.reference import Reference
from acap_runtime_larod.fake import FakeLarod, build_fake

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
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


def image_of(shape: tuple[int, ...]) -> acap.Image:
    if shape[3] == 3:
        return acap.Image("rgb-interleaved", shape[2], shape[1])
    return acap.Image("rgb-planar", shape[3], shape[2])


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converter_serves_whatever_it_says_it_does(
    start_server: Callable[..., Any], larod: FakeLarod, tmp_path: Path, name: str
) -> None:
    converter = converter_of(name)
    # Chip 13 would take larod's device where there is one: it is to be OpenCL's own here.
    environment = larod.environment if name in ON_THE_STAND_IN else {}
    server = start_server("-j", "1", "-j", name, "--camera", "test-pattern", environment=environment)
    models = {}
    for model, shape in SHAPES.items():
        models[model] = tmp_path / f"{model}.toml"
        models[model].write_text(f'inputs = [{{name = "image", shape = {list(shape)}}}]\n')
    served = 0
    with connect(server.address) as client, ExitStack() as streams:
        for source in map(acap.Image, *zip(*STREAMS, strict=True)):
            # All stay open, so that the camera's process does.
            stream = streams.enter_context(client.stream(source.format, source.width, source.height, framerate=30))
            for model, shape in SHAPES.items():
                conversion = acap.Conversion(source, image_of(shape))
                if conversion.input == conversion.output:
                    continue
                if converter.converts(conversion):
                    compare(client, models[model], stream, conversion)
                    served += 1
                else:
                    # The operator named this chip: it is asked, and says what it can do.
                    with pytest.raises(CallFailed, match="INVALID_ARGUMENT"):
                        client.predict_stream(str(models[model]), stream)
    assert served >= {"axis-a8-ace-proc": 1, "ambarella-cvflow-proc": 4}.get(name, 15)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("chip", "name"),
    [
        *(("2", name) for name in CONVERTERS if name != "ambarella-cvflow-proc"),  # which gives planes alone
        # Other chips are larod's, one like the other: each beside a converter that its device may have.
        ("4", "cpu-proc"),
        ("6", "ambarella-cvflow-proc"),
        ("8", "axis-a8-gpu-proc"),
        ("12", "axis-a8-ace-proc"),
        ("a9-dlpu-tflite", "cpu-proc"),
    ],
)
def test_a_converter_works_in_the_process_of_any_chip(
    start_server: Callable[..., Any], larod: FakeLarod, tmp_path: Path, chip: str, name: str
) -> None:
    converter = converter_of(name)
    if name == "axis-a8-gpu-proc":
        larod.tell("devices", "gpu-tflite")  # as above: none for chip 13
    # ACE takes nv12 of the same size and nothing else, which only a stream can be.
    source = acap.Image("nv12", 32, 32) if name == "axis-a8-ace-proc" else acap.Image("rgb-planar", 64, 48)
    target = acap.Image("rgb-planar" if name == "ambarella-cvflow-proc" else "rgb-interleaved", 32, 32)
    assert converter.converts(acap.Conversion(source, target))
    path = DIGITS
    if chip != "2":
        layout = f"uint8 {'nchw' if target.format == 'rgb-planar' else 'nhwc'} {','.join(map(str, target.shape))}"
        path = larod.write_model(tmp_path / "model", [f"input data {layout}", f"output data {layout}"])
    camera = ["--camera", "test-pattern"] if source.format == "nv12" else []
    server = start_server("-j", chip, "-j", name, *camera, environment=larod.environment)
    with connect(server.address) as client:
        if camera:
            with client.stream("nv12", source.width, source.height, framerate=30) as stream:
                outputs = client.predict_stream(str(path), stream).outputs
        else:
            outputs = client.predict(str(path), {"data": noise(source)})
    assert [output.shape for output in outputs.values()] == [(1, 10) if chip == "2" else target.shape]
    assert server.stop() == 0
    larod.forget("devices")


def converter_of(name: str) -> acap.ProcessingBackend:
    (backend,) = (each.backend for each in discover().chips if each.backend.name == name)
    assert isinstance(backend, acap.ProcessingBackend)
    if name not in ON_THE_STAND_IN:
        require(backend)
    return backend


def compare(client: Client, path: Path, stream: Stream, conversion: acap.Conversion) -> None:
    prediction = client.predict_stream(str(path), stream)
    frame = stream.frame(prediction.reference)
    (output,) = prediction.outputs.values()
    assert output.shape == conversion.output.shape
    wanted = Reference()(frame.array[np.newaxis], conversion)
    assert np.abs(output.astype(int) - wanted.astype(int)).mean() < SOFT, str(conversion)
