"""acapruntime.v1.RuntimeService: reports the state of the server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import grpc.aio

from acap_runtime.chips.supervisor import Worker
from acap_runtime.chips.workers import Workers
from acap_runtime.contract.backend import TensorSpec
from acap_runtime.errors import redacted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.versions import ServedModel, Version
from acap_runtime.proto import GetModelRequest, GetStatusRequest, GetStatusResponse, ModelStatus
from acap_runtime.services.rpc import Method
from acap_runtime.video.camera_process import CameraWorker
from acap_runtime.video.streams import Stream, Streams


class RuntimeService:
    """Reports the state of all parts of the server. Status calls never wait for a chip, a camera or a file."""

    name: Final = "acapruntime.v1.RuntimeService"

    def __init__(self, workers: Workers, catalogue: Catalogue, streams: Streams, unready: Callable[[], str]) -> None:
        self._workers = workers
        self._unready = unready
        self._catalogue = catalogue
        self._streams = streams
        self._started = time.monotonic()
        self._version = version("acap-runtime")
        self.methods = {
            "GetStatus": Method(GetStatusRequest, self.get_status),
            "GetModel": Method(GetModelRequest, self.get_model),
        }

    async def get_status(self, _request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a GetStatusRequest."""
        reason = self._unready()
        server = {
            "version": self._version,
            "pid": os.getpid(),
            "uptime_s": time.monotonic() - self._started,
            "ready": not reason,
            "reason": reason,
        }
        now = time.monotonic()
        return GetStatusResponse(
            server=server,
            workers=map(_worker, self._workers),
            models=[each for model in self._catalogue.models for each in _versions(model)]
            + [each | {"on_demand": True} for model in self._catalogue.files for each in _versions(model)],
            cameras=[
                _camera(number, camera, sum(stream.camera is camera for stream in self._streams))
                for number, camera in enumerate(self._streams.cameras, 1)
            ],
            streams=[_stream(stream, self._streams.lease_s, now) for stream in self._streams],
        )

    async def get_model(self, request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a GetModelRequest once the model is loaded. Raises `AcapError`."""
        async with self._catalogue.use(request.name) as version:
            known = (*self._catalogue.models, *self._catalogue.files)
            # The model may have been removed while it was loaded.
            model = next((each for each in known if version in each.versions.values()), ServedModel(version.source))
            return ModelStatus(**_version(model, version))


def _worker(worker: Worker) -> dict[str, Any]:
    backend, plugin = worker.chip.backend, worker.chip.plugin
    return {
        "chip_id": backend.chip_id,
        "name": backend.name,
        "plugin": plugin.distribution,
        "plugin_version": plugin.version,
        "state": worker.state,
        "pid": worker.pid or 0,
        "uptime_s": None if worker.started_at is None else max(0.0, time.time() - worker.started_at),
        "restarts": worker.restarts,
        "last_error": worker.last_end,
    }


def _versions(model: ServedModel) -> list[dict[str, Any]]:
    if not model.versions:
        problem = "" if model.problem is None else str(model.problem)
        return [{"name": model.name, "path": str(model.source.path), "error": problem, "required": model.required}]
    return [_version(model, each) for _, each in sorted(model.versions.items())]


def _version(model: ServedModel, each: Version) -> dict[str, Any]:
    remote = each.model
    counts = remote.statistics
    ran = counts.ran
    return {
        "name": model.name,
        "version": each.number,
        "labels": sorted(label for label, number in model.source.labels.items() if number == each.number),
        "path": str(each.location if each.file is None else each.file.path),
        "state": int(each.state),
        "error": "" if each.error is None else str(each.error),
        "chip": each.worker.chip.backend.name,
        "instances": remote.instances,
        "required": model.required,
        "waiting_calls": remote.queue.waiting,
        "running_calls": remote.running,
        "queue_limit": remote.queue.limit,
        "calls": {
            "succeeded": counts.succeeded.count,
            "failed": counts.failed.count - counts.refused,
            "refused": counts.refused,
            "mean_run_ms": 1000 * ran.seconds / ran.count if ran.count else None,
        },
        "inputs": map(_tensor, remote.inputs),
        "outputs": map(_tensor, remote.outputs),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    quantisation = spec.quantisation
    packed = None
    if quantisation is not None:
        packed = {"scales": quantisation.scales, "zero_points": quantisation.zero_points, "axis": quantisation.axis}
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": spec.shape, "quantisation": packed}


def _camera(number: int, worker: CameraWorker, streams: int) -> dict[str, Any]:
    camera = worker.camera
    return {
        "number": number,
        "name": camera.name,
        "source": redacted(camera.source),
        "plugin": camera.plugin.distribution,
        "state": worker.state,
        "pid": worker.pid or 0,
        "failures": worker.failures,
        "last_error": redacted(worker.last_error),
        "streams": streams,
    }


def _stream(stream: Stream, lease_s: float, now: float) -> dict[str, Any]:
    return {
        "id": stream.number,
        "camera": stream.camera.camera.name,
        "settings": str(stream.settings),
        "age_s": now - stream.opened,
        "idle_s": 0.0 if stream.users else now - stream.used,
        "lease_s": lease_s,
    }
