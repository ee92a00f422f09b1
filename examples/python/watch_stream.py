#!/usr/bin/env python3
"""Run a model on each newest frame of a camera, and print what it sees. Uses the client library of acap-runtime."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from acap_runtime.client import CallFailed, Frame, Prediction, connect
from PIL import Image


def main() -> int:
    arguments = parse()
    width, height = arguments.size
    try:
        labels = arguments.labels.read_text().splitlines() if arguments.labels else []
        with (
            connect(arguments.address) as client,
            client.stream(
                "rgb-interleaved", width, height, arguments.framerate, timestamps="utc", camera=arguments.camera
            ) as stream,
        ):
            for frame in itertools.islice(stream, arguments.frames):
                # The model runs on the newest frame, which may be a later one by now. Its reference identifies it.
                prediction = client.predict_stream(arguments.model, stream)
                number, score = best(prediction)
                label = labels[number] if number < len(labels) else ""
                print(f"{prediction.reference:6}  {number:5}  {score:7.5g}  {label}".rstrip(), flush=True)
                if arguments.save:
                    seen = frame if frame.reference == prediction.reference else stream.frame(prediction.reference)
                    save(seen, arguments.save / f"{prediction.reference:06}-{number}.png")
    except (CallFailed, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def best(prediction: Prediction) -> tuple[int, float]:
    """Return the likeliest class and its score. Raises `ValueError` if the model is not a classifier."""
    if len(prediction.outputs) != 1:
        raise ValueError(f"expected a classifier with one output, got {sorted(prediction.outputs)}")
    (scores,) = prediction.outputs.values()
    return int(np.argmax(scores)), float(scores.max())


def save(frame: Frame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame.array).save(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name that the server knows, or on its unix socket the absolute path of a file")
    parser.add_argument("--address", default="unix:///tmp/acap-runtime.sock", help="[%(default)s]")
    parser.add_argument("--camera", metavar="NAME|NUMBER", help="the server's first camera by default")
    parser.add_argument("--size", type=size, default=(640, 480), metavar="WxH", help="of the stream [640x480]")
    parser.add_argument("--framerate", type=int, default=10, metavar="N", help="frames per second [%(default)s]")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after so many")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the frames as PNG: REFERENCE-CLASS.png")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
