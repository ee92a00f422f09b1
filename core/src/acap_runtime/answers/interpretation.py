"""Interprets a model's outputs for a picture: classes with scores, detected objects, or plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from acap_runtime.answers.detections import Detection, detections_in
from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.contract.example_inputs import dequantised


@dataclass(frozen=True, slots=True)
class Classes:
    """The best classes of an output that has a score for each of `count`: their numbers and scores, the best first."""

    output: str
    count: int
    best: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The values of an output about which nothing more is known. `summary` is empty if the output is empty."""

    output: str
    dtype: str
    shape: Sequence[int]
    summary: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Interpretation:
    """The interpretation of a model's outputs. `detections` is None for a model that is not a detection model; for one
    that is, the interpretation has nothing else.
    """

    detections: Sequence[Detection] | None = None
    outputs: Sequence[Classes | Numbers] = field(default_factory=tuple)


def interpret(
    specs: Sequence[TensorSpec], outputs: Mapping[str, Array], *, top: int, threshold: float
) -> Interpretation:
    """Interpret outputs, in real numbers if the model defines the quantisation of its integers.

    The result has the `top` best classes, and the detections whose score is at least `threshold`.
    """
    real = {spec.name: dequantised(outputs[spec.name], spec) for spec in specs}
    found = detections_in(real)
    if found is not None:
        return Interpretation([each for each in found if each.score >= threshold])
    return Interpretation(outputs=[_read(spec.name, outputs[spec.name], real[spec.name], top) for spec in specs])


def _read(name: str, array: Array, real: Array, top: int) -> Classes | Numbers:
    if array.ndim and array.size == array.shape[-1] > 1 and array.dtype.kind != "c":
        scores = real.reshape(-1)
        best = np.argsort(-scores, kind="stable")[:top].tolist()
        return Classes(name, scores.size, [(number, float(scores[number])) for number in best])
    summary = {"min": real.min(), "max": real.max(), "mean": real.mean()} if real.size else {}
    return Numbers(name, str(array.dtype), array.shape, {word: float(value) for word, value in summary.items()})
