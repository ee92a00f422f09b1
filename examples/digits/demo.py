"""The main job, from start to stop: the runtime reads handwritten digits from pictures.

Starts ``acapruntime`` with the CPU chip and the digits model, sends each picture in ``pictures`` through TensorFlow
Serving's Predict as a client does, prints what was recognised and how long each call took, and stops the runtime.
The exit code is 1 if a picture was misread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
from acap_runtime.proto import PredictRequest, PredictResponse
from PIL import Image

HERE = Path(__file__).parent
DT_UINT8 = 4
START_TIME_S = 60.0


@dataclass(frozen=True)
class Reading:
    """What came back for one picture."""

    picture: str
    size: str
    recognised: int
    confidence: float
    latency_ms: float
    right: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/demo.sock"
        options = ["--socket", f"{folder}/demo.sock", "--chip", "2", "--model", f"digits={HERE / 'digits.tflite'}"]
        print("$ acapruntime serve", *options, file=sys.stderr, flush=True)
        started = time.monotonic()
        server = subprocess.Popen([Path(sys.executable).with_name("acapruntime"), "serve", *options])
        try:
            readings = read_pictures(address)
            took = time.monotonic() - started
        finally:
            server.terminate()
            exit_code = server.wait()
    show(readings, took, as_json=as_json)
    if exit_code:
        print(f"the runtime ended with exit code {exit_code}", file=sys.stderr)
    return int(bool(exit_code) or not all(reading.right for reading in readings))


def read_pictures(address: str) -> list[Reading]:
    with grpc.insecure_channel(address) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )
        pictures = sorted((HERE / "pictures").glob("*.png"))
        # The first call waits until the server is up and the model is loaded; it is not measured.
        predict(request_for(pictures[0]), timeout=START_TIME_S, wait_for_ready=True)
        return [read_picture(predict, picture) for picture in pictures]


def request_for(picture: Path) -> PredictRequest:
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    request = PredictRequest()
    request.model_spec.name = "digits"
    tensor = request.inputs["data"]
    tensor.dtype = DT_UINT8
    for size in (1, *pixels.shape):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = pixels.tobytes()
    return request


def read_picture(predict: grpc.UnaryUnaryMultiCallable[PredictRequest, PredictResponse], picture: Path) -> Reading:
    request = request_for(picture)
    started = time.perf_counter()
    response = predict(request, timeout=START_TIME_S)
    latency_ms = (time.perf_counter() - started) * 1000
    scores = np.frombuffer(response.outputs["digit"].tensor_content, np.uint8)
    _, height, width, _ = (dim.size for dim in request.inputs["data"].tensor_shape.dim)
    recognised = int(scores.argmax())
    right = picture.name.startswith(f"{recognised}-")
    return Reading(picture.name, f"{width}x{height}", recognised, scores.max() / 255, round(latency_ms, 2), right)


def show(readings: list[Reading], took_s: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(reading) for reading in readings], indent=2))
        return
    print(f"\n{'PICTURE':9} {'SIZE':8} RECOGNISED  CONFIDENCE  LATENCY")
    for each in readings:
        verdict = str(each.recognised) if each.right else f"{each.recognised}  WRONG"
        print(f"{each.picture:9} {each.size:8} {verdict:11} {each.confidence:10.0%}  {each.latency_ms:4.1f} ms")
    right = sum(reading.right for reading in readings)
    latency = statistics.median(reading.latency_ms for reading in readings)
    print(f"\n{right} of {len(readings)} right; median latency {latency:.1f} ms; {took_s:.1f} s from start to stop")


if __name__ == "__main__":
    sys.exit(main())
