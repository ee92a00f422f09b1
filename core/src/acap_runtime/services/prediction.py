"""tensorflow.serving.PredictionService, as the original's and TensorFlow Serving's clients call it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc.aio
import numpy as np

from acap_runtime.backend import Conversion, TensorSpec
from acap_runtime.catalogue import Catalogue
from acap_runtime.converters import ConverterChoice
from acap_runtime.errors import InvalidRequest, NotFound, shown
from acap_runtime.imaging import conversion_for, image_of
from acap_runtime.proto import PredictResponse
from acap_runtime.streams import NewestPicture, Stream, Streams
from acap_runtime.tensors import Tensor, TensorReader, has_data, write_tensor
from acap_runtime.worker.calls import Answer, Input

_LOG = logging.getLogger(__name__)
_NO_DEADLINE_S: Final = 365 * 24 * 3600.0
_LISTED_NAMES: Final = 10
_PICTURE_DTYPE: Final = np.dtype(np.uint8)


class PredictionService:
    """Runs models for clients; `converters` is asked only for images that need a conversion."""

    name: Final = "tensorflow.serving.PredictionService"

    def __init__(
        self, catalogue: Catalogue, reader: TensorReader, converters: ConverterChoice, streams: Streams
    ) -> None:
        self._catalogue = catalogue
        self._streams = streams
        self._reader = reader
        self._converters = converters

    async def predict(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a PredictRequest with a PredictResponse. Raises `AcapError`."""
        started = time.monotonic()
        remaining = context.time_remaining()
        until = started + (_NO_DEADLINE_S if remaining is None else remaining)
        spec = request.model_spec
        _check_version(spec)
        async with contextlib.AsyncExitStack() as held:
            stream = held.enter_context(self._streams.use(request.stream_id)) if request.stream_id else None
            model = await held.enter_async_context(self._catalogue.use(spec.name))
            wanted = _wanted_outputs(model.outputs, request.output_filter)
            given: Mapping[str, Any] = request.inputs
            specs: Sequence[TensorSpec] = model.inputs
            inputs: list[Input] = []
            if stream is not None:
                picture = await stream.newest_picture()
                held.callback(picture.close)
                target, specs, given = _picture_input(specs, given, stream.number)
                inputs.append(await self._fit_picture(target, stream, picture))
            for each, proto in _match_inputs(specs, given):
                tensor = self._reader.read(each.name, proto, each.dtype, each.shape)
                held.callback(tensor.source.close)
                inputs.append(await self._fit(each, tensor))
            answer = await model.run(inputs, wanted, until)
            response = _response(spec, answer)
            if stream is not None and picture.frame is not None:
                response.frame_reference = stream.keep(picture.frame)
        _LOG.debug(
            "predict %s: conversion %.2f ms, run %.2f ms, whole call %.2f ms",
            spec.name,
            answer.conversion_s * 1000,
            answer.run_s * 1000,
            (time.monotonic() - started) * 1000,
        )
        return response

    async def _fit(self, spec: TensorSpec, tensor: Tensor) -> Input:
        """Make of a tensor what the model takes: as it is, with the batch dimension it lacks, or by a conversion."""
        for shape in (tensor.shape, (1, *tensor.shape)):
            if spec.accepts(shape):
                return Input(spec.name, tensor.dtype, shape, tensor.source)
        for shape in (tensor.shape, (1, *tensor.shape)):
            if conversion := conversion_for(spec, tensor.dtype, shape):
                converter = await self._converters.get(conversion)
                return Input(spec.name, tensor.dtype, shape, tensor.source, (converter, conversion))
        image = image_of(spec.dtype, spec.shape)
        raise InvalidRequest(
            f"input {shown(spec.name)}: expected shape {list(spec.shape)}"
            f"{' or an RGB image of another size' if image else ''}, got {list(tensor.shape)}"
        )

    async def _fit_picture(self, spec: TensorSpec, stream: Stream, picture: NewestPicture) -> Input:
        """Make of a stream's picture what the model takes: as it is, or by a conversion."""
        source = stream.settings.picture
        if spec.dtype == _PICTURE_DTYPE and spec.accepts(source.shape):
            return Input(spec.name, spec.dtype, source.shape, picture)
        target = image_of(spec.dtype, spec.shape)
        if target is None:
            raise InvalidRequest(
                f"input {shown(spec.name)}: expected {spec}, which cannot be made of stream {stream.number}, {source}"
            )
        conversion = Conversion(source, target)
        converter = await self._converters.get(conversion)
        return Input(spec.name, spec.dtype, source.shape, picture, (converter, conversion))


def _check_version(spec: Any) -> None:
    if spec.version_label:
        raise NotFound(f"model {shown(spec.name)} has no version label {shown(spec.version_label)}; leave it out")
    if spec.HasField("version") and spec.version.value != 1:
        raise NotFound(f"model {shown(spec.name)} has no version {spec.version.value}; expected 1, or none")


def _match_inputs(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> list[tuple[TensorSpec, Any]]:
    """Pair a model's inputs with a request's: by name, but one with one whatever their names (clients say 'data')."""
    if len(given) != len(specs):
        raise InvalidRequest(
            f"inputs: expected {len(specs)} ({_listed(spec.name for spec in specs)}), got {len(given)}"
        )
    if len(specs) == 1:
        return [(specs[0], proto) for proto in given.values()]
    if unknown := sorted(set(given) - {spec.name for spec in specs}):
        raise InvalidRequest(f"inputs: expected {_listed(spec.name for spec in specs)}, got {_listed(unknown)}")
    return [(spec, given[spec.name]) for spec in specs]


def _picture_input(
    specs: Sequence[TensorSpec], given: Mapping[str, Any], stream: int
) -> tuple[TensorSpec, Sequence[TensorSpec], Mapping[str, Any]]:
    """The input that a stream's picture is for, the other inputs, and what was given for those.

    What comes without data, with a shape only perhaps, counts as not given.
    """
    given = {name: proto for name, proto in given.items() if has_data(proto)}
    left = [spec for spec in specs if spec.name not in given]
    if len(left) != 1 or len(given) != len(specs) - 1:
        names = _listed(spec.name for spec in specs)
        expected = f"no data for {names}" if len(specs) == 1 else f"data for all but one of {names}"
        raise InvalidRequest(
            f"inputs: expected {expected}, since the picture of stream {stream} is the input; got data for "
            f"{_listed(given) or 'none'}"
        )
    return left[0], [spec for spec in specs if spec is not left[0]], given


def _wanted_outputs(specs: Sequence[TensorSpec], wanted: Iterable[str]) -> list[str]:
    names = {spec.name for spec in specs}
    chosen = list(dict.fromkeys(wanted))
    if unknown := [name for name in chosen if name not in names]:
        raise InvalidRequest(f"output_filter: expected names out of {_listed(names)}, got {_listed(unknown)}")
    return chosen


def _listed(names: Iterable[str]) -> str:
    every = [shown(name) for name in names]
    return ", ".join(every[:_LISTED_NAMES]) + (
        f" and {len(every) - _LISTED_NAMES} more" if every[_LISTED_NAMES:] else ""
    )


def _response(spec: Any, answer: Answer) -> Any:
    response = PredictResponse()
    response.model_spec.name = spec.name
    response.model_spec.version.value = 1
    response.model_spec.signature_name = spec.signature_name or "serving_default"
    for output in answer.outputs:
        write_tensor(response.outputs[output.name], output.dtype, output.shape, output.content)
    return response
