"""Drives the Edge TPU with libedgetpu, as a delegate of the TensorFlow Lite runtime.

Only code that runs beside the chip imports this.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import acap_runtime as acap
from acap_runtime_tflite_cpu.model import TfliteModel
from acap_runtime_tflite_cpu.model_file import read_model_file
from acap_runtime_tflite_cpu.runtime import find_interpreter, reason

LIBRARY: Final = "libedgetpu.so.1"
LIBRARY_VARIABLE: Final = "ACAPRUNTIME_LIBEDGETPU"
"""Names another file, or another name for the dynamic linker. It is not a load option, because then any client that may
load a model could run any file as code."""

OPERATOR: Final = "edgetpu-custom-op"
"""The operator that the compiler makes from the part of a model that the Edge TPU runs."""

_ADVICE: Final = (
    "install libedgetpu 1 (package libedgetpu1-std of Coral's apt repository, or a build of "
    "github.com/google-coral/libedgetpu)"
)


def refuse_model_for_cpu(path: Path) -> None:
    """Raise `InvalidRequest` for a TensorFlow Lite model that was not compiled for the Edge TPU.

    larod judges all other files.
    """
    try:
        content = read_model_file(path)
    except acap.InvalidRequest:
        return
    _check_compiled(path, content)


def _check_compiled(path: Path, content: bytes) -> None:
    if OPERATOR.encode() not in content:
        # The delegate would take none of its operators, and the CPU would silently run all of them.
        raise acap.InvalidRequest(
            f"{path}: expected a model compiled for the Edge TPU, got one without {OPERATOR}, which would run on the "
            "CPU: compile it with edgetpu_compiler, or serve it with the CPU, -j 2 (cpu-tflite)"
        )


def open_delegate(options: Mapping[str, str]) -> Any:  # the runtime has no types
    """Open a delegate, which holds an Edge TPU for as long as it lives. Raises `NotReady` with the reason."""
    runtime = import_module(find_interpreter().__module__)
    # The runtime's own class fails in its destructor if it cannot open the library.
    opened = acap.open_library(
        ctypes.CDLL, LIBRARY, advice=_ADVICE, variable=LIBRARY_VARIABLE, functions=["tflite_plugin_create_delegate"]
    )
    library = opened._name  # noqa: SLF001 - ctypes documents it: what was opened
    try:
        return runtime.load_delegate(library, dict(options))
    except ValueError as error:
        device = options.get("device")
        raise acap.NotReady(
            f"{library} opens {f'no Edge TPU {device!r}' if device else 'no Edge TPU'} and gives no reason: is one "
            "plugged in (lsusb shows 1a6e:089a or 18d1:9302, PCIe has /dev/apex_0), may this user open it, and does no "
            "other process hold it?"
        ) from error


def load_on_edgetpu(path: Path, options: Mapping[str, str]) -> acap.Model:
    """Load a compiled model. Raises `NotReady` if there is no Edge TPU for it, and `InvalidRequest` as `load` does.

    Each model has its own delegate. libedgetpu shares the device among the delegates of one process.
    """
    content = read_model_file(path)
    _check_compiled(path, content)
    interpreter_type = find_interpreter()
    delegate = open_delegate(options)
    try:
        interpreter = interpreter_type(model_content=content, experimental_delegates=[delegate])
        interpreter.allocate_tensors()
        return TfliteModel(interpreter)
    except (RuntimeError, ValueError) as error:
        raise acap.InvalidRequest(f"{path}: {_explained(reason(error))}") from error


def _explained(said: str) -> str:
    if OPERATOR in said:
        return (
            f"the Edge TPU did not take the model: it is damaged, or compiled for a newer libedgetpu than this one: "
            f"compile it with edgetpu_compiler --min_runtime_version, or install a newer libedgetpu ({said})"
        )
    return f"expected a TensorFlow Lite model compiled for the Edge TPU: {said}"
