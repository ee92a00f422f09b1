"""tensorflow.serving.ModelService: reports the states of versions, and replaces the set of models."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from acap_runtime.errors import (
    AcapError,
    Busy,
    Forbidden,
    Incomplete,
    InvalidRequest,
    NotFound,
    NotReady,
    Unimplemented,
    quoted,
)
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.shielded_tasks import ShieldedTasks
from acap_runtime.models.versions import ServedModel, Version
from acap_runtime.proto import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from acap_runtime.services.rpc import Method, status_of
from acap_runtime.settings.model_source import LATEST, ModelSource, VersionPolicy

_MOST_MODELS: Final = 10_000
_LONGEST_NAME: Final = 1000
_MOST_RELOADS: Final = 4


@dataclass(frozen=True, slots=True)
class ReloadRights:
    """The rights of clients to replace the set of models. They have none unless `allowed`.

    A model must be one of `places` or lie in one of them. None stands for every place that the server can read.
    """

    allowed: bool
    places: Sequence[Path] | None


class ModelService:
    """Reports the states of versions, and reloads the configuration.

    `given` are the models that the server was started with. A model that was left out and comes back gets its chip and
    its other options again. Nothing is reloaded before `started` is set, since the failure of any model fails the
    start.
    """

    name: Final = "tensorflow.serving.ModelService"

    def __init__(
        self, catalogue: Catalogue, rights: ReloadRights, given: Sequence[ModelSource], started: asyncio.Event
    ) -> None:
        self._catalogue = catalogue
        self._rights = rights
        self._first_given = tuple(given)
        self._started = started
        self._one_at_a_time = asyncio.Lock()
        # Shielded: half a reload would keep the versions that it replaces. A client that gave up can see the result in
        # the log and by GetModelStatus.
        self._reloading = ShieldedTasks()
        self.methods = {
            "GetModelStatus": Method(GetModelStatusRequest, self.get_model_status),
            "HandleReloadConfigRequest": Method(ReloadConfigRequest, self.handle_reload_config_request),
        }

    async def get_model_status(self, request: Any, _context: Any) -> Any:
        """Answer a GetModelStatusRequest with the state of each version, the highest first, or of the requested one.

        Ended versions are listed too. A served version has an error if its newer content could not replace it. Raises
        `NotFound` if there is no such model, version or label.
        """
        spec = request.model_spec
        if not spec.name:
            raise InvalidRequest("model_spec.name: expected the name of a model, got nothing")
        response = GetModelStatusResponse()
        for version in _asked_for(self._catalogue.named(spec.name), spec):
            status = response.model_version_status.add(version=version.number, state=int(version.state))
            _write_status(status.status, _error_of(version))
        return response

    async def handle_reload_config_request(self, request: Any, _context: Any) -> Any:
        """Serve the models of a ReloadConfigRequest instead of the operator's, and answer when they are loaded.

        Raises `Forbidden` if clients may not do this, and `InvalidRequest` or `NotReady` if it cannot be done; in these
        cases, nothing has changed. Raises `Incomplete` if some of the loads failed. Those versions are left out.
        """
        if not self._rights.allowed:
            raise Forbidden("over TCP clients may not change the models, unless the server has --model-control")
        kind = request.config.WhichOneof("config")
        if kind != "model_config_list":
            raise InvalidRequest(f"config: expected a model_config_list, got {kind or 'nothing'}")
        configs = request.config.model_config_list.config
        names = Counter(config.name for config in configs)
        if len(configs) > _MOST_MODELS or any(len(name) > _LONGEST_NAME for name in names):
            raise InvalidRequest(
                f"model_config_list: expected at most {_MOST_MODELS} models with names of at most {_LONGEST_NAME} "
                f"characters, got {len(configs)}, the longest with {max(map(len, names))}"
            )
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise InvalidRequest(f"model_config_list: expected each name once, got {quoted(twice[0])} again")
        if len(self._reloading) >= _MOST_RELOADS:
            raise Busy(f"{len(self._reloading)} reloads are being done or wait already; try again later")
        await self._started.wait()
        await self._reloading.run(self._reload(configs))
        response = ReloadConfigResponse()
        _write_status(response.status, None)
        for name in dict.fromkeys(request.metric_names):
            # This server has none of TensorFlow Serving's counters. TensorFlow Serving gives this answer for unknown
            # ones.
            response.metric.add(name=name, int64_value_increase=0)
        return response

    async def _reload(self, configs: Sequence[Any]) -> None:
        async with self._one_at_a_time:
            known = {source.name: source for source in (*self._first_given, *self._catalogue.given)}
            sources = [_read_config(config, known.get(config.name)) for config in configs]
            names = [source.name for source in sources]
            await asyncio.to_thread(self._check_places, sources)
            for source in sources:
                self._check_labels(source)
            await self._catalogue.configure(sources, required=False)
            for model in map(self._catalogue.model, names):
                if model.unloaded:
                    with contextlib.suppress(AcapError):  # its state shows that, below
                        await self._catalogue.load(model.name)
            failures = [each for name in names for each in _failures(self._catalogue.model(name))]
        if failures:
            raise Incomplete(f"the models are configured, but {len(failures)} failed: {'; '.join(failures)}")

    def _check_places(self, sources: Sequence[ModelSource]) -> None:
        if self._rights.places is None:
            return
        places = [place.resolve() for place in self._rights.places]
        for source in sources:
            # Resolved, so that no link and no .. leads outside.
            path = source.path.resolve()
            if not any(path.is_relative_to(place) for place in places):
                raise Forbidden(
                    f"base_path of model {quoted(source.name)}: over TCP expected the path of a model that the server "
                    f"was given, or one in its --model-dir, got {quoted(source.path)}"
                )

    def _check_labels(self, source: ModelSource) -> None:
        """Raise `NotReady` for a label in use that would move to a version that cannot serve its clients."""
        model = self._catalogue.known(source.name)
        if model is None:
            return
        available = {version.number for version in model.available}
        for label, number in source.labels.items():
            if model.source.labels.get(label, number) != number and number not in available:
                raise NotReady(
                    f"version_labels of model {quoted(source.name)}: {quoted(label)} cannot move to version {number}, "
                    "which is not available yet; first have it served, then move the label"
                )


def _asked_for(model: ServedModel, spec: Any) -> list[Version]:
    if spec.version_label:
        return [model.pick(None, spec.version_label)]
    versions = [version for _, version in sorted(model.versions.items(), reverse=True)]
    if spec.HasField("version"):
        known = ", ".join(str(version.number) for version in versions) or "none"
        versions = [version for version in versions if version.number == spec.version.value]
        if not versions:
            raise NotFound(f"model {quoted(model.name)} has no version {spec.version.value}; it has: {known}")
    if not versions:
        raise NotFound(f"model {quoted(model.name)} has no versions: {model.problem or 'none was found yet'}")
    return versions


def _error_of(version: Version) -> AcapError | None:
    """Return the error of a version. An unload is not an error."""
    if version.retired:
        return version.failure.error if version.failure else None
    return version.error


def _write_status(status: Any, error: AcapError | None) -> None:
    """Fill a StatusProto. Its codes are gRPC's."""
    status.SetInParent()
    if error is not None:
        status.error_code = status_of(error).value[0]
        status.error_message = str(error)


