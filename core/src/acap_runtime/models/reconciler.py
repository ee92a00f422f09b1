"""Brings the versions of a model in line with the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from acap_runtime.errors import AcapError, NotFound, quoted
from acap_runtime.models.loading import Loader
from acap_runtime.models.repository import ModelFile, file_of, versions_of
from acap_runtime.models.versions import MakeVersion, ServedModel, State, Version
from acap_runtime.settings.model_source import ModelSource

_LOG = logging.getLogger(__name__)
_MOST_ENDED: Final = 16
"""Ended versions that a model still tells the state of."""


class Reconciler:
    """Loads the versions that are new on disk, then unloads those that they replace.

    `when_changed` is called when a version's state may have changed.
    """

    def __init__(self, make_version: MakeVersion, loader: Loader, when_changed: Callable[[], None]) -> None:
        self._make_version = make_version
        self._loader = loader
        self._when_changed = when_changed

    async def reconcile(self, model: ServedModel) -> None:
        """Load the new versions of a model, then retire the versions that it no longer needs."""
        async with model.changing:
            if not model.is_wanted():
                return
            planned = await self.plan(model)
            await asyncio.gather(*(self._introduce(model, version) for version in planned))
            if any(version.number in model.chosen for version in model.available):
                for number, version in model.versions.items():
                    if number not in model.chosen:
                        self._loader.retire(version)
            if not model.is_wanted():
                self._loader.retire_all(model)  # what was loaded meanwhile too
            _forget_ended(model)
        self._when_changed()

    async def plan(self, model: ServedModel) -> list[Version]:
        """Find the versions on disk that the model's policy chooses. Returns those that are to be loaded."""
        try:
            found = await asyncio.to_thread(_chosen_files, model.source)
        except AcapError as error:
            if str(model.problem) != str(error):
                _LOG.error("model %s: %s", model.name, error)
            model.problem = error
            return []
        model.problem = None
        if model.chosen != set(found):
            _warn_of_labels(model, found)
        model.chosen = set(found)
        versions = [self._version(model, number, *location) for number, location in found.items()]
        return [each for each in versions if each.state is State.START or each.loading is not None]

    def _version(self, model: ServedModel, number: int, location: Path, file: ModelFile) -> Version:
        """Return the version that the model has of this file, or make it.

        A new version takes the place of the known one at once unless that one is loaded or loading.
        """
        known = model.versions.get(number)
        if known is not None and not known.retired and known.tried(model.source, file):
            return known
        version = self._make_version(model.source, number, location)
        version.file = file
        if known is None or known.retired or not (known.resident or known.loading):
            model.versions[number] = version
        return version

    async def _introduce(self, model: ServedModel, version: Version) -> None:
        """Load a version, and put it in the place of other content of the same number."""
        current = model.versions.get(version.number, version)
        try:
            await self._loader.ensure_loaded(version)
        except AcapError:
            if current is not version and version.failure is not None:
                current.rejected = (version.source, version.failure)
                _LOG.warning("model %s: its former content goes on serving", version.model.name)
            return
        model.versions[version.number] = version
        if current is not version:
            self._loader.retire(current)


def _chosen_files(source: ModelSource) -> dict[int, tuple[Path, ModelFile]]:
    """Return the location and the file of each version that the model's policy chooses. Raises if there is none."""
    versions = versions_of(source.path)
    chosen = source.versions.choose(versions)
    if not chosen:
        known = ", ".join(map(str, sorted(versions)))
        raise NotFound(f"model folder {quoted(source.path)} has versions {known}; expected {source.versions}")
    files = {}
    for number in chosen:
        location = versions[number]
        try:
            files[number] = (location, file_of(location))
        except AcapError:
            files[number] = (location, ModelFile(location, ()))  # the load raises the reason
    return files


def _warn_of_labels(model: ServedModel, found: Mapping[int, object]) -> None:
    for label, number in model.source.labels.items():
        if number not in found:
            _LOG.warning("model %s: label %s is of version %d, which is not served", model.name, label, number)


def _forget_ended(model: ServedModel) -> None:
    ended = [number for number, version in sorted(model.versions.items()) if version.state is State.END]
    for number in [number for number in ended if number not in model.chosen][:-_MOST_ENDED]:
        del model.versions[number]
