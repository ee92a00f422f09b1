"""inference.GRPCInferenceService: KServe's Open Inference Protocol, version 2, and the extensions that Triton's clients
use.

The rules are those of github.com/triton-inference-server/server: docs/protocol, and src/grpc for the points that it
leaves open.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version as installed_version
from typing import Any, Final

import grpc.aio

from acap_runtime.errors import AcapError, Forbidden, InvalidRequest, NotFound, TooLate, Unimplemented, quoted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.inference import Inference, Request, Result, check_count
from acap_runtime.models.versions import Version
from acap_runtime.proto import (
    CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse,
    CudaSharedMemoryUnregisterRequest,
    CudaSharedMemoryUnregisterResponse,
    ModelConfigRequest,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStreamInferResponse,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
    SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse,
)
from acap_runtime.services import v2_models
from acap_runtime.services.rpc import Method, unimplemented
from acap_runtime.settings.model_source import HIGHEST_VERSION
from acap_runtime.wire.client_memory import ClientMemory
from acap_runtime.wire.client_regions import Region
from acap_runtime.wire.v2_tensors import V2Reader, add_output, require, value_of

Context = grpc.aio.ServicerContext[Any, Any]

_STREAMED_AT_ONCE: Final = 16
"""The number of requests of one ModelStreamInfer that are answered in parallel and hold memory for their inputs."""

_PARAMETERS: Final = {
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
    "stream_id": ("int64_param", "uint64_param"),
    "triton_enable_empty_final_response": ("bool_param",),
}
"""The request parameters that have a meaning, to Triton or here, and the fields in which they may come."""

_RESERVED: Final = "triton_"
_ENDS_BY_ERROR: Final = "triton_grpc_error"
"""Metadata of a ModelStreamInfer. If it is "true", the first error ends the call with a status."""


class InferenceV2Service:
    """Serves models by the Open Inference Protocol.

    `unready` returns the reason why the server is not ready, if it is not. `control` is True if clients may load and
    unload models.
    """

    name: Final = "inference.GRPCInferenceService"

    def __init__(
        self,
        inference: Inference,
        catalogue: Catalogue,
        reader: V2Reader,
        unready: Callable[[], str],
        *,
        control: bool,
    ) -> None:
        self._inference = inference
        self._unready = unready
        self._catalogue = catalogue
        self._reader = reader
        self._control = control
        self._version_installed = installed_version("acap-runtime")
        self.methods = {
            "ServerLive": Method(ServerLiveRequest, self.server_live),
            "ServerReady": Method(ServerReadyRequest, self.server_ready),
            "ServerMetadata": Method(ServerMetadataRequest, self.server_metadata),
            "ModelReady": Method(ModelReadyRequest, self.model_ready),
            "ModelMetadata": Method(ModelMetadataRequest, self.model_metadata),
            "ModelInfer": Method(ModelInferRequest, self.model_infer),
            "ModelStreamInfer": Method(
                ModelInferRequest, self.model_stream_infer, streams=True, at_once=_STREAMED_AT_ONCE
            ),
            "ModelConfig": Method(ModelConfigRequest, self.model_config),
            "ModelStatistics": Method(ModelStatisticsRequest, self.model_statistics),
            "RepositoryIndex": Method(RepositoryIndexRequest, self.repository_index),
            "RepositoryModelLoad": Method(RepositoryModelLoadRequest, self.repository_model_load),
            "RepositoryModelUnload": Method(RepositoryModelUnloadRequest, self.repository_model_unload),
            "SystemSharedMemoryStatus": Method(SystemSharedMemoryStatusRequest, self.shared_memory_status),
            "SystemSharedMemoryRegister": Method(SystemSharedMemoryRegisterRequest, self.shared_memory_register),
            "SystemSharedMemoryUnregister": Method(SystemSharedMemoryUnregisterRequest, self.shared_memory_unregister),
            "CudaSharedMemoryStatus": Method(CudaSharedMemoryStatusRequest, self.cuda_status),
            "CudaSharedMemoryRegister": unimplemented(
                "this server takes no CUDA memory; register system shared memory"
            ),
            "CudaSharedMemoryUnregister": Method(CudaSharedMemoryUnregisterRequest, self.cuda_unregister),
            "TraceSetting": unimplemented("this server does not trace; ModelStatistics says how long calls take"),
            "LogSettings": unimplemented("logging is set where the server is started (-v)"),
        }

    async def server_live(self, _request: Any, _context: Context) -> Any:
        return ServerLiveResponse(live=True)

    async def server_ready(self, _request: Any, _context: Context) -> Any:
        return ServerReadyResponse(ready=not self._unready())

    async def server_metadata(self, _request: Any, _context: Context) -> Any:
        extensions = ["model_configuration", "parameters", "statistics"]
        if self._control:
            extensions.append("model_repository")
        if self._reader.regions is not None:
            extensions.append("system_shared_memory")
        return ServerMetadataResponse(name="acap-runtime", version=self._version_installed, extensions=extensions)

    async def model_ready(self, request: Any, _context: Context) -> Any:
        """Answer a ModelReadyRequest: ready if a version would be served without a wait. As in Triton, an unknown model
        or version is not ready.
        """
        number = _version(request.version)
        model = self._catalogue.known(request.name)
        served = model.available if model is not None else []
        return ModelReadyResponse(ready=any(number in (None, version.number) for version in served))

    async def model_metadata(self, request: Any, _context: Context) -> Any:
        """Describe a version once it is loaded. Raises `AcapError`."""
        async with self._catalogue.use(request.name, _version(request.version)) as version:
            model = self._catalogue.known(request.name)
            served = [each.number for each in model.available] if model is not None else []
            return v2_models.metadata(request.name, served or [version.number], version)

    async def model_config(self, request: Any, _context: Context) -> Any:
        """Describe the configuration of a version once it is loaded. Raises `AcapError`."""
        async with self._catalogue.use(request.name, _version(request.version)) as version:
            return v2_models.config(request.name, version)

    async def model_statistics(self, request: Any, _context: Context) -> Any:
        """Return the statistics of versions. Raises `NotFound` for an unknown model or version."""
        number = _version(request.version)
        if not request.name:
            models = [*self._catalogue.models, *self._catalogue.files]
        else:
            models = [self._catalogue.named(request.name)]
        named: list[tuple[str, Version]] = []
        for model in models:
            versions = [model.pick(number, "")] if number is not None and request.name else model.versions.values()
            named += [(model.name, version) for version in versions if not version.retired]
        return v2_models.statistics(named)

    async def model_infer(self, request: Any, context: Context) -> Any:
        """Answer a ModelInferRequest with a ModelInferResponse. Raises `AcapError`."""
        response = ModelInferResponse()
        await self._infer(request, context, response)
        return response

    async def model_stream_infer(self, request: Any, context: Context) -> Any:
        """Answer one ModelInferRequest of a stream. A request that fails does not end the stream, unless the client
        asked for that.

        Raises `AcapError` if the client did.
        """
        response = ModelStreamInferResponse()
        answer = response.infer_response
        try:
            await self._infer(request, context, answer)
        except AcapError as error:
            if dict(context.invocation_metadata() or ()).get(_ENDS_BY_ERROR) == "true":
                raise
            answer.Clear()
            answer.id, answer.model_name, answer.model_version = request.id, request.model_name, request.model_version
            response.error_message = str(error)
        answer.parameters["triton_final_response"].bool_param = True
        return response

    async def _infer(self, request: Any, context: Context, response: Any) -> None:
        """Run a model for a ModelInferRequest and fill in the ModelInferResponse. Raises `AcapError`."""
        parameters = _parameters(request.parameters)
        check_count("inputs", len(request.inputs))
        check_count("outputs", len(request.outputs))
        regions = self._shared_outputs(request.outputs)
        for name, region in regions.items():
            _open_output(name, region).close()  # an output that cannot be written is not worth a run
        result = await self._run(request, parameters, context.time_remaining())
        response.id, response.model_name = request.id, request.model_name
        response.model_version = str(result.version.number)
        if result.frame:
            response.parameters["frame_reference"].int64_param = result.frame
        for output in result.answer.outputs:
            content = output.content
            if output.name in regions:
                with contextlib.closing(_open_output(output.name, regions[output.name])) as memory:
                    memory.store(content)
                content = b""
            add_output(response, output.name, output.dtype, output.shape, content)

    async def _run(self, request: Any, parameters: Mapping[str, Any], remaining_s: float | None) -> Result:
        timeout_s = parameters.get("timeout", 0) / v2_models.US_PER_S or None
        if timeout_s is not None:
            remaining_s = timeout_s if remaining_s is None else min(timeout_s, remaining_s)
        call = Request(
            request.model_name,
            _version(request.model_version),
            "",
            self._reader.read(request),
            [wanted.name for wanted in request.outputs],
            "outputs",
            parameters.get("stream_id", 0),
            remaining_s,
        )
        try:
            async with asyncio.timeout(timeout_s) as limit:
                return await self._inference.run(call)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TooLate(
                f"the request's timeout of {parameters['timeout']} µs passed before it was answered"
            ) from None

    async def repository_index(self, request: Any, _context: Context) -> Any:
        _check_repository(request.repository_name)
        return v2_models.index(self._catalogue.models, ready=request.ready)

    async def repository_model_load(self, request: Any, _context: Context) -> Any:
        """Load a model, or the parts of it that are new on disk, and wait until it is served. Raises `AcapError`."""
        self._check_control(request)
        if request.parameters:
            raise Unimplemented(
                f"parameters: expected none, got {', '.join(map(quoted, sorted(request.parameters)))}; files and "
                f"options of models are those that the server was started with"
            )
        await self._catalogue.load(request.model_name)
        return RepositoryModelLoadResponse()

    async def repository_model_unload(self, request: Any, _context: Context) -> Any:
        """Unload a model when its calls have ended. Raises `AcapError`."""
        self._check_control(request)
        for name, parameter in request.parameters.items():
            # No model depends on another model here.
            if name != "unload_dependents":
                raise InvalidRequest(f"parameters: expected unload_dependents, got {quoted(name)}")
            value_of("unload", name, parameter, ("bool_param",))
        await self._catalogue.unload(request.model_name)
        return RepositoryModelUnloadResponse()

    async def shared_memory_status(self, request: Any, _context: Context) -> Any:
        """Return the region of a name, or all; none if shared memory is not served. Raises `NotFound`."""
        regions: Mapping[str, Region] = self._reader.regions.regions if self._reader.regions is not None else {}
        if request.name:
            if request.name not in regions:
                raise NotFound(f"shared memory region {quoted(request.name)} is not registered")
            regions = {request.name: regions[request.name]}
        response = SystemSharedMemoryStatusResponse()
        for name, region in regions.items():
            known = response.regions[name]
            known.name, known.key, known.offset, known.byte_size = name, region.key, region.offset, region.nbytes
        return response

    async def shared_memory_register(self, request: Any, _context: Context) -> Any:
        """Register a region. Raises `NotReady` if shared memory is not served, and the errors of
        `ClientRegions.register`.
        """
        region = Region(request.key, request.offset, request.byte_size)
        require(self._reader.regions).register(request.name, region)
        return SystemSharedMemoryRegisterResponse()

    async def shared_memory_unregister(self, request: Any, _context: Context) -> Any:
        """Remove a region, or all. If there is none, this is not an error, as in Triton, whose clients begin with this
        call.
        """
        if self._reader.regions is not None:
            self._reader.regions.unregister(request.name)
        return SystemSharedMemoryUnregisterResponse()

    async def cuda_status(self, request: Any, _context: Context) -> Any:
        if request.name:
            raise NotFound(f"CUDA memory region {quoted(request.name)} is not registered: this server takes none")
        return CudaSharedMemoryStatusResponse()

    async def cuda_unregister(self, _request: Any, _context: Context) -> Any:
        """Do nothing: there are no regions to remove. As in Triton without a GPU, this is not an error."""
        return CudaSharedMemoryUnregisterResponse()

    def _shared_outputs(self, wanted: Iterable[Any]) -> dict[str, Region]:
        """Return the regions in which clients want outputs, by the outputs' names. Raises `AcapError`."""
        regions = {}
        for output in wanted:
            if not output.parameters:
                continue
            label = f"output {quoted(output.name)}"
            if "classification" in output.parameters:
                raise Unimplemented(f"{label}: this server does not sort classes; ask for the output itself")
            if (region := self._reader.shared_part(label, output.parameters)) is not None:
                regions[output.name] = region
        return regions

    def _check_control(self, request: Any) -> None:
        _check_repository(request.repository_name)
        if not self._control:
            raise Forbidden(
                "models are loaded and unloaded on the unix socket; over TCP the server allows it with --model-control"
            )


