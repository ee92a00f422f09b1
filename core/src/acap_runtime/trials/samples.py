"""Makes inputs to try a model with: random numbers, or the pictures and arrays of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.contract.conversions import IMAGE_CHANNELS, IMAGE_RANK
from acap_runtime.contract.example_inputs import closed
from acap_runtime.errors import InvalidRequest, NotReady

_PICTURES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SIGN: Final = 128


@dataclass(frozen=True, slots=True)
class Scaling:
    """The conversion of a pixel's level for a model of floating-point numbers: ``(level - mean) / deviation``."""

    mean: float = 0.0
    deviation: float = 255.0


def random_inputs(specs: Sequence[TensorSpec], runs: int, seed: int) -> list[dict[str, Array]]:
    """Return inputs for each run, the same for the same seed. Bytes and quantised integers cover all values, other
    integers, which may be indices, are 0 and 1, and floating-point numbers range from 0 to 1.
    """
    return [
        {spec.name: _random(spec, np.random.default_rng((seed, run, number))) for number, spec in enumerate(specs)}
        for run in range(runs)
    ]


def _random(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = closed(spec)
    if spec.dtype.kind in "fc":
        return generator.random(shape).astype(spec.dtype)
    if spec.dtype.kind == "b" or (spec.dtype.itemsize > 1 and spec.quantisation is None):
        return generator.integers(0, 2, shape).astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    drawn: Array = generator.integers(limits.min, limits.max, shape, spec.dtype.type, endpoint=True)
    return drawn


def inputs_from(folder: Path, specs: Sequence[TensorSpec], scaling: Scaling) -> tuple[list[dict[str, Array]], str]:
    """Return an input for each file of a folder, in the order of their names, and a sentence that describes them.

    Arrays (.npy) are taken unchanged. Pictures are stretched to the input's size. Raises `InvalidRequest` for a model
    that does not take one picture or array, or a file that is neither; `NotReady` without Pillow.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".npy", *_PICTURES})
    except OSError as error:
        raise InvalidRequest(f"--images {folder}: {error.strerror}") from None
    if not paths:
        raise InvalidRequest(f"--images {folder}: expected pictures or .npy files, found none")
    return [input_from(path, specs, scaling) for path in paths], f"{len(paths)} files of {folder}"


def input_from(path: Path, specs: Sequence[TensorSpec], scaling: Scaling) -> dict[str, Array]:
    """Return the input for one file, as `inputs_from` makes it. Raises the same errors."""
    if len(specs) != 1:
        raise InvalidRequest(f"{path}: expected a model with one input, this has {len(specs)}")
    (spec,) = specs
    return {spec.name: _array(path, spec) if path.suffix == ".npy" else _picture(path, spec, scaling)}


def _array(path: Path, spec: TensorSpec) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidRequest(f"{path}: expected an array: {error}") from None
    for candidate in (array, array[None]):
        if candidate.dtype == spec.dtype and spec.accepts(candidate.shape):
            return candidate
    raise InvalidRequest(f"{path}: expected {spec} for input {spec.name!r}, got {array.dtype} {list(array.shape)}")


def _picture(path: Path, spec: TensorSpec, scaling: Scaling) -> Array:
    try:
        from acap_runtime.trials.picture_files import read_picture  # noqa: PLC0415 - what it needs is an extra
    except ModuleNotFoundError as error:
        raise NotReady(
            f"{path}: pictures need {error.name}, which is not installed: pip install 'acap-runtime[images]', or give "
            f"arrays (.npy)"
        ) from None
    shape = spec.shape
    planar = len(shape) == IMAGE_RANK and shape[1] == IMAGE_CHANNELS and shape[3] != IMAGE_CHANNELS
    if len(shape) != IMAGE_RANK or shape[0] not in (1, -1) or (not planar and shape[3] != IMAGE_CHANNELS):
        raise InvalidRequest(
            f"{path}: expected a model that takes a picture, [1, height, width, 3] or [1, 3, height, width], "
            f"this takes {spec}; give arrays (.npy)"
        )
    height, width = shape[2:] if planar else shape[1:3]
    if min(height, width) < 1:
        raise InvalidRequest(f"{path}: expected a model for pictures of one size, this takes {spec}")
    pixels = read_picture(path, width, height)
    ordered = np.moveaxis(pixels, 2, 0) if planar else pixels
    return _as_input(path, np.ascontiguousarray(ordered)[None], spec, scaling)


def _as_input(path: Path, pixels: Array, spec: TensorSpec, scaling: Scaling) -> Array:
    if spec.dtype == np.uint8:
        return pixels
    if spec.dtype == np.int8:
        return (pixels.astype(np.int16) - _SIGN).astype(np.int8)
    if spec.dtype.kind == "f":
        return ((pixels - scaling.mean) / scaling.deviation).astype(spec.dtype)
    raise InvalidRequest(f"{path}: expected an input of uint8, int8 or floating-point numbers, this takes {spec}")
