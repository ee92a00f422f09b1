"""Arrays of a tensor's specification: zeros to try a model with, and what integers stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acap_runtime.contract.backend import Array, TensorSpec


def zeros(specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """An array of zeros for each input, dimensions that are open being 1."""
    return {spec.name: np.zeros(closed(spec), spec.dtype) for spec in specs}


def closed(spec: TensorSpec) -> tuple[int, ...]:
    """A tensor's shape with 1 for each dimension that is open."""
    return tuple(1 if size == -1 else size for size in spec.shape)


def dequantised(array: Array, spec: TensorSpec) -> Array:
    """A tensor in real numbers, of 64 bits."""
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
