"""Arrays made from a tensor's specification: zeros to try a model with, and the real numbers of quantised integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acap_runtime.contract.backend import Array, TensorSpec


def zeros(specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return an array of zeros for each input, with 1 for each open dimension."""
    return {spec.name: np.zeros(closed(spec), spec.dtype) for spec in specs}


def closed(spec: TensorSpec) -> tuple[int, ...]:
    """Return a tensor's shape with 1 for each open dimension."""
    return tuple(1 if size == -1 else size for size in spec.shape)


def dequantised(array: Array, spec: TensorSpec) -> Array:
    """Return a tensor in real numbers, as 64-bit floats."""
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    real: Array = array.astype(np.float64)
    quantisation = spec.quantisation
    if quantisation is None:
        return real
    shape = [1] * real.ndim
    if len(quantisation.scales) > 1:
        shape[quantisation.axis] = -1
    scales, zero_points = (np.array(each) for each in (quantisation.scales, quantisation.zero_points))
    result: Array = (real - zero_points.reshape(shape)) * scales.reshape(shape)
    return result
