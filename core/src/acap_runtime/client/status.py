"""Reads a server's messages about its state and its models."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acap_runtime.contract.backend import Quantisation, TensorSpec


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model that a server has loaded: the version that serves calls, and its inputs and outputs in their order."""

    name: str
    version: int
    chip: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def model_description(model: Any) -> ModelDescription:
    """Read a model description from the server's message."""
    inputs, outputs = (tuple(map(_spec, tensors)) for tensors in (model.inputs, model.outputs))
    return ModelDescription(model.name, model.version, model.chip, inputs, outputs)


def _spec(tensor: Any) -> TensorSpec:
    quantisation = None
    if tensor.HasField("quantisation"):
        given = tensor.quantisation
        quantisation = Quantisation(tuple(given.scales), tuple(given.zero_points), given.axis)
    return TensorSpec(tensor.name, np.dtype(tensor.dtype), tuple(tensor.shape), quantisation)


def plain(message: Any) -> dict[str, Any]:
    """Convert a message for JSON: every field by its name, None for an absent field, an enum's value as a word."""
    return {field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields}


def _plain_field(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if isinstance(value, MutableSequence):
        return [plain(each) if field.message_type else each for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type:
        return plain(value)
    return field.enum_type.values_by_number[value].name.lower() if field.enum_type else value
