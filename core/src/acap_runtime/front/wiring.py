"""Makes the parts of a server and connects them, as the settings say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc.aio

from acap_runtime.chips.converters import ConverterChoice
from acap_runtime.chips.supervisor import Worker, WorkerLimits
from acap_runtime.chips.workers import Workers
from acap_runtime.errors import InvalidRequest, redacted
from acap_runtime.link.restarts import RestartPolicy
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.inference import Inference
from acap_runtime.models.readiness import unready
from acap_runtime.models.versions import ModelDefaults
from acap_runtime.plugins.installed import InstalledChip, Plugins, chosen_chips
from acap_runtime.services.health import HealthService
from acap_runtime.services.inference_v2 import InferenceV2Service
from acap_runtime.services.model import ModelService, ReloadRights
from acap_runtime.services.parameter import ParameterService
from acap_runtime.services.prediction import PredictionService
from acap_runtime.services.reflection import REFLECTIONS, ReflectionService
from acap_runtime.services.rpc import Service, handlers
from acap_runtime.services.runtime import RuntimeService
from acap_runtime.services.video_capture import VideoCaptureService
from acap_runtime.settings.options import Settings
from acap_runtime.stores import Store
from acap_runtime.video.camera_process import CameraWorker
from acap_runtime.video.streams import Streams
from acap_runtime.wire.client_regions import ClientRegions
from acap_runtime.wire.tensors import TensorReader
from acap_runtime.wire.v2_tensors import V2Reader

_LOG = logging.getLogger(__name__)
_FRAMING_NBYTES: Final = 1 << 20
"""Bytes that HTTP/2 and protobuf may add to a tensor of the largest size."""


@dataclass(frozen=True)
class Parts:
    """The parts of a server that outlive a call."""

    workers: Workers
    catalogue: Catalogue
    converters: ConverterChoice
    streams: Streams
    store: Store | None
    changed: asyncio.Event
    """Set when a chip or a model comes or goes."""
    started: asyncio.Event
    """Set once the chip and the models that the server was started with are up."""
    fault: asyncio.Future[None]
    """Raises the unexpected error that ended the supervision of a chip; never done otherwise."""


async def make_parts(settings: Settings, plugins: Plugins, store: Store | None) -> Parts:
    """Make the parts, and find the models on disk. No process is started yet."""
    changed, started = asyncio.Event(), asyncio.Event()
    fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    chip, named_converter = chosen_chips(settings.chips, plugins)
    candidates = (named_converter,) if named_converter else plugins.converters()
    converters = ConverterChoice(candidates, required=named_converter is not None)
    workers = _make_workers(settings, plugins, chip, changed, fault)
    catalogue = _make_catalogue(settings, chip, workers, changed)
    await catalogue.find()
    streams = _make_streams(settings, plugins)
    return Parts(workers, catalogue, converters, streams, store, changed, started, fault)


def _make_workers(
    settings: Settings,
    plugins: Plugins,
    chip: InstalledChip | None,
    changed: asyncio.Event,
    fault: asyncio.Future[None],
) -> Workers:
    limits = WorkerLimits(settings.run_timeout_s, settings.load_timeout_s)

    def report(error: BaseException) -> None:
        if not fault.done():
            fault.set_exception(error)

    def make(chip: InstalledChip) -> Worker:
        return Worker(
            chip, limits, RestartPolicy(), verbose=settings.verbose, when_changed=changed.set, when_broken=report
        )

    return Workers(chip, plugins.select, make)


def _make_catalogue(
    settings: Settings, chip: InstalledChip | None, workers: Workers, changed: asyncio.Event
) -> Catalogue:
    if settings.model_dir and not chip:
        _LOG.warning("--model-dir: without a chip (-j) nothing in it is loaded")
    return Catalogue(
        workers,
        models=settings.models,
        folder=settings.model_dir if chip else None,
        defaults=_model_defaults(settings, chip),
        on_demand=0 if settings.port else settings.on_demand_models,
        when_changed=changed.set,
    )


def _model_defaults(settings: Settings, chip: InstalledChip | None) -> ModelDefaults:
    if settings.threads is not None and chip is not None and "threads" not in chip.backend.options:
        raise InvalidRequest(f"--threads: {chip} has no such option")
    options = {} if settings.threads is None else {"threads": str(settings.threads)}
    return ModelDefaults(settings.instances, settings.queue, options)


def _make_streams(settings: Settings, plugins: Plugins) -> Streams:
    cameras = [plugins.camera(camera.name, camera.source) for camera in settings.cameras] or plugins.own_cameras()
    workers = [CameraWorker(camera, kept_frames=settings.kept_frames, verbose=settings.verbose) for camera in cameras]
    for number, camera in enumerate(cameras, 1):
        _LOG.info("camera %d: %s, %s; opened when a client wants it", number, camera.name, redacted(camera.source))
    return Streams(
        workers,
        named=bool(settings.cameras),
        limit=settings.max_streams,
        lease_s=settings.stream_lease_s,
        kept_frames=settings.kept_frames,
    )


def make_services(settings: Settings, parts: Parts) -> tuple[list[Service], HealthService]:
    """Make all services but reflection. The last one, which is also returned by itself, reports the server's health."""
    reason = partial(unready, parts.workers, parts.catalogue)
    running_models = _make_inference_services(settings, parts, reason)
    others: list[Service] = [
        ModelService(parts.catalogue, _reload_rights(settings), settings.models, parts.started),
        VideoCaptureService(parts.streams, settings.max_message_nbytes),
        ParameterService(parts.store),
        RuntimeService(parts.workers, parts.catalogue, parts.streams, reason),
    ]
    health = HealthService(
        parts.catalogue,
        reason,
        inference=[service.name for service in running_models],
        others=[service.name for service in others] + [HealthService.name, *REFLECTIONS],
    )
    return [*running_models, *others, health], health


def _make_inference_services(settings: Settings, parts: Parts, reason: Callable[[], str]) -> list[Service]:
    # Clients on the unix socket may use shared memory and control models. Over TCP they are strangers.
    local = not settings.port
    limit = settings.max_message_nbytes
    inference = Inference(parts.catalogue, parts.converters, parts.streams)
    return [
        PredictionService(parts.catalogue, inference, TensorReader(limit, shared_memory=local)),
        InferenceV2Service(
            inference,
            parts.catalogue,
            V2Reader(limit, ClientRegions() if local else None),
            reason,
            control=local or settings.model_control,
        ),
    ]


def _reload_rights(settings: Settings) -> ReloadRights:
    if not settings.port:
        return ReloadRights(allowed=True, places=None)
    places = [model.path for model in settings.models] + ([settings.model_dir] if settings.model_dir else [])
    return ReloadRights(settings.model_control, places)


def make_grpc_server(settings: Settings, services: Sequence[Service]) -> grpc.aio.Server:
    """Make a gRPC server of these services, and of reflection for them."""
    limit = settings.max_message_nbytes + _FRAMING_NBYTES
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)])
    names = [*(service.name for service in services), *REFLECTIONS]
    reflection = [ReflectionService(name, names) for name in REFLECTIONS]
    server.add_generic_rpc_handlers(handlers([*services, *reflection]))
    return server
