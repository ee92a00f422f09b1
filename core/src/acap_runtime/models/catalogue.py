"""The models that clients can name, and how they come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from acap_runtime.chips.supervisor import Worker
from acap_runtime.chips.workers import Workers
from acap_runtime.errors import AcapError, InvalidRequest, NotFound, Unavailable, quoted
from acap_runtime.models.files_on_demand import FilesOnDemand
from acap_runtime.models.loading import Loader
from acap_runtime.models.reconciler import Reconciler
from acap_runtime.models.repository import models_in
from acap_runtime.models.shielded_tasks import ShieldedTasks
from acap_runtime.models.versions import Failure, ModelDefaults, ServedModel, Version
from acap_runtime.settings.model_source import MODEL_OPTIONS, ModelSource

_LOG = logging.getLogger(__name__)


class Catalogue:
    """Models by name: the operator's `models`, and those in `folder`, which may come and go.

    A client may also name a file by its absolute path: the first call loads it. At most `on_demand` such files are
    loaded at once (0 forbids them). `when_changed` is called when a version's state may have changed.
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
        self._when_changed = when_changed
        self._models: dict[str, ServedModel] = {}
        self._loader = Loader(when_changed)
        self._reconciler = Reconciler(self._make_version, self._loader, when_changed)
        self._files = FilesOnDemand(on_demand, self._make_version, self._loader)
        self._configuring = asyncio.Lock()
        self._changes = ShieldedTasks()  # half a change would leave versions on the chip that nobody knows
        self.chipless: Sequence[str] = ()
        """Names of the operator's models that are left out for want of a chip."""
        self._given = self._with_a_chip(models)
        for source in self._given:
            _check_options(source, self._workers.of(source.chip))
            self._add(source, required=True)

    @property
    def models(self) -> Sequence[ServedModel]:
        """The operator's models, sorted by name. Files that clients had loaded are not among them."""
        return [model for _, model in sorted(self._models.items())]

    @property
    def files(self) -> Sequence[ServedModel]:
        """The files that clients had loaded."""
        return self._files.models

    @property
    def given(self) -> Sequence[ModelSource]:
        """The operator's models, without those of the folder."""
        return self._given

    @property
    def watched(self) -> frozenset[Path]:
        """The files and folders in which new versions and models may appear."""
        return frozenset([source.path for source in self._given] + ([self._folder] if self._folder else []))

    def known(self, name: str) -> ServedModel | None:
        """Return the operator's model or the loaded file of that name, None if there is none."""
        return self._models.get(name) or self._files.get(name)

    def named(self, name: str) -> ServedModel:
        """Return the operator's model or the loaded file of that name. Raises `NotFound`."""
        return self.known(name) or self.model(name)

    def model(self, name: str) -> ServedModel:
        """Return the operator's model of that name. Raises `NotFound`."""
        if name not in self._models:
            raise self._unknown(name)
        return self._models[name]

    async def find(self) -> None:
        """Find the versions on disk, so that calls can wait for them. Raises if the folder cannot be read."""
        if self._folder is not None:
            found = await asyncio.to_thread(self._models_in_folder)
            for name in sorted({source.name for source in found}.intersection(self._models)):
                _LOG.warning("model %s is the one given by its name, not that in %s", name, self._folder)
            self._add_from_folder(found)
        for model in self.models:
            await self._reconciler.plan(model)

    async def preload(self) -> None:
        """Load all models concurrently. Raises the error of a required model that cannot be loaded, with its file."""
        await asyncio.gather(*(self._preload(model) for model in self.models))

    async def _preload(self, model: ServedModel) -> None:
        await self._reconciler.reconcile(model)
        if not model.required or model.serving:
            return
        try:
            raise model.pick(None, "").error or Unavailable("it is not served")
        except AcapError as error:
            raise type(error)(f"model {model.name} of {model.source.path}: {error}") from None

    async def refresh(self) -> None:
        """Look at the disk again: load new and changed versions, then unload those that are replaced or gone."""
        await self._changes.run(self._configure(None, required=False))

    async def configure(self, models: Iterable[ModelSource], *, required: bool = True) -> None:
        """Replace the operator's models, and look at the folder again. New models are `required`.

        Versions that stay the same stay loaded; those that go are unloaded when their calls are done. Raises
        `InvalidRequest` or `NotReady`, and changes nothing, if a chip or an option does not exist.
        """
        given = self._with_a_chip(models) if required else tuple(models)
        await self._changes.run(self._configure(given, required=required))

    async def _configure(self, given: tuple[ModelSource, ...] | None, *, required: bool) -> None:
        async with self._configuring:  # an earlier look at the folder must not overwrite a later one
            if given is None:
                given = self._given
            for source in given:
                _check_options(source, self._workers.of(source.chip))
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
        await asyncio.gather(*(self._reconciler.reconcile(model) for model in self.models))

    async def load(self, name: str) -> None:
        """Load a model that was unloaded, or its new versions. Raises the reason why it is not served."""
        if name not in self._models:
            await self.refresh()
        model = self.model(name)
        model.unloaded = False
        for version in model.versions.values():
            version.rejected = None
            if version.failure is not None:
                version.failure = Failure(version.failure.error, 0.0, None)
        await self._changes.run(self._reconciler.reconcile(model))
        if (version := model.pick(None, "")).error is not None:
            raise version.error.copy()

    async def unload(self, name: str) -> None:
        """Unload a model's versions when their calls are done. It stays known, and can be loaded again."""
        model = self.model(name)
        model.unloaded = True
        self._loader.retire_all(model)

    @contextlib.asynccontextmanager
    async def use(self, name: str, number: int | None = None, label: str = "") -> AsyncIterator[Version]:
        """Load the model that a client calls `name` unless it is loaded. Its version stays until the context ends.

        Raises `NotReady` without a chip; `NotFound`, `Forbidden` or `InvalidRequest` for a name that leads to no model
        file; `Busy` if no further file may be loaded or no further call may wait; and the error of the load.
        """
        model = self.known(name)
        if model is None:
            model = await self._open_file(name)
        version = model.pick(number, label)
        version.users += 1
        try:
            if not version.model.serving and not version.resident:
                with version.model.queue.reserve():
                    await self._loader.ensure_loaded(version)
            yield version
        finally:
            version.users -= 1
            version.used = time.monotonic()
            if version.retired:
                self._loader.unload_if_unused(version)

    async def _open_file(self, name: str) -> ServedModel:
        self._workers.of(None)  # raises without a chip of the server's own, on which files run
        if not name:
            raise InvalidRequest("model_spec.name: expected the name of a model or the path of a file, got nothing")
        if not self._files.allows(name):
            raise self._unknown(name)
        path = await self._files.resolve(name)
        return self.known(path) or self._files.add(path)

    def _with_a_chip(self, models: Iterable[ModelSource]) -> tuple[ModelSource, ...]:
        """Leave out models that name no chip if the server has none of its own."""
        given = tuple(models)
        kept = tuple(source for source in given if source.chip is not None or self._workers.default is not None)
        self.chipless = [source.name for source in given if source not in kept]
        if self.chipless:
            _LOG.warning(
                "without a chip (-j) no model is loaded, unless it names its own: %s", ", ".join(self.chipless)
            )
        return kept

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(quoted(model.name) for model in self.models) or "none"
        paths = "the absolute path of a file" if self._files.allowed else "over TCP, files must be given with -m"
        return NotFound(f"model {quoted(name)} is unknown; expected one of: {known}; {paths}")

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
        self._loader.retire_all(model)

    def _make_version(self, source: ModelSource, number: int, location: Path) -> Version:
        return Version.of(source, number, location, self._workers.of(source.chip), self._defaults)


def _check_options(source: ModelSource, worker: Worker) -> None:
    """Raise `InvalidRequest` for an option that the worker's chip does not have."""
    known = worker.chip.backend.options
    if unknown := sorted(set(source.options) - set(known)):
        names = ", ".join(sorted({*MODEL_OPTIONS, *known}))
        raise InvalidRequest(f"model {source.name}: {worker.chip} has no option {unknown[0]}; expected one of: {names}")
