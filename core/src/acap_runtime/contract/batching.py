"""The settings that make calls for a model run together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Batching:
    """Limits of a batch: at most `size` rows of the first dimension, and at most `delay_s` of waiting for them."""

    size: int = 1
    delay_s: float = 0.0


ALONE: Final = Batching()
