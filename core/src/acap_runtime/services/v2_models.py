"""Describes models by the Open Inference Protocol, version 2: metadata, configuration, statistics, states.

Triton's docs/protocol (extension_model_configuration.md, extension_statistics.md, extension_model_repository.md) and
model_config.proto define the fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from acap_runtime.chips.statistics import Total
from acap_runtime.contract.backend import TensorSpec
from acap_runtime.contract.conversions import image_of
from acap_runtime.models.versions import ServedModel, State, Version
from acap_runtime.proto import (
    POOL,
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
)
from acap_runtime.settings.model_source import VersionPolicy
from acap_runtime.wire.v2_tensors import datatype_of

_CONFIG_TYPES: Final = POOL.FindEnumTypeByName("inference.DataType").values_by_name
_IMAGE_FORMATS: Final = {"rgb-interleaved": 1, "rgb-planar": 2}
"""FORMAT_NHWC, FORMAT_NCHW."""
_KIND_MODEL: Final = 3
"""The kind of an instance group. The backend determines the device on which it runs."""
_STATES: Final = {State.LOADING: "LOADING", State.AVAILABLE: "READY", State.UNLOADING: "UNLOADING"}
_NS_PER_S: Final = 1e9
US_PER_S: Final = 1e6


def metadata(name: str, versions: Sequence[int], version: Version) -> Any:
    """Return the ModelMetadataResponse for a model that serves `versions`. Its platform is the chip."""
    response = ModelMetadataResponse(name=name, versions=map(str, versions), platform=version.worker.chip.backend.name)
    for specs, tensors in ((version.model.inputs, response.inputs), (version.model.outputs, response.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=datatype_of(spec.name, spec.dtype), shape=spec.shape)
    return response


def config(name: str, version: Version) -> Any:
    """Return the ModelConfigResponse for a version. For a model that batches, dims omit the first dimension."""
    model, source = version.model, version.source
    response = ModelConfigResponse()
    described = response.config
    described.name = name
    described.platform = described.backend = version.worker.chip.backend.name
    described.default_model_filename = model.path.name
    _describe_policy(described.version_policy, source.versions)
    first = 0
    if model.batches:
        first = 1
        described.max_batch_size = model.batching.size
        described.dynamic_batching.max_queue_delay_microseconds = round(model.batching.delay_s * US_PER_S)
        described.dynamic_batching.default_queue_policy.max_queue_size = model.queue.limit
    for spec in model.inputs:
        image = image_of(spec.dtype, spec.shape)
        described.input.add(
            name=spec.name,
            data_type=_config_type(spec),
            dims=spec.shape[first:],
            format=_IMAGE_FORMATS[image.format] if image else 0,
        )
    for spec in model.outputs:
        described.output.add(name=spec.name, data_type=_config_type(spec), dims=spec.shape[first:])
    described.instance_group.add(name=name, count=model.instances, kind=_KIND_MODEL)
    return response


def statistics(named: Sequence[tuple[str, Version]]) -> Any:
    """Return the ModelStatisticsResponse for versions, each by its model's name.

    Triton's compute_input is the time that the chip's worker takes to convert an image. The time to copy outputs is not
    measured separately, so compute_output is 0.
    """
    response = ModelStatisticsResponse()
    for name, version in named:
        known = version.model.statistics
        stats = response.model_stats.add(
            name=name,
            version=str(version.number),
            last_inference=known.last_ms,
            inference_count=known.rows,
            execution_count=known.ran.count,
        )
        _sum_up(stats.inference_stats.success, known.succeeded)
        _sum_up(stats.inference_stats.fail, known.failed)
        _sum_up(stats.inference_stats.queue, known.queued)
        _sum_up(stats.inference_stats.compute_input, known.converted)
        _sum_up(stats.inference_stats.compute_infer, known.ran)
        for rows, total in sorted(known.by_rows.items()):
            _sum_up(stats.batch_stats.add(batch_size=rows).compute_infer, total)
    return response


def index(models: Sequence[ServedModel], *, ready: bool) -> Any:
    """Return the RepositoryIndexResponse: an entry for each version, or only for those that are `ready`."""
    response = RepositoryIndexResponse()
    for model in models:
        for version, state, reason in _states(model):
            if state == "READY" or not ready:
                response.models.add(name=model.name, version=version, state=state, reason=reason)
    return response


def _states(model: ServedModel) -> Iterator[tuple[str, str, str]]:
    """Yield number, state and reason of each version; for a model without versions, the reason why it has none."""
    if not model.versions:
        yield "", "UNAVAILABLE", str(model.problem or "no version was looked for yet")
    for number, version in sorted(model.versions.items()):
        state = _STATES.get(version.state, "UNAVAILABLE")
        reason = str(version.error or "")
        if state == "UNAVAILABLE" and not reason:
            reason = "unloaded" if version.retired else "not loaded yet"
        yield str(number), state, reason


def _describe_policy(message: Any, policy: VersionPolicy) -> None:
    if policy.specific:
        message.specific.versions.extend(sorted(policy.specific))
    elif policy.latest:
        message.latest.num_versions = policy.latest
    else:
        message.all.SetInParent()


def _config_type(spec: TensorSpec) -> int:
    number: int = _CONFIG_TYPES[f"TYPE_{datatype_of(spec.name, spec.dtype)}"].number
    return number


def _sum_up(message: Any, total: Total) -> None:
    message.count, message.ns = total.count, round(total.seconds * _NS_PER_S)
