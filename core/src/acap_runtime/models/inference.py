"""Runs models for clients, whatever protocol they use: fits the given tensors to the model's inputs, and runs it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from acap_runtime.chips.calls import Answer, Input
from acap_runtime.chips.converters import ConverterChoice
from acap_runtime.contract.backend import Conversion, TensorSpec
from acap_runtime.contract.conversions import conversion_for, image_of
from acap_runtime.errors import InvalidRequest, quoted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.versions import Version
from acap_runtime.video.streams import NewestPicture, Stream, Streams
from acap_runtime.wire.tensors import Tensor

_LOG = logging.getLogger(__name__)
NO_DEADLINE_S: Final = 365 * 24 * 3600.0
_MOST_TENSORS: Final = 1000
_LISTED_NAMES: Final = 10
_PICTURE_DTYPE: Final = np.dtype(np.uint8)


class GivenTensor(Protocol):
    """A tensor that a client gave for an input."""

    @property
    def has_data(self) -> bool:
        """True if it has elements, or names shared memory, beside a dtype and a shape."""

    def read(self, name: str, expected: np.dtype[Any], default_shape: tuple[int, ...]) -> Tensor:
        """Read the tensor for an input of this name and dtype. Raises `InvalidRequest` with the name."""


def check_count(what: str, count: int) -> None:
    """Raise `InvalidRequest` for too many tensors, before time is spent on each."""
    if count > _MOST_TENSORS:
        raise InvalidRequest(f"{what}: expected at most {_MOST_TENSORS}, got {count}")


@dataclass(frozen=True, slots=True)
class Request:
    """A client's call: the model, the number or label of a version if one is asked for, and the tensors.

    `wanted` names outputs (none for all), and `wanted_field` is the name of that field in the client's protocol.
    `stream` is the number of the stream whose newest picture is the input (0 for none).
    """

    model: str
    version: int | None
    label: str
    given: Mapping[str, GivenTensor]
    wanted: Sequence[str]
    wanted_field: str
    stream: int
    remaining_s: float | None
    """The time left until the client's deadline, None if it has none."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call. `frame` is the reference to the frame that was the input, 0 for none."""

    version: Version
    answer: Answer
    frame: int = 0


class Inference:
    """Runs models for clients. Asks `converters` only for images that need a conversion."""

    def __init__(self, catalogue: Catalogue, converters: ConverterChoice, streams: Streams) -> None:
        self._catalogue = catalogue
        self._converters = converters
        self._streams = streams

    async def run(self, request: Request) -> Result:
        """Run a model. Raises `AcapError`."""
        started = time.monotonic()
        until = started + (NO_DEADLINE_S if request.remaining_s is None else request.remaining_s)
        async with contextlib.AsyncExitStack() as stack:
            stream = stack.enter_context(self._streams.use(request.stream)) if request.stream else None
            version = await stack.enter_async_context(
                self._catalogue.use(request.model, request.version, request.label)
            )
            model = version.model
            wanted = _wanted_outputs(model.outputs, request.wanted, request.wanted_field)
            given = request.given
            specs: Sequence[TensorSpec] = model.inputs
            inputs: list[Input] = []
            if stream is not None:
                picture = await stream.newest_picture()
                stack.callback(picture.close)
                target, specs, given = _picture_input(specs, given, stream.number)
                inputs.append(await self._fit_picture(target, stream, picture))
            for each, came in _match_inputs(specs, given):
                tensor = came.read(each.name, each.dtype, each.shape)
                stack.callback(tensor.source.close)
                inputs.append(await self._fit(each, tensor))
            answer = await model.run(inputs, wanted, until)
            frame = stream.keep(picture.frame) if stream is not None and picture.frame is not None else 0
        _LOG.debug(
            "model %s: conversion %.2f ms, run %.2f ms, whole call %.2f ms",
            request.model,
            answer.conversion_s * 1000,
            answer.run_s * 1000,
            (time.monotonic() - started) * 1000,
        )
        return Result(version, answer, frame)

    async def _fit(self, spec: TensorSpec, tensor: Tensor) -> Input:
        """Fit a tensor to an input: as it is, with the batch dimension that it lacks, or by a conversion."""
        for shape in (tensor.shape, (1, *tensor.shape)):
            if spec.accepts(shape):
                return Input(spec.name, tensor.dtype, shape, tensor.source)
        for shape in (tensor.shape, (1, *tensor.shape)):
            if conversion := conversion_for(spec, tensor.dtype, shape):
                converter = await self._converters.get(conversion)
                return Input(spec.name, tensor.dtype, shape, tensor.source, (converter, conversion))
        image = image_of(spec.dtype, spec.shape)
        raise InvalidRequest(
            f"input {quoted(spec.name)}: expected shape {list(spec.shape)}"
            f"{' or an RGB image of another size' if image else ''}, got {list(tensor.shape)}"
        )

    async def _fit_picture(self, spec: TensorSpec, stream: Stream, picture: NewestPicture) -> Input:
        """Fit a stream's picture to an input: as it is, or by a conversion."""
        source = stream.settings.picture
        if spec.dtype == _PICTURE_DTYPE and spec.accepts(source.shape):
            return Input(spec.name, spec.dtype, source.shape, picture)
        target = image_of(spec.dtype, spec.shape)
        if target is None:
            raise InvalidRequest(
                f"input {quoted(spec.name)}: expected {spec}, which cannot be made of stream {stream.number}, {source}"
            )
        conversion = Conversion(source, target)
        converter = await self._converters.get(conversion)
        return Input(spec.name, spec.dtype, source.shape, picture, (converter, conversion))


