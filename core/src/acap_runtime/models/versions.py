"""A version of a model as it is served: where it comes from, the model on the chip, its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.supervisor import Resting, Worker, WorkerDied
from acap_runtime.errors import AcapError, NotFound, quoted
from acap_runtime.models.repository import ModelFile
from acap_runtime.settings.model_source import ModelSource

_RETRY_S: Final[float] = 5.0
"""How long a failed load is remembered, unless the file changes: who repeats it does not keep the chip busy."""
_RETRY_AFTER_S: Final[Mapping[type[AcapError], float]] = MappingProxyType({WorkerDied: 60.0, Resting: 0.0})
"""The same for a load that cost every other model's calls too, and for one that was never tried."""


class State(IntEnum):
    """A version's state, with the numbers of TensorFlow Serving's ``ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a load failed, of which file, and when it may be tried again."""

    error: AcapError
    retry_at: float
    file: ModelFile | None

    @classmethod
    def of(cls, error: AcapError, file: ModelFile | None) -> Failure:
        return cls(error, time.monotonic() + _RETRY_AFTER_S.get(type(error), _RETRY_S), file)

    def counts_for(self, file: ModelFile) -> bool:
        """Whether to load this file now would only repeat it."""
        return self.file == file and time.monotonic() < self.retry_at


@dataclass(eq=False)
class Version:
    """One version of a model, in the file or folder `place`.

    `rejected` is the newer content of the same version that could not take this one's place.
    """

    number: int
    source: ModelSource
    place: Path
    worker: Worker
    model: RemoteModel
    file: ModelFile | None = None
    loading: asyncio.Task[None] | None = None
    failure: Failure | None = None
    rejected: tuple[ModelSource, Failure] | None = None
    users: int = 0
    used: float = 0.0
    retired: bool = False

    @property
    def unused(self) -> bool:
        return not self.users and self.loading is None and self.model.idle

    @property
    def held(self) -> bool:
        """Whether the worker has it, or will have it again once it is restarted."""
        return self.worker.holds(self.model)

    @property
    def state(self) -> State:
        """Its state; a version whose worker is being restarted is loading."""
        if self.retired:
            return State.UNLOADING if self.held or self.loading else State.END
        if self.model.serving and self.loading is None:
            return State.AVAILABLE
        if self.loading is not None or (self.held and self.model.error is None):
            return State.LOADING
        return State.START if self.error is None else State.END

    @property
    def error(self) -> AcapError | None:
        """Why it is not served, or why its newer content is not."""
        if self.failure is not None:
            return self.failure.error
        if self.model.error is not None:
            return self.model.error
        return None if self.rejected is None else self.rejected[1].error

    def tried(self, source: ModelSource, file: ModelFile) -> bool:
        """Whether it is what loading `file` for `source` would give, or it was tried to put that in its place."""
        if self.rejected is not None and self.rejected[1].file == file and self.rejected[0].loads_as(source):
            return True
        known = self.failure.file if self.failure is not None else self.file
        return known == file and self.source.loads_as(source)


@dataclass(eq=False)
class ServedModel:
    """A model by the name that clients call it.

    `required` says that the server is not ready without it; `chosen` are the versions that its policy chose of those
    on disk, `problem` is why none were found; `unloaded` says that a client asked for that, `removed` that it is no
    longer in the catalogue.
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
        """The versions that are served, in rising order."""
        return [version for _, version in sorted(self.versions.items()) if version.state is State.AVAILABLE]

    @property
    def serving(self) -> bool:
        return any(version.model.serving and not version.retired for version in self.versions.values())

    def is_wanted(self) -> bool:
        return not (self.removed or self.unloaded)

    @property
    def why_not(self) -> str:
        """Why no version of it is served; empty where one is, and where a client unloaded it."""
        if self.serving or self.unloaded:
            return ""
        try:
            version = self.pick(None, "")
        except AcapError as error:
            return str(error)
        return str(version.error or f"version {version.number} is not loaded yet")

    def pick(self, number: int | None, label: str) -> Version:
        """The version that a call is for: by its number or label, or else the highest that is served, or will be.

        Raises `NotFound` where there is no such version, and what keeps the model from having any.
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
        raise self.problem.again() if self.problem else NotFound(f"model {quoted(self.name)} has no version")

    def _listed(self) -> str:
        return ", ".join(str(number) for number, each in sorted(self.versions.items()) if not each.retired) or "none"
