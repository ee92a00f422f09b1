"""The models that clients can name, and how a file becomes one on demand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from acap_runtime.errors import AcapError, Busy, Forbidden, InvalidRequest, NotFound, NotReady, Unavailable, shown
from acap_runtime.tensors import has_wire_type
from acap_runtime.worker.remote_model import RemoteModel
from acap_runtime.worker.supervisor import Resting, Worker, WorkerDied

_LOG = logging.getLogger(__name__)
_RETRY_S: Final[float] = 5.0
"""How long a failed load is remembered, unless the file changes: who repeats it does not keep the chip busy."""
_RETRY_AFTER_S: Final[Mapping[type[AcapError], float]] = MappingProxyType({WorkerDied: 60.0, Resting: 0.0})
"""The same for a load that cost every other model's calls too, and for one that was never tried."""
_KERNEL_FILESYSTEMS: Final = {
    "proc",
    "sysfs",
    "debugfs",
    "tracefs",
    "securityfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "configfs",
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file, the name that clients call it by, its load options; `instances` None for the server's default."""

    name: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)
    instances: int | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    error: AcapError
    retry_at: float
    file: tuple[int, ...]

    @classmethod
    def of(cls, error: AcapError, file: tuple[int, ...]) -> _Failure:
        return cls(error, time.monotonic() + _RETRY_AFTER_S.get(type(error), _RETRY_S), file)


@dataclass(eq=False)
class _Entry:
    model: RemoteModel
    on_demand: bool
    loading: asyncio.Task[None] | None = None
    failure: _Failure | None = None
    users: int = 0
    used: float = 0.0

    @property
    def unused(self) -> bool:
        return not self.users and self.loading is None and self.model.idle