def _failures(model: ServedModel) -> Iterator[str]:
    if model.problem is not None:
        yield f"model {quoted(model.name)}: {model.problem}"
    for number in sorted(model.chosen & model.versions.keys()):
        if (error := model.versions[number].error) is not None:
            yield f"model {quoted(model.name)} version {number}: {error}"


def _read_config(config: Any, known: ModelSource | None) -> ModelSource:
    """Read a ModelConfig. Settings that it cannot express stay as they were, if the model was known.

    Its platform is ignored, since the file determines the chip. Raises `InvalidRequest` or `Unimplemented`.
    """
    name, path = config.name, config.base_path
    # A name in the form of a path would take the place of the file that other clients mean by it.
    if not name or not name.isprintable() or (name.startswith("/") and name != path):
        raise InvalidRequest(f"name: expected a model's name of printable characters, not a path, got {quoted(name)}")
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"base_path of model {quoted(name)}: expected an absolute path, got {quoted(path)}")
    if config.HasField("logging_config"):
        raise Unimplemented(f"logging_config of model {quoted(name)}: this server keeps no log of requests")
    labels = dict(config.version_labels)
    for number in (*labels.values(), *config.model_version_policy.specific.versions):
        if number < 0:
            raise InvalidRequest(f"model {quoted(name)}: expected versions from 0 up, got {number}")
    source = known or ModelSource(name, Path(path))
    return dataclasses.replace(
        source, path=Path(path), versions=_read_policy(name, config.model_version_policy), labels=labels
    )


def _read_policy(name: str, policy: Any) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy()
        case "specific":
            if not policy.specific.versions:
                raise InvalidRequest(f"model_version_policy of model {quoted(name)}: expected a version, got none")
            return VersionPolicy(specific=frozenset(policy.specific.versions))
        case "latest":
            return VersionPolicy(latest=policy.latest.num_versions or 1)
    return LATEST
