"""Measures the chip's own rate on video frames: libyuv and the interpreter in one thread, without any server."""

from __future__ import annotations

import dataclasses
import itertools
import os
from functools import cache
from pathlib import Path
from typing import Any

import acap_runtime as acap
import numpy as np
from acap_runtime.link.malloc import keep_large_buffers
from acap_runtime_libyuv import LibyuvBackend
from commands import answer_commands
from interpreter import LockedInterpreter
from timing import measure


def main() -> None:
    keep_large_buffers()
    answer_commands(_run)


_interpreter = cache(LockedInterpreter)


def _run(command: dict[str, Any]) -> dict[str, Any]:
    model = _interpreter(Path(command["model"]))
    source = acap.Image("nv12", command["width"], command["height"])
    _, height, width, _ = model.shape
    converter = LibyuvBackend().prepare(acap.Conversion(source, acap.Image("rgb-interleaved", width, height)))
    frames = itertools.cycle(np.fromfile(command["frames"], np.uint8).reshape(-1, *source.shape))

    def call() -> None:
        model.run(converter.run({"input": next(frames)})["output"].tobytes())

    return dataclasses.asdict(measure([call], command["seconds"], [os.getpid()]))


if __name__ == "__main__":
    main()