def _match_inputs(
    specs: Sequence[TensorSpec], given: Mapping[str, GivenTensor]
) -> list[tuple[TensorSpec, GivenTensor]]:
    """Pair a model's inputs with a request's, by name. A single input is paired under any name ('data' is usual)."""
    if len(given) != len(specs):
        raise InvalidRequest(
            f"inputs: expected {len(specs)} ({_listed(spec.name for spec in specs)}), got {len(given)}"
        )
    if len(specs) == 1:
        return [(specs[0], came) for came in given.values()]
    if unknown := sorted(set(given) - {spec.name for spec in specs}):
        raise InvalidRequest(f"inputs: expected {_listed(spec.name for spec in specs)}, got {_listed(unknown)}")
    return [(spec, given[spec.name]) for spec in specs]


def _picture_input(
    specs: Sequence[TensorSpec], given: Mapping[str, GivenTensor], stream: int
) -> tuple[TensorSpec, Sequence[TensorSpec], Mapping[str, GivenTensor]]:
    """Return the input that a stream's picture is for, the other inputs, and the tensors given for those.

    A tensor without data counts as not given, even if it has a shape.
    """
    given = {name: came for name, came in given.items() if came.has_data}
    left = [spec for spec in specs if spec.name not in given]
    if len(left) != 1 or len(given) != len(specs) - 1:
        names = _listed(spec.name for spec in specs)
        expected = f"no data for {names}" if len(specs) == 1 else f"data for all but one of {names}"
        raise InvalidRequest(
            f"inputs: expected {expected}, since the picture of stream {stream} is the input; got data for "
            f"{_listed(given) or 'none'}"
        )
    return left[0], [spec for spec in specs if spec is not left[0]], given


def _wanted_outputs(specs: Sequence[TensorSpec], wanted: Iterable[str], field: str) -> list[str]:
    names = [spec.name for spec in specs]
    chosen = list(dict.fromkeys(wanted))
    if unknown := [name for name in chosen if name not in names]:
        raise InvalidRequest(f"{field}: expected names out of {_listed(names)}, got {_listed(unknown)}")
    return chosen


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED_NAMES} more" if every[_LISTED_NAMES:] else ""
    return ", ".join(map(quoted, every[:_LISTED_NAMES])) + more
