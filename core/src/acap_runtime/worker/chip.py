"""A chip in the worker: a thread for each instance of a model.

All instances of a model wait on the model's channel. The kernel's queue is the only queue here. A closed channel
unloads the model.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from acap_runtime.contract.backend import Array, Backend, InferenceBackend, Model, ProcessingBackend, TensorSpec
from acap_runtime.contract.conversions import read_conversion
from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.errors import AcapError, DeviceError, NotReady, TooLate
from acap_runtime.link.malloc import give_back_freed
from acap_runtime.link.messages import Channel, pack_error, pack_spec, unpack_conversion
from acap_runtime.link.segment import Segment, layout
from acap_runtime.plugins.installed import load_plugin

_LOG = logging.getLogger(__name__)
_PREPARED_CONVERSIONS: Final = 8
"""The number of conversions that an instance keeps ready. If a client sends ever new sizes, the oldest is dropped."""


def open_chip(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Channel], None]:
    """Find the chip's backend and probe it. Returns the function that serves a model. Raises any error that the plugin
    raises.
    """
    backend = _find_backend(config["address"], config["name"])
    backend.probe()
    return partial(_serve_model, backend)


def _find_backend(address: str, name: str) -> Backend:
    for backend in load_plugin(address).backends:
        if backend.name == name:
            return backend
    raise NotReady(f"plugin {address} no longer brings chip {name}")


def _serve_model(backend: Backend, message: Mapping[str, Any], channel: Channel) -> None:
    threads: list[threading.Thread] = []
    try:
        model = _start_instances(_loader(backend, message), message["instances"], channel, threads)
        word: dict[str, Any] = {
            side: [pack_spec(spec) for spec in getattr(model, side)] for side in ("inputs", "outputs")
        }
    except BaseException as error:  # noqa: BLE001 - the front is told, whatever a plugin raises
        _log_unexpected("a model could not be loaded", error)
        word = {"error": pack_error(error)}
    try:
        channel.send(word)
    except OSError as error:
        _LOG.debug("the front is gone: %s", error)
    if "error" in word:
        channel.hang_up()
    for thread in threads:
        thread.join()
    channel.close()
    give_back_freed()


def _start_instances(load: Callable[[], Model], count: int, channel: Channel, threads: list[threading.Thread]) -> Model:
    """Load a model `count` times, one after another. Each is loaded in a thread of its own, which then serves it."""
    segments: dict[int, Segment] = {}
    while True:
        outcome: queue.SimpleQueue[Model | BaseException] = queue.SimpleQueue()
        instance = _Instance(load, channel, segments)
        threads.append(threading.Thread(target=instance.live, args=(outcome,), daemon=True))
        threads[-1].start()
        loaded = outcome.get()
        if isinstance(loaded, BaseException):
            raise loaded
        if len(threads) == count:
            return loaded


def _loader(backend: Backend, message: Mapping[str, Any]) -> Callable[[], Model]:
    path = Path(message["path"])
    if isinstance(backend, ProcessingBackend):
        return lambda: backend.prepare(read_conversion(path))
    if isinstance(backend, InferenceBackend):
        return partial(backend.load, path, message["options"])
    raise TypeError(f"chip {backend.name} is neither an inference nor a processing backend")


class _Instance:
    """A model on the chip, and the thread that owns it."""

    def __init__(self, load: Callable[[], Model], channel: Channel, segments: dict[int, Segment]) -> None:
        self._load = load
        self._channel = channel
        self._segments = segments
        self._conversions = _Conversions()

    def live(self, outcome: queue.SimpleQueue[Model | BaseException]) -> None:
        try:
            model = _checked_model(self._load())
        except BaseException as error:  # noqa: BLE001 - any error of a plugin goes to the waiting thread
            outcome.put(error)
            return
        outcome.put(model)
        try:
            while (received := self._channel.receive()) is not None:
                self._answer(model, *received)
        except BaseException as error:  # noqa: BLE001 - the process ends
            # Calls would wait for an instance that no longer exists. A new process is better than a partial one.
            log_unexpected(_LOG, "an instance ends", error)
            os._exit(1)
        for each in (*self._conversions.models(), model):
            _close(each)

    def _answer(self, model: Model, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        for forgotten in message["forget"]:
            self._segments.pop(forgotten, None)
        for number, descriptor in zip(message.get("bring", ()), descriptors, strict=True):
            self._adopt(number, descriptor)
        if "call" not in message:
            return
        try:
            reply, larger = self._run(model, message)
        except BaseException as error:  # noqa: BLE001 - the front is told, whatever a plugin raises
            _log_unexpected("a run failed", error)
            reply, larger = {"error": pack_error(error)}, None
        reply["call"] = message["call"]
        try:
            self._channel.send(reply, *([larger.descriptor] if larger else []))
        except ConnectionError as error:
            _LOG.debug("nobody waits for the answer any more: %s", error)
        if larger is not None:
            self._segments[message["segment"]] = larger
            larger.close_descriptor()

    def _adopt(self, number: int, descriptor: int) -> None:
        # Frames' memory comes with every call, since another instance may have received the call that first brought it.
        if number in self._segments:
            os.close(descriptor)
        else:
            self._segments[number] = Segment.adopt(descriptor)

    def _run(self, model: Model, message: Mapping[str, Any]) -> tuple[dict[str, Any], Segment | None]:
        if time.monotonic() > message["until"]:
            raise TooLate("the deadline passed before the chip was free")
        segment = self._segments[message["segment"]]
        started = time.perf_counter()
        inputs = {}
        for name, dtype, shape, number, offset, conversion in message["inputs"]:
            array: Array = np.ndarray(shape, dtype, self._segments[number].view, offset)
            array.flags.writeable = False
            inputs[name] = self._conversions.convert(name, conversion, array) if conversion else array
        converted = time.perf_counter()
        outputs = _checked_outputs(model.outputs, model.run(inputs), message["outputs"])
        finished = time.perf_counter()
        sizes = [array.nbytes for array in outputs.values()]
        offsets, end = layout(sizes, message["end"])
        larger = None
        if end > segment.size:
            larger = segment = Segment.create(end)
            offsets, _ = layout(sizes)
        for array, offset in zip(outputs.values(), offsets, strict=True):
            np.copyto(np.ndarray(array.shape, array.dtype, segment.view, offset), array)
        reply: dict[str, Any] = {
            "outputs": [
                [name, array.dtype.str, array.shape, offset]
                for (name, array), offset in zip(outputs.items(), offsets, strict=True)
            ],
            "times": [converted - started, finished - converted],
        }
        return reply, larger


class _Conversions:
    """The conversions that an instance keeps ready. The least recently used one is dropped first."""

    def __init__(self) -> None:
        self._backends: dict[tuple[str, str], Backend] = {}
        self._prepared: OrderedDict[str, Model] = OrderedDict()

    def convert(self, name: str, packed: list[Any], image: Array) -> Array:
        # Per input: one input's image must not overwrite another's. The result lives until the conversion's next run.
        key = f"{name} {packed}"
        if key not in self._prepared:
            if len(self._prepared) == _PREPARED_CONVERSIONS:
                _close(self._prepared.popitem(last=False)[1])
            self._prepared[key] = self._prepare(*packed)
        self._prepared.move_to_end(key)
        model = self._prepared[key]
        result = model.run({model.inputs[0].name: image})
        (converted,) = _checked_outputs(model.outputs, result, ()).values()
        return converted

    def _prepare(self, address: str, chip: str, conversion: list[Any]) -> Model:
        if (address, chip) not in self._backends:
            self._backends[address, chip] = _find_backend(address, chip)
        backend = self._backends[address, chip]
        if not isinstance(backend, ProcessingBackend):
            raise TypeError(f"chip {chip} does not convert images")
        return _checked_model(backend.prepare(unpack_conversion(conversion)))

    def models(self) -> Collection[Model]:
        return self._prepared.values()


def _close(model: Model) -> None:
    try:
        model.close()
    except BaseException as error:  # noqa: BLE001 - nobody waits for it, and other models continue
        log_unexpected(_LOG, "a model could not be closed", error)


def _checked_model(model: object) -> Model:
    if not isinstance(model, Model):
        raise DeviceError(f"the plugin returned {model!r}; expected a Model")
    for side in ("inputs", "outputs"):
        specs = getattr(model, side, None)
        if not isinstance(specs, tuple) or not all(isinstance(spec, TensorSpec) for spec in specs):
            raise DeviceError(f"the plugin's model.{side}: expected a tuple of TensorSpec, got {specs!r}")
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise DeviceError(f"the plugin's model.{side}: expected unique names, got {names}")
    return model


def _checked_outputs(specs: Sequence[TensorSpec], result: object, wanted: Collection[str]) -> dict[str, Array]:
    if not isinstance(result, Mapping):
        raise DeviceError(f"the plugin's run returned {type(result).__name__}; expected a mapping of outputs by name")
    outputs = {}
    for spec in specs:
        if wanted and spec.name not in wanted:
            continue
        array = result.get(spec.name)
        if not isinstance(array, np.ndarray):
            raise DeviceError(f"the plugin gave no output {spec.name!r}; it gave {sorted(result)}")
        if array.dtype != spec.dtype or not spec.accepts(array.shape):
            raise DeviceError(
                f"the plugin's output {spec.name!r}: expected {spec}, got {array.dtype} {list(array.shape)}"
            )
        outputs[spec.name] = array
    return outputs


def _log_unexpected(what: str, error: BaseException) -> None:
    if not isinstance(error, AcapError):
        log_unexpected(_LOG, what, error)
