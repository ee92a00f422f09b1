"""A chip that writes down every run: the first byte of its input, into a file beside the model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

_MODULE = """
import time
import acap_runtime as acap
import numpy as np

class CountingModel(acap.Model):
    inputs = outputs = (acap.TensorSpec("data", np.dtype("uint8"), (-1,)),)

    def __init__(self, path):
        self.runs = path.with_suffix(".runs")

    def run(self, inputs):
        with self.runs.open("ab", buffering=0) as file:
            file.write(inputs["data"][:1].tobytes())
        time.sleep(0.3)
        return {"data": inputs["data"].copy()}

    def close(self):
        pass

class CountingBackend(acap.InferenceBackend):
    chip_id, name = None, "counting"

    def probe(self):
        pass

    def load(self, path, options):
        return CountingModel(path)

@acap.hookimpl
def acap_runtime_backends():
    return [CountingBackend()]
"""


def install(folder: Path) -> None:
    """Make a distribution of it, for a server that has the folder in its PYTHONPATH."""
    info = folder / "acap_test_counting-1.dist-info"
    info.mkdir(parents=True)
    (folder / "acap_test_counting.py").write_text(_MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acap-test-counting\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[acap_runtime]\ncounting = acap_test_counting\n")


def start(start_server: Callable[..., Any], folder: Path, options: str = "", *arguments: object) -> tuple[Any, str]:
    """Start a server with the chip and a model of the given options, called ``counted``; gives the server, and the file
    whose runs `runs_of` tells.
    """
    install(folder / "plugins")
    model = folder / "counted"
    model.touch()
    words = ("-j", "counting", "-m", f"counted={model}{options}", *arguments)
    return start_server(*words, environment={"PYTHONPATH": str(folder / "plugins")}), str(model)


def runs_of(model: str) -> list[int]:
    """The first byte of each run of a model's file."""
    path = Path(model).with_suffix(".runs")
    return list(path.read_bytes()) if path.exists() else []
