"""LiteRT's compiler for the GPU."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import acap_runtime as acap


def compile_for_gpu(content: bytes, *, allow_cpu: bool = False, exact: bool = False) -> Any:  # LiteRT has no types
    """Compile a model. Raises `NotReady` if LiteRT cannot be used, `RuntimeError` if it fails.

    Without `allow_cpu`, LiteRT itself refuses models that the GPU cannot run.
    """
    litert = _litert()
    accelerators = litert.HardwareAccelerator.GPU
    if allow_cpu:
        accelerators |= litert.HardwareAccelerator.CPU
    options = litert.Options(
        hardware_accelerators=accelerators,
        cpu_options=litert.CpuOptions(num_threads=1),
        gpu_options=litert.GpuOptions(enforce_f32=exact),
    )
    return litert.CompiledModel.from_buffer(content, options=options, environment=_environment())


def _litert() -> Any:
    try:
        return import_module("ai_edge_litert.compiled_model")
    except ImportError as error:
        raise acap.NotReady(
            f"LiteRT cannot be used here: {error}: pip install 'ai-edge-litert>=2.3' (64-bit x86 and ARM)"
        ) from error


@cache
def _environment() -> Any:
    # One per process: it holds the connection to the driver, which takes a second to open.
    return _litert().Environment.create()
