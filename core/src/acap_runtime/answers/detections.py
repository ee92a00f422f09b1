"""The results of detection models: the four outputs of TensorFlow Lite's ``TFLite_Detection_PostProcess``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from acap_runtime.contract.backend import Array

_OUTPUTS: Final = 4
_POST_PROCESS: Final = {"TFLite_Detection_PostProcess:1": "class", "TFLite_Detection_PostProcess:2": "score"}


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in pixels of a picture."""
        left, right = (round(min(max(each, 0.0), 1.0) * width) for each in (self.left, self.right))
        top, bottom = (round(min(max(each, 0.0), 1.0) * height) for each in (self.top, self.bottom))
        return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Detection:
    """A detected object: the number of its class, the model's score for it, and its position."""

    number: int
    score: float
    box: Box


def detections_in(outputs: Mapping[str, Array]) -> list[Detection] | None:
    """Return the detected objects, the highest score first; None for outputs that are not a detection model's.

    A detection model's outputs are boxes (1, N, 4) of top, left, bottom and right, classes and scores (1, N) and a
    count, in any order.
    """
    boxes = [array for array in outputs.values() if array.ndim == 3 and array.shape[::2] == (1, 4)]  # noqa: PLR2004
    counts = [array for array in outputs.values() if array.ndim <= 1 and array.size == 1]
    if len(outputs) != _OUTPUTS or len(boxes) != 1 or len(counts) != 1:
        return None
    shape = boxes[0].shape[:2]
    lists = {name: array for name, array in outputs.items() if array.shape == shape}
    if len(lists) != 2:  # noqa: PLR2004 - classes and scores
        return None
    classes, scores = _told_apart(lists)
    count = int(np.clip(np.nan_to_num(counts[0].reshape(-1)[0]), 0, shape[1]))
    rows = np.column_stack([boxes[0][0], classes[0], scores[0]])[:count].astype(np.float64)
    found = [
        Detection(round(number), score, Box(left, top, right, bottom))
        for top, left, bottom, right, number, score in rows[np.isfinite(rows).all(axis=1)].tolist()
    ]
    return sorted(found, key=lambda each: -each.score)


def _told_apart(lists: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return classes and scores. Their names decide if they are conclusive, otherwise their values."""
    (name, one), (other_name, other) = lists.items()
    words = _word(name), _word(other_name)
    if words[0] == words[1]:
        # Classes are whole numbers. If scores are too, the two cannot be told apart: TensorFlow has classes first.
        words = ("score", "") if _has_fractions(one) and not _has_fractions(other) else ("class", "")
    return (one, other) if words[0] == "class" or words[1] == "score" else (other, one)


def _word(name: str) -> str:
    if name in _POST_PROCESS:
        return _POST_PROCESS[name]
    return next((word for word in ("class", "score") if word in name.lower()), "")


def _has_fractions(array: Array) -> bool:
    return bool((array != np.round(array)).any())
