"""What a model's outputs say of a picture: classes with scores, things that were detected, or just numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from acap_runtime.answers.detections import Detection, detections_in
from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.contract.example_inputs import dequantised


@dataclass(frozen=True, slots=True)
class Classes:
    """The best classes of an output that has a score for each of `count`, the best first: their numbers and scores."""

    output: str
    count: int
    best: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What an output holds of which nothing more is known; `summary` is empty where it holds nothing."""

    output: str
    dtype: str
    shape: Sequence[int]
    summary: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Interpretation:
    """`detections` is None for a model that detects nothing; of one that does, they are all that there is."""

    detections: Sequence[Detection] | None = None
    outputs: Sequence[Classes | Numbers] = field(default_factory=tuple)


def interpret(
    specs: Sequence[TensorSpec], outputs: Mapping[str, Array], *, top: int, threshold: float
) -> Interpretation:
    """What outputs say, in real numbers where the model says what its integers stand for.

    Of classes it has the `top` best, of detections those whose score is at least `threshold`.
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