def _open_output(name: str, region: Region) -> ClientMemory:
    return region.open(f"output {quoted(name)}", writable=True)


def _check_repository(name: str) -> None:
    if name:
        raise Unimplemented(f"repository_name: expected none, as there is one repository, got {quoted(name)}")


def _version(text: str) -> int | None:
    """Return the number of a version; None for the server's choice. Raises `InvalidRequest`."""
    if not text:
        return None
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or int(text) > HIGHEST_VERSION:
        raise InvalidRequest(f"version: expected a number from 0 to {HIGHEST_VERSION}, or nothing, got {quoted(text)}")
    return int(text)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request parameters that have a meaning. Raises `InvalidRequest` for a value that is invalid.

    Other parameters are meant for models. No model here takes any, so they are ignored, except those with the prefix
    that Triton reserves.
    """
    values: dict[str, Any] = {}
    if not given:
        return values
    for name, parameter in given.items():
        if name in _PARAMETERS:
            values[name] = value_of("request", name, parameter, _PARAMETERS[name])
        elif name.startswith(_RESERVED):
            known = ", ".join(each for each in _PARAMETERS if each.startswith(_RESERVED))
            raise InvalidRequest(
                f"parameters: of names that start with {_RESERVED}, expected {known}, got {quoted(name)}"
            )
    for name in ("timeout", "priority", "stream_id"):
        if values.get(name, 0) < 0:
            raise InvalidRequest(f"parameter {name}: expected 0 or more, got {values[name]}")
    return values
