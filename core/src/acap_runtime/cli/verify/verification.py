"""Measures the differences between the outputs of two chips, and finds outputs that no working chip would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.contract.example_inputs import dequantised
from acap_runtime.errors import InvalidRequest

_FEWEST_CLASSES: Final = 2


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of one chip. `where` names the chip in messages. `runs` has every output of every run."""

    where: str
    specs: tuple[TensorSpec, ...]
    runs: tuple[Mapping[str, Array], ...]

    def spec(self, name: str) -> TensorSpec:
        return next(spec for spec in self.specs if spec.name == name)

    def real(self, name: str) -> list[Array]:
        """Return one output of every run in real numbers; quantised integers are converted."""
        return [dequantised(run[name], self.spec(name)) for run in self.runs]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits within which two chips count as equal. `difference` is in real units; None allows any difference."""

    cosine: float = 0.99
    top1: float = 0.9
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one output of one chip with the reference.

    Differences are of single numbers, over all runs. Cosines are of whole outputs: the mean over the runs, and the
    worst run. `top1` is the share of runs in which both chips have the same best class. It is None for an output that
    is not a list of classes. `problems` lists the limits that are exceeded. It is empty if there are none.
    """

    output: str
    chip: str
    reference: str
    max_difference: float
    mean_difference: float
    cosine: float
    worst_cosine: float
    top1: float | None
    problems: tuple[str, ...]


def compare(reference: Outputs, other: Outputs, limits: Limits) -> list[Comparison]:
    """Compare each output of two chips that had the same inputs.

    Raises `InvalidRequest` if the outputs' names or shapes differ.
    """
    names, others = ([spec.name for spec in each.specs] for each in (reference, other))
    if sorted(names) != sorted(others):
        raise InvalidRequest(
            f"outputs cannot be compared by their names: {reference.where} gives {', '.join(sorted(names))}; "
            f"{other.where} gives {', '.join(sorted(others))}"
        )
    with np.errstate(all="ignore"):  # values that are not finite are found and reported
        return [_compare(name, reference, other, limits) for name in names]


def _compare(name: str, reference: Outputs, other: Outputs, limits: Limits) -> Comparison:
    pairs = list(zip(reference.real(name), other.real(name), strict=True))
    for number, (one, two) in enumerate(pairs):
        if one.shape != two.shape:
            raise InvalidRequest(
                f"output {name!r} of run {number} cannot be compared: {reference.where} gives shape "
                f"{list(one.shape)}, {other.where} {list(two.shape)}"
            )
    distances = np.concatenate([np.abs(one - two).reshape(-1) for one, two in pairs])
    cosines = [_cosine(one, two) for one, two in pairs]
    agreements = [_same_best(one, two) for one, two in pairs if _is_list_of_classes(one)]
    measured = Comparison(
        name,
        other.where,
        reference.where,
        float(distances.max(initial=0.0)),
        float(distances.mean()) if distances.size else 0.0,
        float(np.mean(cosines)),
        float(np.min(cosines)),
        float(np.mean(agreements)) if agreements else None,
        (),
    )
    problems = [
        *(f"{other.where}: {flaw}" for flaw in _own_flaws(name, other, reference)),
        *(f"{reference.where}: {flaw}" for flaw in _own_flaws(name, reference, other)),
        *_missed(measured, limits),
    ]
    return Comparison(**{field: getattr(measured, field) for field in _MEASURES}, problems=tuple(problems))


_MEASURES: Final = tuple(name for name in Comparison.__slots__ if name != "problems")


def _missed(measured: Comparison, limits: Limits) -> list[str]:
    # Written so that NaN is also a miss.
    missed = []
    if not measured.worst_cosine >= limits.cosine:
        missed.append(f"cosine {measured.worst_cosine:.4f} is below {limits.cosine:g}")
    if measured.top1 is not None and not measured.top1 >= limits.top1:
        missed.append(f"top-1 agreement {measured.top1:.2f} is below {limits.top1:g}")
    if limits.difference is not None and not measured.max_difference <= limits.difference:
        missed.append(f"difference {measured.max_difference:.4g} is above {limits.difference:g}")
    return missed


def _own_flaws(name: str, one: Outputs, other: Outputs) -> list[str]:
    """Return the flaws of one chip that the other lacks. An output that is constant on both is due to the model."""
    shared = flaws(other.real(name))
    return [flaw for flaw in flaws(one.real(name)) if flaw not in shared]


def flaws(runs: Sequence[Array]) -> list[str]:
    """Describe everything suspicious in one output's values over all runs."""
    found = []
    if not all(np.isfinite(run).all() for run in runs):
        found.append("gives numbers that are not finite")
    if not any(run.any() for run in runs):
        found.append("gives nothing but zeros")
    elif all(run.size > 1 and (run == run.reshape(-1)[0]).all() for run in runs):
        found.append("gives one number for all elements")
    elif len(runs) > 1 and all(np.array_equal(run, runs[0]) for run in runs[1:]):
        found.append("gives the same whatever the inputs")
    return found


def _cosine(one: Array, two: Array) -> float:
    flat, other = one.reshape(-1), two.reshape(-1)
    lengths = float(np.linalg.norm(flat) * np.linalg.norm(other))
    if lengths == 0.0:
        return 1.0 if not flat.any() and not other.any() else 0.0
    return float(np.dot(flat, other) / lengths)


def _is_list_of_classes(array: Array) -> bool:
    return array.size >= _FEWEST_CLASSES and max(array.shape) == array.size


def _same_best(one: Array, two: Array) -> bool:
    # Quantised scores are often equal, and each chip may rank another of the best classes first.
    flat, other = one.reshape(-1), two.reshape(-1)
    return bool(other[np.argmax(flat)] == other.max() or flat[np.argmax(other)] == flat.max())
