"""A version of a model as it is served: its source, its model on the chip, its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.supervisor import Resting, Worker, WorkerDied
from acap_runtime.errors import AcapError, NotFound, quoted
from acap_runtime.models.repository import ModelFile
from acap_runtime.models.warm_up import warm_up_with
from acap_runtime.settings.model_source import ModelSource

_RETRY_S: Final[float] = 5.0
"""The time for which a failed load is not repeated unless the file changes, so that it does not keep the chip busy."""
_RETRY_AFTER_S: Final[Mapping[type[AcapError], float]] = MappingProxyType({WorkerDied: 60.0, Resting: 0.0})
"""The same for a load that made the calls of other models fail too, and for one that was never tried."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """The settings of models that have none of their own. Of `options`, a model has those that its chip knows."""

    instances: int = 1
    queue: int = 64
    options: Mapping[str, str] = field(default_factory=dict)


class State(IntEnum):
    """A version's state, with the numbers of TensorFlow Serving's ``ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a load, the file that was loaded, and the time from which the load may be tried again."""

    error: AcapError
    retry_at: float
    file: ModelFile | None

    @classmethod
    def of(cls, error: AcapError, file: ModelFile | None) -> Failure:
        return cls(error, time.monotonic() + _RETRY_AFTER_S.get(type(error), _RETRY_S), file)

    def counts_for(self, file: ModelFile) -> bool:
        """Return True if a load of this file would only repeat the failure now."""
        return self.file == file and time.monotonic() < self.retry_at


@dataclass(eq=False)
class Version:
    """One version of a model. `location` is its file, or the folder of it.

    `users` counts the calls that use it, and `used` is the time at which the last one ended (monotonic seconds).
    `rejected` is newer content of the same version that could not replace this one. `retired` versions get no further
    calls.
    """

    number: int
    source: ModelSource
    location: Path
    worker: Worker
    model: RemoteModel
    file: ModelFile | None = None
    loading: asyncio.Task[None] | None = None
    failure: Failure | None = None
    rejected: tuple[ModelSource, Failure] | None = None
    users: int = 0
    used: float = 0.0
    retired: bool = False

    @classmethod
    def of(cls, source: ModelSource, number: int, location: Path, worker: Worker, defaults: ModelDefaults) -> Version:
        """Make a version that is yet to be loaded by `worker`."""
        options = {name: text for name, text in defaults.options.items() if name in worker.chip.backend.options}
        model = RemoteModel(
            source.name if location == source.path else f"{source.name} version {number}",
            location,
            {**options, **source.options},
            source.instances or defaults.instances,
            CallQueue(source.queue or defaults.queue),
            source.batching,
            None if source.warm_up == () else warm_up_with(source.warm_up),
        )
        return cls(number, source, location, worker, model)

    @property
    def unused(self) -> bool:
        """True if no call uses or loads it."""
        return not self.users and self.loading is None and self.model.idle

    @property
    def resident(self) -> bool:
        """True if the worker has it, or loads it again after a restart."""
        return self.worker.is_resident(self.model)

    @property
    def state(self) -> State:
        """Its state; a version whose worker is being restarted is loading."""
        if self.retired:
            return State.UNLOADING if self.resident or self.loading else State.END
        if self.model.serving and self.loading is None:
            return State.AVAILABLE
        if self.loading is not None or (self.resident and self.model.error is None):
            return State.LOADING
        return State.START if self.error is None else State.END

    @property
    def error(self) -> AcapError | None:
        """The reason why it is not served, or why its newer content is not."""
        if self.failure is not None:
            return self.failure.error
        if self.model.error is not None:
            return self.model.error
        return None if self.rejected is None else self.rejected[1].error

    def tried(self, source: ModelSource, file: ModelFile) -> bool:
        """Return True if this is the version that `file` and `source` give, or if that one was tried and rejected."""
        if self.rejected is not None and self.rejected[1].file == file and self.rejected[0].loads_as(source):
            return True
        known = self.failure.file if self.failure is not None else self.file
        return known == file and self.source.loads_as(source)


MakeVersion: TypeAlias = Callable[[ModelSource, int, Path], Version]
"""Makes the version of a model that has this number and location."""


@dataclass(eq=False)
class ServedModel:
    """A model under the name that clients use.

    The server is not ready without a `required` model. `chosen` are the numbers of the versions on disk that its
    policy chose, and `problem` is the reason why none were found. `unloaded` is True if a client unloaded it,
    `removed` if it is no longer in the catalogue. `changing` is locked while its versions change.
    """

    source: ModelSource
    required: bool = False
    versions: dict[int, Version] = field(default_factory=dict)
    chosen: set[int] = field(default_factory=set)
    problem: AcapError | None = None
    unloaded: bool = False
    removed: bool = False
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def available(self) -> list[Version]:
        """The versions that are served, in ascending order."""
        return [version for _, version in sorted(self.versions.items()) if version.state is State.AVAILABLE]

    @property
    def serving(self) -> bool:
        """True if a version would run a call."""
        return any(version.model.serving and not version.retired for version in self.versions.values())

    def is_wanted(self) -> bool:
        """Return True unless the model was removed or unloaded."""
        return not (self.removed or self.unloaded)

    @property
    def why_not(self) -> str:
        """The reason why no version is served; empty if one is, or if a client unloaded the model."""
        if self.serving or self.unloaded:
            return ""
        try:
            version = self.pick(None, "")
        except AcapError as error:
            return str(error)
        return str(version.error or f"version {version.number} is not loaded yet")

    def pick(self, number: int | None, label: str) -> Version:
        """Return the version for a call: by number or label, or else the highest that is served or will be.

        Raises `NotFound` if there is no such version, or the reason why the model has no version at all.
        """
        if label:
            if label not in self.source.labels:
                known = ", ".join(map(quoted, sorted(self.source.labels))) or "none"
                raise NotFound(f"model {quoted(self.name)} has no version label {quoted(label)}; it has: {known}")
            number = self.source.labels[label]
        if number is not None:
            if number not in self.versions or self.versions[number].retired:
                raise NotFound(f"model {quoted(self.name)} has no version {number}; it has: {self._listed()}")
            return self.versions[number]
        best: Version | None = None
        best_rank = (-1, -1)
        for version in self.versions.values():
            if not version.retired:
                rank = (2 if version.model.serving else version.failure is None, version.number)
                if rank > best_rank:
                    best, best_rank = version, rank
        if best is not None:
            return best
        if self.unloaded:
            raise NotFound(f"model {quoted(self.name)} was unloaded")
        raise self.problem.copy() if self.problem else NotFound(f"model {quoted(self.name)} has no version")

    def _listed(self) -> str:
        return ", ".join(str(number) for number, each in sorted(self.versions.items()) if not each.retired) or "none"
