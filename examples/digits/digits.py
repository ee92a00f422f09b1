"""scikit-learn's handwritten digits, in a fixed split: digits to learn from and digits held back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

HELD_BACK = 450  # of 1797


@dataclass(frozen=True)
class Digits:
    """Strokes are float32 [n, 8, 8], from 0 (paper) to 1 (ink); labels are 0 to 9."""

    strokes: NDArray[np.float32]
    labels: NDArray[np.int64]


def split() -> tuple[Digits, Digits]:
    """Return the digits to learn from and the digits held back, always the same ones.

    Neither training nor calibration may use the digits held back.
    """
    data: Any = load_digits()
    strokes = (data.images / 16).astype(np.float32)
    labels = data.target.astype(np.int64)
    learn, held_back = train_test_split(
        np.arange(len(labels)), test_size=HELD_BACK, stratify=labels, shuffle=True, random_state=1797
    )
    return Digits(strokes[learn], labels[learn]), Digits(strokes[held_back], labels[held_back])
