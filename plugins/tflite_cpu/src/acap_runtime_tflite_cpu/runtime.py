"""Where the interpreter comes from: LiteRT, or its predecessor on machines that LiteRT has no wheel for."""

from __future__ import annotations

import platform
from importlib import import_module
from typing import Any

import acap_runtime as acap
import numpy as np


def find_interpreter() -> Any:  # neither runtime has types
    """Return the `Interpreter` class; raises `NotReady` if no runtime can be used."""
    problems = []
    for package in ("ai_edge_litert", "tflite_runtime"):
        if package == "tflite_runtime" and int(np.__version__.partition(".")[0]) > 1:
            problems.append(f"tflite_runtime needs numpy<2, this is {np.__version__}")
            continue
        try:
            return import_module(f"{package}.interpreter").Interpreter
        except ModuleNotFoundError as error:
            problems.append(f"{package}: {reason(error)}")
        except ImportError as error:
            problems.append(f"{package}: {acap.unexpected(error)}")  # it is there, and does not go with another library
    raise acap.NotReady(f"no TensorFlow Lite runtime here ({'; '.join(problems)}): {_remedy()}")


def reason(error: Exception) -> str:
    """Return what the runtime says, in one line."""
    return " ".join(str(error).split()) or acap.unexpected(error)


def _remedy() -> str:
    if platform.machine() in ("x86_64", "aarch64"):
        return "pip install 'ai-edge-litert>=2.1'"
    return "pip install tflite-runtime==2.14.0 'numpy<2' (with Python 3.11)"
