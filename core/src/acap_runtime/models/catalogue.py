"""The models that clients can name: which there are, and how their versions come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.workers import Workers
from acap_runtime.errors import AcapError, Busy, InvalidRequest, NotFound, Unavailable, quoted
from acap_runtime.models.finishing import Finishing
from acap_runtime.models.repository import ModelFile, file_of, models_in, resolve, versions_of
from acap_runtime.models.versions import Failure, ServedModel, State, Version
from acap_runtime.models.warm_up import warm_up_with
from acap_runtime.settings.model_source import MODEL_OPTIONS, ModelSource
from acap_runtime.wire.tensors import has_wire_type

_LOG = logging.getLogger(__name__)
_LONGEST_PATH: Final = 4096
_KEPT_ENDED: Final = 16
"""Versions that ended, of which a model still tells the state."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What holds for models that say nothing else; of `options`, those that their chip knows."""

    instances: int = 1
    queue: int = 64
    options: Mapping[str, str] = field(default_factory=dict)


class Catalogue:
    """Models by name: the operator's `models`, and those in `folder`, which may come and go.

    A client may also name a file by its absolute path: it is loaded the first time. At most `on_demand` such files
    are loaded at once (0 forbids them); the least recently used one goes when another needs its place.
    `when_changed` is called when a version's state may have changed.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        models: Iterable[ModelSource] = (),
        folder: Path | None = None,
        defaults: ModelDefaults = ModelDefaults(),
        on_demand: int,
        when_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers = workers
        self._folder = folder
        self._defaults = defaults
        self._on_demand = on_demand
        self._when_changed = when_changed
        self._models: dict[str, ServedModel] = {}
        self._files: dict[str, ServedModel] = {}
        self._configuring = asyncio.Lock()
        self._changes = Finishing()  # half of one would leave versions on the chip that nobody knows
        self.chipless: Sequence[str] = ()
        """Names of the operator's models that are left out, for want of a chip."""
        self._given = self._with_a_chip(models)
        for source in self._given:
            self._check(source)
            self._add(source, required=True)

    @property
    def models(self) -> Sequence[ServedModel]:
        """The operator's models, by name; files that clients had loaded are between them and the server."""
        return [model for _, model in sorted(self._models.items())]

    @property
    def files(self) -> Sequence[ServedModel]:
        """The files that clients had loaded."""
        return list(self._files.values())

    @property
    def given(self) -> Sequence[ModelSource]:
        """The operator's models, without those of the folder."""
        return self._given

    @property
    def watched(self) -> frozenset[Path]:
        """Where new versions and models may come up: files, and folders of versions or models."""
        return frozenset([source.path for source in self._given] + ([self._folder] if self._folder else []))

    def known(self, name: str) -> ServedModel | None:
        """The model that a client calls `name`: one of the operator's, or a file that is loaded already."""
        return self._models.get(name) or self._files.get(name)

    def named(self, name: str) -> ServedModel:
        """The same. Raises `NotFound` where there is none."""
        return self.known(name) or self.model(name)

    def model(self, name: str) -> ServedModel:
        """The operator's model of that name. Raises `NotFound`."""
        if name not in self._models:
            raise self._unknown(name)
        return self._models[name]

    async def find(self) -> None:
        """Look which versions there are, so that calls can wait for them. Raises where the folder cannot be read."""
        if self._folder is not None:
            found = await asyncio.to_thread(self._models_in_folder)
            for name in sorted({source.name for source in found}.intersection(self._models)):
                _LOG.warning("model %s is the one given by its name, not that in %s", name, self._folder)
            self._add_from_folder(found)
        for model in self.models:
            await self._plan(model)

    async def preload(self) -> None:
        """Load all models side by side. Raises the error of a required one that cannot be loaded, with its file."""
        await asyncio.gather(*(self._preload(model) for model in self.models))

    async def _preload(self, model: ServedModel) -> None:
        await self._update(model)
        if not model.required or model.serving:
            return
        try:
            raise model.pick(None, "").error or Unavailable("it is not served")
        except AcapError as error:
            raise type(error)(f"model {model.name} of {model.source.path}: {error}") from None

    async def refresh(self) -> None:
        """Look at the disk again: load what is new or changed, then unload what it replaces or what is gone."""
        await self._changes.wait_for(self._configure(None, required=False))

    async def configure(self, models: Iterable[ModelSource], *, required: bool = True) -> None:
        """Serve these instead of the operator's models so far, and what the folder has now; new ones are `required`.

        Versions that stay the same stay loaded; those that go are unloaded when their calls are done. Raises
        `InvalidRequest` or `NotReady`, and changes nothing, where a chip or an option does not exist.
        """
        given = self._with_a_chip(models) if required else tuple(models)
        await self._changes.wait_for(self._configure(given, required=required))

    async def _configure(self, given: tuple[ModelSource, ...] | None, *, required: bool) -> None:
        async with self._configuring:  # what was seen of the folder first is not to come true last
            if given is None:
                given = self._given
            for source in given:
                self._check(source)
            found = await asyncio.to_thread(self._models_in_folder) if self._folder is not None else []
            self._given = given
            names = {source.name for source in (*given, *found)}
            for name in self._models.keys() - names:
                self._remove(name)
            for source in given:
                known = self._models.get(source.name)
                self._add(source, required=required or (known is not None and known.required))
            self._add_from_folder(found)
        self._when_changed()
        await asyncio.gather(*(self._update(model) for model in self.models))

    async def load(self, name: str) -> None:
        """Load a model that was unloaded, or what of it is new. Raises what keeps it from being served."""
        if name not in self._models:
            await self.refresh()
        model = self.model(name)
        model.unloaded = False
        for version in model.versions.values():
            version.rejected = None
            if version.failure is not None:
                version.failure = Failure(version.failure.error, 0.0, None)
        await self._changes.wait_for(self._update(model))
        if (version := model.pick(None, "")).error is not None:
            raise version.error.again()

    async def unload(self, name: str) -> None:
        """Unload a model's versions when their calls are done; it stays known, and can be loaded again."""
        model = self.model(name)
        model.unloaded = True
        self._retire_all(model)

    @contextlib.asynccontextmanager
    async def use(self, name: str, number: int | None = None, label: str = "") -> AsyncIterator[Version]:
        """A version of the model that a client calls `name`, once it is loaded; it stays until the context ends.

        Raises `NotReady` without a chip; `NotFound`, `Forbidden` or `InvalidRequest` for a name that leads to no
        model file; `Busy` where no further file may be loaded or call may wait; and what loading it raises.
        """
        model = self.known(name)
        if model is None:
            self._workers.of(None)  # raises without a chip of the server's own, on which files run
            self._check_path(name)
            path = await asyncio.to_thread(resolve, name)
            model = self.known(path) or self._add_file(path)
        version = model.pick(number, label)
        version.users += 1
        try:
            if not version.model.serving and not version.held:
                with version.model.queue.place():
                    await self._ensure_loaded(version)
            yield version
        finally:
            version.users -= 1
            version.used = time.monotonic()
            if version.retired:
                self._unload(version)

    def _with_a_chip(self, models: Iterable[ModelSource]) -> tuple[ModelSource, ...]:
        """The operator's models but those that name no chip where the server has none, as one without inference may."""
        given = tuple(models)
        kept = tuple(source for source in given if source.chip is not None or self._workers.default is not None)
        self.chipless = [source.name for source in given if source not in kept]
        if self.chipless:
            _LOG.warning(
                "without a chip (-j) no model is loaded, unless it names its own: %s", ", ".join(self.chipless)
            )
        return kept

    def _check_path(self, name: str) -> None:
        if not name:
            raise InvalidRequest("model_spec.name: expected the name of a model or the path of a file, got nothing")
        if not self._on_demand or not name.startswith("/"):
            raise self._unknown(name)
        if len(name) > _LONGEST_PATH:
            raise InvalidRequest(f"model {quoted(name)}: expected a path of at most {_LONGEST_PATH} characters")
        if "\0" in name:
            raise InvalidRequest(f"model {quoted(name)}: a path holds no NUL character")

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(quoted(model.name) for model in self.models) or "none"
        paths = "the absolute path of a file" if self._on_demand else "over TCP, files must be given with -m"
        return NotFound(f"model {quoted(name)} is unknown; expected one of: {known}; {paths}")

    def _check(self, source: ModelSource) -> None:
        """Raise `InvalidRequest` or `NotReady` for a chip or an option that does not exist."""
        worker = self._workers.of(source.chip)
        known = worker.chip.backend.options
        if unknown := sorted(set(source.options) - set(known)):
            names = ", ".join(sorted({*MODEL_OPTIONS, *known}))
            raise InvalidRequest(
                f"model {source.name}: {worker.chip} has no option {unknown[0]}; expected one of: {names}"
            )

    def _add(self, source: ModelSource, *, required: bool) -> None:
        model = self._models.setdefault(source.name, ServedModel(source))
        model.source, model.required = source, required

    def _models_in_folder(self) -> list[ModelSource]:
        assert self._folder is not None  # noqa: S101 - callers have asked
        return models_in(self._folder, self._workers.of(None).chip.backend.suffixes)

    def _add_from_folder(self, found: Iterable[ModelSource]) -> None:
        given = {source.name for source in self._given}
        for source in found:
            if source.name not in given:
                self._add(source, required=False)

    def _remove(self, name: str) -> None:
        model = self._models.pop(name)
        model.removed = True
        self._retire_all(model)

    def _add_file(self, path: str) -> ServedModel:
        if len(self._files) >= self._on_demand:
            # Failures first, then the longest unused.
            loaded = [(name, model.versions[1]) for name, model in self._files.items()]
            idle = [(name, version) for name, version in loaded if version.unused]
            if not idle:
                raise Busy(f"{len(self._files)} model files are in use, as many as may be (--on-demand-models)")
            name, version = min(idle, key=lambda pair: (pair[1].failure is None, pair[1].used))
            del self._files[name]
            self._retire(version)
        source = ModelSource(path, Path(path))
        model = self._files[path] = ServedModel(source)
        model.versions[1] = self._version(source, 1, source.path)
        return model

    def _version(self, source: ModelSource, number: int, place: Path) -> Version:
        worker = self._workers.of(source.chip)
        defaults = self._defaults
        options = {name: text for name, text in defaults.options.items() if name in worker.chip.backend.options}
        model = RemoteModel(
            source.name if place == source.path else f"{source.name} version {number}",
            place,
            {**options, **source.options},
            source.instances or defaults.instances,
            CallQueue(source.queue or defaults.queue),
            source.batching,
            None if source.warm_up == () else warm_up_with(source.warm_up),
        )
        return Version(number, source, place, worker, model)

    async def _update(self, model: ServedModel) -> None:
        """Load what is new of a model, then retire what it replaces."""
        async with model.changing:
            if not model.is_wanted():
                return
            loading = await self._plan(model)
            await asyncio.gather(*(self._introduce(model, version) for version in loading))
            if any(version.number in model.chosen for version in model.available):
                for number, version in model.versions.items():
                    if number not in model.chosen:
                        self._retire(version)
            if not model.is_wanted():
                self._retire_all(model)  # what was loaded meanwhile too
            ended = [number for number, version in sorted(model.versions.items()) if version.state is State.END]
            for number in [number for number in ended if number not in model.chosen][:-_KEPT_ENDED]:
                del model.versions[number]
        self._when_changed()

    async def _plan(self, model: ServedModel) -> list[Version]:
        """The versions to load: what the disk has of those that the model's policy chooses, and is not loaded yet."""
        try:
            found = await asyncio.to_thread(_chosen_files, model.source)
        except AcapError as error:
            if str(model.problem) != str(error):
                _LOG.error("model %s: %s", model.name, error)
            model.problem = error
            return []
        model.problem = None
        if model.chosen != set(found):
            for label, number in model.source.labels.items():
                if number not in found:
                    _LOG.warning("model %s: label %s is of version %d, which is not served", model.name, label, number)
        model.chosen = set(found)
        loading = []
        for number, (place, file) in found.items():
            version = model.versions.get(number)
            if version is None or version.retired or not version.tried(model.source, file):
                fresh = self._version(model.source, number, place)
                fresh.file = file
                if version is None or version.retired or not (version.held or version.loading):
                    model.versions[number] = fresh
                version = fresh
            if version.state is State.START or version.loading is not None:
                loading.append(version)
        return loading

    async def _introduce(self, model: ServedModel, version: Version) -> None:
        """Load a version, and put it in the place of another content of the same number."""
        current = model.versions.get(version.number, version)
        try:
            await self._ensure_loaded(version)
        except AcapError:
            if current is not version and version.failure is not None:
                current.rejected = (version.source, version.failure)
                _LOG.warning("model %s: its former content goes on serving", version.model.name)
            return
        model.versions[version.number] = version
        if current is not version:
            self._retire(current)

    def _retire_all(self, model: ServedModel) -> None:
        for version in model.versions.values():
            self._retire(version)

    def _retire(self, version: Version) -> None:
        """Give a version no further call, and unload it when it has none."""
        version.retired = True
        self._unload(version)
        self._when_changed()

    def _unload(self, version: Version) -> None:
        if not version.users and version.held:
            version.worker.unload(version.model)
            _LOG.info("model %s unloaded", version.model.name)
            self._when_changed()

    async def _ensure_loaded(self, version: Version) -> None:
        if version.loading is None:
            try:
                file = await asyncio.to_thread(file_of, version.place)
            except AcapError as error:
                version.failure = Failure.of(error, version.file)
                raise
            if version.failure is None and version.model.error is not None:
                # It could not be loaded again after a restart.
                version.failure = Failure.of(version.model.error, file)
            if version.failure is not None and version.failure.counts_for(file):
                raise version.failure.error.again()
            if version.held:
                return  # others have loaded it meanwhile
        if version.loading is None:
            version.loading = asyncio.create_task(self._load(version, file))
        # Who stops waiting, at its deadline or because it was cancelled, leaves the load to the others.
        await asyncio.shield(version.loading)
        if version.failure is not None:
            raise version.failure.error.again()

    async def _load(self, version: Version, file: ModelFile) -> None:
        version.failure = None
        version.file = file
        version.model.path = file.path
        self._when_changed()
        try:
            await version.worker.load(version.model)
            _check_dtypes(version)
            if version.source.batching.size > 1 and not version.model.batches:
                _LOG.warning("model %s: batch is without effect: a first dimension is not open", version.model.name)
        except (AcapError, OSError) as error:
            _LOG.error("model %s could not be loaded: %s", version.model.name, error)
            known = error if isinstance(error, AcapError) else Unavailable(f"cannot load the model: {error}")
            version.failure = Failure.of(known, file)
        finally:
            version.loading = None
            if version.retired:
                self._unload(version)
            self._when_changed()


def _chosen_files(source: ModelSource) -> dict[int, tuple[Path, ModelFile]]:
    """Place and file of each version that the model's policy chooses. Raises where there is none."""
    versions = versions_of(source.path)
    chosen = source.versions.choose(versions)
    if not chosen:
        known = ", ".join(map(str, sorted(versions)))
        raise NotFound(f"model folder {quoted(source.path)} has versions {known}; expected {source.versions}")
    files = {}
    for number in chosen:
        place = versions[number]
        try:
            files[number] = (place, file_of(place))
        except AcapError:
            files[number] = (place, ModelFile(place, ()))  # loading it says why
    return files


def _check_dtypes(version: Version) -> None:
    for spec in (*version.model.inputs, *version.model.outputs):
        if not has_wire_type(spec.dtype):
            version.worker.unload(version.model)
            raise InvalidRequest(f"tensor {spec.name!r} has dtype {spec.dtype}, which cannot be sent")
