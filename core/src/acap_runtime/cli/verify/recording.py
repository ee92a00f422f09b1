"""Records the inputs and outputs of a model on a chip in a file, to compare another chip with it elsewhere."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from acap_runtime.cli.verify.verification import Outputs
from acap_runtime.contract.backend import Array, Quantisation, TensorSpec
from acap_runtime.errors import InvalidRequest

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """Inputs, and the `Outputs` that they led to. `source` is the origin of the inputs."""

    source: str
    inputs: tuple[Mapping[str, Array], ...]
    outputs: Outputs


def save(path: Path, recording: Recording) -> None:
    """Write an .npz file with arrays ``input-RUN-NUMBER`` and ``output-RUN-NUMBER``, described in ``about``."""
    outputs = recording.outputs
    names = list(recording.inputs[0])
    about = {
        "version": _VERSION,
        "source": recording.source,
        "where": outputs.where,
        "inputs": names,
        "outputs": [_packed(spec) for spec in outputs.specs],
        "runs": len(outputs.runs),
    }
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
    for run, (inputs, answer) in enumerate(zip(recording.inputs, outputs.runs, strict=True)):
        arrays |= {f"input-{run}-{number}": inputs[name] for number, name in enumerate(names)}
        arrays |= {f"output-{run}-{number}": answer[spec.name] for number, spec in enumerate(outputs.specs)}
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise InvalidRequest(f"--record {path}: {error.strerror}") from None


def read(path: Path) -> Recording:
    """Read a file that `save` wrote. Raises `InvalidRequest` for any other file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            if about["version"] != _VERSION:
                raise InvalidRequest(f"{path}: expected a recording of version {_VERSION}, got {about['version']}")
            specs = tuple(_unpacked(*packed) for packed in about["outputs"])
            runs = range(about["runs"])
            inputs = [{name: archive[f"input-{run}-{i}"] for i, name in enumerate(about["inputs"])} for run in runs]
            outputs = [{spec.name: archive[f"output-{run}-{i}"] for i, spec in enumerate(specs)} for run in runs]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidRequest(
            f"--against {path}: expected a file that acapruntime verify --record wrote: {reason}"
        ) from None
    return Recording(about["source"], tuple(inputs), Outputs(f"{about['where']} (recorded)", specs, tuple(outputs)))


def _packed(spec: TensorSpec) -> list[Any]:
    quantisation = spec.quantisation
    real = None if quantisation is None else [quantisation.scales, quantisation.zero_points, quantisation.axis]
    return [spec.name, spec.dtype.str, spec.shape, real]


def _unpacked(name: str, dtype: str, shape: list[int], real: list[Any] | None) -> TensorSpec:
    quantisation = None if real is None else Quantisation(tuple(real[0]), tuple(real[1]), real[2])
    return TensorSpec(name, np.dtype(dtype), tuple(shape), quantisation)
