"""Runs the main job from start to stop: the runtime reads handwritten digits from pictures and from video.

Starts ``acapruntime`` with the CPU chip, the digits model and a camera that shows the pictures in ``pictures`` one
after the other. The model reads each picture twice: once sent as a tensor, and once in the camera's NV12 stream. The
demo fetches the very frame that the model read, to see which picture it shows. Then it stops the runtime. It prints
each recognised digit and the duration of each call, and writes the frames to a contact sheet. The exit code is 1 if a
picture was misread, or if the runtime did not stop properly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from acap_runtime.client import CallFailed, Client, connect
from frames import decode, nearest, write_sheet
from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 224, 224
FRAMERATE = 10
SHOWN_S = 0.4
MOST_TURNS = 3  # through all pictures, until each must have been seen
START_TIME_S = 60.0


@dataclass(frozen=True)
class Reading:
    """The model's reading of a picture."""

    recognised: int
    confidence: float
    latency_ms: float
    right: bool


@dataclass(frozen=True)
class Seen:
    """A frame of the stream, and the model's reading of it."""

    reference: int
    picture: Image.Image
    reading: Reading


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--sheet", type=Path, default=Path("digits.png"), metavar="PATH", help="the contact sheet, a PNG [%(default)s]"
    )
    arguments = parser.parse_args()
    pictures = {path.name: load(path) for path in sorted((HERE / "pictures").glob("*.png"))}
    with tempfile.TemporaryDirectory() as folder:
        options = ["--socket", f"{folder}/demo.sock", "--chip", "2", "--model", f"digits={HERE / 'digits.tflite'}"]
        options += ["--camera", f"pictures:{HERE / 'pictures'},seconds={SHOWN_S}"]
        print("$ acapruntime serve", *options, file=sys.stderr, flush=True)
        started = time.monotonic()
        server = subprocess.Popen([Path(sys.executable).with_name("acapruntime"), "serve", *options])
        try:
            with connect(f"unix://{folder}/demo.sock", timeout_s=START_TIME_S, wait_s=START_TIME_S) as client:
                sent = send(client, pictures)
                seen = watch(client, pictures)
        except CallFailed as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            server.terminate()
            exit_code = server.wait()
        took_s = time.monotonic() - started
    labels = ((each.picture, label(name, each.reading), each.reading.right) for name, each in sorted(seen.items()))
    write_sheet(arguments.sheet, list(labels))
    if arguments.json:
        print(json.dumps({"readings": rows(pictures, sent, seen), "seconds": took_s, "sheet": str(arguments.sheet)}))
    else:
        show(pictures, sent, seen)
        print(f"{took_s:.1f} s from start to stop; the frames that the model read are on {arguments.sheet}")
    if exit_code:
        print(f"the runtime ended with exit code {exit_code}", file=sys.stderr)
    if missing := sorted(pictures.keys() - seen.keys()):
        print(f"not seen in the stream: {', '.join(missing)}", file=sys.stderr)
    readings = [*sent.values(), *(each.reading for each in seen.values())]
    return int(bool(exit_code or missing) or not all(reading.right for reading in readings))


def load(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def send(client: Client, pictures: Mapping[str, Image.Image]) -> dict[str, Reading]:
    """Send each picture as a tensor of its own size, and return the readings."""
    # The first call waits until the model and the converter are ready. It is not measured.
    client.predict("digits", np.asarray(next(iter(pictures.values()))))
    readings = {}
    for name, picture in pictures.items():
        pixels = np.asarray(picture)
        started = time.perf_counter()
        outputs = client.predict("digits", pixels)
        readings[name] = read(name, outputs, time.perf_counter() - started)
    return readings


def watch(client: Client, pictures: Mapping[str, Image.Image]) -> dict[str, Seen]:
    """Read the stream's newest frame repeatedly until every picture has appeared."""
    seen: dict[str, Seen] = {}
    most_frames = round(MOST_TURNS * len(pictures) * SHOWN_S * FRAMERATE)
    with client.stream("nv12", WIDTH, HEIGHT, FRAMERATE) as stream:
        for _ in islice(stream, most_frames):
            started = time.perf_counter()
            prediction = client.predict_stream("digits", stream)
            took_s = time.perf_counter() - started
            picture = decode(stream.frame(prediction.reference))
            name = nearest(picture, pictures)
            reading = read(name, prediction.outputs, took_s)
            # Keep the first frame of each picture, unless a later one is misread.
            if name not in seen or not reading.right:
                seen[name] = Seen(prediction.reference, picture, reading)
            if len(seen) == len(pictures):
                break
    return seen


def read(name: str, outputs: Mapping[str, np.ndarray], took_s: float) -> Reading:
    scores = outputs["digit"]
    recognised = int(np.argmax(scores))
    confidence = float(scores.max()) / 256
    return Reading(recognised, confidence, round(took_s * 1000, 2), name.startswith(f"{recognised}-"))


def rows(
    pictures: Mapping[str, Image.Image], sent: Mapping[str, Reading], seen: Mapping[str, Seen]
) -> list[dict[str, object]]:
    return [
        {
            "picture": name,
            "size": f"{picture.width}x{picture.height}",
            "sent": asdict(sent[name]),
            "seen": {"reference": seen[name].reference, **asdict(seen[name].reading)} if name in seen else None,
        }
        for name, picture in pictures.items()
    ]


def show(pictures: Mapping[str, Image.Image], sent: Mapping[str, Reading], seen: Mapping[str, Seen]) -> None:
    way = f"{'READ':8} {'SURE':>5} {'LATENCY':>8}"
    print(f"\n{'':17}  {'SENT AS A TENSOR':23}  {f'SEEN IN A STREAM, NV12 {WIDTH}x{HEIGHT}'}")
    print(f"{'PICTURE':9} {'SIZE':7}  {way}  {'FRAME':>5}  {way}")
    for name, picture in pictures.items():
        size = f"{picture.width}x{picture.height}"
        video = f"{seen[name].reference:5}  {cells(seen[name].reading)}" if name in seen else "NOT SEEN"
        print(f"{name:9} {size:7}  {cells(sent[name])}  {video}")
    print(f"\nsent: {summary(sent.values())}; seen: {summary(each.reading for each in seen.values())}")


def cells(reading: Reading) -> str:
    verdict = str(reading.recognised) if reading.right else f"{reading.recognised} WRONG"
    return f"{verdict:8} {reading.confidence:5.0%} {reading.latency_ms:5.1f} ms"


def summary(readings: Iterable[Reading]) -> str:
    every = list(readings)
    median = statistics.median(reading.latency_ms for reading in every)
    return f"{sum(reading.right for reading in every)} of {len(every)} right, median latency {median:.1f} ms"


def label(name: str, reading: Reading) -> str:
    verdict = "right" if reading.right else "WRONG"
    return f"{name}: {reading.recognised}, {reading.confidence:.0%}, {verdict}"


if __name__ == "__main__":
    sys.exit(main())
