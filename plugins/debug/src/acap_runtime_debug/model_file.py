"""Model files of the debug chip: TOML text that describes the inputs and the model's misbehaviour."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import acap_runtime as acap
import numpy as np

from acap_runtime_debug.knobs import KNOBS, read_knobs

LARGEST_FILE: Final = 64 * 1024
LARGEST_DIMENSION: Final = 2**31 - 1
DTYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
DEFAULT_INPUTS: Final = ({"name": "data"},)


def read_model_file(path: Path) -> tuple[tuple[acap.TensorSpec, ...], dict[str, Any]]:
    """Read a model's inputs and knobs. An empty file is a model with one input, uint8 `data` of any length."""
    content = _parse(path)
    tables = content.pop("inputs", DEFAULT_INPUTS)
    if unknown := sorted(content.keys() - KNOBS):
        raise acap.InvalidRequest(f"{path}: expected inputs, {', '.join(KNOBS)}; got {unknown!r:.80}")
    return _read_inputs(path, tables), read_knobs(content)


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise acap.InvalidRequest(f"{path}: expected a TOML file: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise acap.InvalidRequest(f"{path}: expected a TOML text of at most {LARGEST_FILE} bytes, got more")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise acap.InvalidRequest(f"{path}: expected a TOML text in UTF-8: {error}") from error


def _read_inputs(path: Path, tables: object) -> tuple[acap.TensorSpec, ...]:
    if not isinstance(tables, list | tuple) or not tables:
        raise acap.InvalidRequest(f"{path}: inputs: expected a list of at least one table, got {tables!r:.80}")
    specs = tuple(_read_input(path, table) for table in tables)
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise acap.InvalidRequest(f"{path}: inputs: expected different names, got {names!r:.80}")
    return specs


def _read_input(path: Path, table: object) -> acap.TensorSpec:
    if not isinstance(table, dict) or not table.keys() <= {"name", "dtype", "shape"}:
        raise acap.InvalidRequest(f"{path}: inputs: expected a table of name, dtype, shape; got {table!r:.80}")
    name, dtype, shape = table.get("name"), table.get("dtype", "uint8"), table.get("shape", [-1])
    if not isinstance(name, str) or not name:
        raise acap.InvalidRequest(f"{path}: inputs: name: expected a text that is not empty, got {name!r:.80}")
    if dtype not in DTYPES:
        raise acap.InvalidRequest(f"{path}: input {name!r:.80}: dtype: expected {', '.join(DTYPES)}; got {dtype!r:.80}")
    if not isinstance(shape, list) or not all(_is_dimension(size) for size in shape):
        raise acap.InvalidRequest(
            f"{path}: input {name!r:.80}: shape: expected a list of -1 or sizes up to {LARGEST_DIMENSION}, "
            f"got {shape!r:.80}"
        )
    return acap.TensorSpec(name, np.dtype(dtype), tuple(shape))


def _is_dimension(size: object) -> bool:
    return type(size) is int and -1 <= size <= LARGEST_DIMENSION
