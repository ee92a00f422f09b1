"""The CPU's interpreter, used as its documentation shows. Every server here wraps it."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LockedInterpreter:
    """Runs a model with one input and one output, on one thread with XNNPACK, for one caller at a time."""

    def __init__(self, path: Path) -> None:
        runtime: Any = import_module("ai_edge_litert.interpreter")
        self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (given,) = self._interpreter.get_input_details()
        (wanted,) = self._interpreter.get_output_details()
        self._input, self._output = given["index"], wanted["index"]
        self.shape, self.dtype = tuple(given["shape"]), np.dtype(given["dtype"])
        self.output_name: str = wanted["name"]
        self._lock = threading.Lock()

    def run(self, content: bytes) -> NDArray[np.generic]:
        array = np.frombuffer(content, self.dtype).reshape(self.shape)
        with self._lock:
            self._interpreter.set_tensor(self._input, array)
            self._interpreter.invoke()
            output: NDArray[np.generic] = self._interpreter.get_tensor(self._output)
        return output