class Catalogue:
    """Models by name.

    A client may also name a file by its absolute path: it is loaded the first time. At most `on_demand` such files
    are loaded at once (0 forbids them); the least recently used one goes when another needs its place.
    """

    def __init__(
        self,
        worker: Worker | None,
        *,
        models: Iterable[ModelSource] = (),
        options: Mapping[str, str],
        instances: int,
        on_demand: int,
    ) -> None:
        self._worker = worker
        self._options = options
        self._instances = instances
        self._on_demand = on_demand
        self._entries: dict[str, _Entry] = {}
        if worker is not None:
            for source in models:
                self._add(source.name, source, on_demand=False)

    async def preload(self) -> None:
        """Load the operator's models side by side. Raises the error of one that cannot be loaded, with its file."""
        given = [(name, entry) for name, entry in self._entries.items() if not entry.on_demand]
        await asyncio.gather(*(self._preload(name, entry) for name, entry in given))

    async def _preload(self, name: str, entry: _Entry) -> None:
        try:
            await self._ensure_loaded(entry)
        except AcapError as error:
            raise type(error)(f"model {name} of {entry.model.path}: {error}") from None

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[RemoteModel]:
        """The model that a client calls `name`, once it is loaded; it stays at least until the context ends.

        Raises `NotReady` without a chip; `NotFound`, `Forbidden` or `InvalidRequest` for a name that leads to no
        model file; `Busy` where no further file may be loaded or call may wait; and what loading it raises.
        """
        if self._worker is None:
            raise NotReady("this server runs without inference; start it with -j CHIP (acapruntime chips lists them)")
        entry = self._entries.get(name)
        if entry is None:
            self._check_path(name)
            path = await asyncio.to_thread(_resolve, name)
            entry = self._entries.get(path) or self._add_on_demand(path)
        entry.users += 1
        try:
            if not self._worker.holds(entry.model):
                with self._worker.admission.place():
                    await self._ensure_loaded(entry)
            yield entry.model
        finally:
            entry.users -= 1
            entry.used = time.monotonic()

    def _check_path(self, name: str) -> None:
        if not name:
            raise InvalidRequest("model_spec.name: expected the name of a model or the path of a file, got nothing")
        if not self._on_demand or not name.startswith("/"):
            # Not the files that other clients had loaded: that is between them and the server.
            given = sorted(key for key, entry in self._entries.items() if not entry.on_demand)
            known = ", ".join(map(shown, given)) or "none"
            paths = "the absolute path of a file" if self._on_demand else "over TCP, files must be given with -m"
            raise NotFound(f"model {shown(name)} is unknown; expected one of: {known}; {paths}")
        if "\0" in name:
            raise InvalidRequest(f"model {shown(name)}: a path holds no NUL character")

    def _add(self, key: str, source: ModelSource, *, on_demand: bool) -> _Entry:
        assert self._worker is not None  # noqa: S101 - callers have asked
        chip = self._worker.chip
        options = {**self._options, **source.options}
        if unknown := sorted(set(options) - set(chip.backend.options)):
            known = ", ".join(sorted({"instances", *chip.backend.options}))
            raise InvalidRequest(f"model {source.name}: {chip} has no option {unknown[0]}; expected one of: {known}")
        model = RemoteModel(
            source.name,
            source.path,
            options,
            source.instances or self._instances,
            self._worker.admission,
        )
        entry = self._entries[key] = _Entry(model, on_demand)
        return entry

    def _add_on_demand(self, path: str) -> _Entry:
        loaded = [(key, entry) for key, entry in self._entries.items() if entry.on_demand]
        if len(loaded) >= self._on_demand:
            # Failures first, then the longest unused.
            idle = [pair for pair in loaded if pair[1].unused]
            if not idle:
                raise Busy(f"{len(loaded)} model files are in use, as many as may be (--on-demand-models)")
            self._remove(*min(idle, key=lambda pair: (pair[1].failure is None, pair[1].used)))
        return self._add(path, ModelSource(path, Path(path)), on_demand=True)

    def _remove(self, key: str, entry: _Entry) -> None:
        del self._entries[key]
        if self._worker is not None and self._worker.holds(entry.model):
            self._worker.unload(entry.model)
            _LOG.info("model %s unloaded, its place is needed", entry.model.name)

    async def _ensure_loaded(self, entry: _Entry) -> None:
        assert self._worker is not None  # noqa: S101 - callers have asked
        if entry.loading is None:
            file = await asyncio.to_thread(_identify, entry.model.path)
            if entry.failure is None and entry.model.error is not None:
                entry.failure = _Failure.of(entry.model.error, file)  # it could not be loaded again after a restart
            failure = entry.failure
            if failure is not None and failure.file == file and time.monotonic() < failure.retry_at:
                raise failure.error.again()
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry, file))
        # Who stops waiting, at its deadline or because it was cancelled, leaves the load to the others.
        await asyncio.shield(entry.loading)
        if entry.failure is not None:
            raise entry.failure.error.again()

    async def _load(self, entry: _Entry, file: tuple[int, ...]) -> None:
        assert self._worker is not None  # noqa: S101 - callers have asked
        entry.failure = None
        try:
            await self._worker.load(entry.model)
            self._check_dtypes(entry.model)
        except (AcapError, OSError) as error:
            _LOG.error("model %s could not be loaded: %s", entry.model.name, error)
            known = error if isinstance(error, AcapError) else Unavailable(f"cannot load the model: {error}")
            entry.failure = _Failure.of(known, file)
        finally:
            entry.loading = None

    def _check_dtypes(self, model: RemoteModel) -> None:
        for spec in (*model.inputs, *model.outputs):
            if not has_wire_type(spec.dtype) and self._worker is not None:
                self._worker.unload(model)
                raise InvalidRequest(f"tensor {spec.name!r} has dtype {spec.dtype}, which cannot be sent")


def _resolve(name: str) -> str:
    _identify(Path(name))  # before the links in it are resolved, so that errors name what the client named
    return os.path.realpath(name)


def _identify(path: Path) -> tuple[int, ...]:
    """What tells a changed file from the same. Raises if `path` is no file that can be read."""
    label = f"model file {shown(path)}"
    try:
        # O_PATH opens nothing yet: opening a device or a FIFO already has effects.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{label} does not exist") from None
    except PermissionError:
        raise Forbidden(f"{label} is not readable by the server, user {os.geteuid()}") from None
    except OSError as error:
        raise InvalidRequest(f"{label} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_dev in _kernel_devices():
            raise InvalidRequest(f"{label} is no regular file")
        if not os.access(f"/proc/self/fd/{descriptor}", os.R_OK, effective_ids=True):
            raise Forbidden(f"{label} is not readable by the server, user {os.geteuid()}")
    finally:
        os.close(descriptor)
    return (status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino)


def _kernel_devices() -> set[int]:
    """Where "files" are answers of the kernel, some of them meant for the server alone, or gone once read."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] not in _KERNEL_FILESYSTEMS:
            continue
        major, minor = fields[2].split(":")
        found.add(os.makedev(int(major), int(minor)))
    return found
