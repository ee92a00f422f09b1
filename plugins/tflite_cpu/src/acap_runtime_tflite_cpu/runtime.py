"""Finds the interpreter: LiteRT, or its predecessor on machines without a LiteRT wheel."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from typing import Any, Final

import acap_runtime as acap
import numpy as np

LAST_OF_TFLITE_RUNTIME: Final = (3, 11)
"""The newest Python with tflite-runtime wheels."""


def find_interpreter() -> Any:  # neither runtime has types
    """Return the `Interpreter` class. Raises `NotReady` if no runtime can be used."""
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
            problems.append(f"{package}: {acap.unexpected(error)}")  # installed, but incompatible with another library
    raise acap.NotReady(
        f"no TensorFlow Lite runtime here ({'; '.join(problems)}): {remedy(platform.machine(), sys.version_info[:2])}"
    )


def reason(error: Exception) -> str:
    """Return the runtime's message in one line."""
    return " ".join(str(error).split()) or acap.unexpected(error)


def remedy(machine: str, python: tuple[int, int]) -> str:
    """Return advice for a machine, as `platform.machine` names it, and its Python version."""
    if machine in ("x86_64", "aarch64"):
        return "pip install 'ai-edge-litert>=2.1'"
    if python <= LAST_OF_TFLITE_RUNTIME:
        return "pip install tflite-runtime==2.14.0 'numpy<2'"
    last, here = (".".join(map(str, version)) for version in (LAST_OF_TFLITE_RUNTIME, python))
    return (
        f"on {machine} the last runtime is tflite-runtime 2.14, whose wheels end at Python {last}, and this is {here}; "
        f"run it with Python {last}, as Debian 12 has it"
    )
