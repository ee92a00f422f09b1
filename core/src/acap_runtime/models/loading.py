"""Loads versions of models, each once however many calls wait for it, and unloads them when their calls are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from acap_runtime.errors import AcapError, InvalidRequest, Unavailable
from acap_runtime.models.repository import ModelFile, file_of
from acap_runtime.models.versions import Failure, ServedModel, Version
from acap_runtime.wire.tensors import has_wire_type

_LOG = logging.getLogger(__name__)


class Loader:
    """Loads and unloads versions. `when_changed` is called when a version's state may have changed."""

    def __init__(self, when_changed: Callable[[], None]) -> None:
        self._when_changed = when_changed

    async def ensure_loaded(self, version: Version) -> None:
        """Load a version, or wait for the load that others have begun. Raises the error of the load.

        A load that failed is not repeated for a while, unless the file has changed: its error is raised again.
        """
        if version.loading is None:
            try:
                file = await asyncio.to_thread(file_of, version.location)
            except AcapError as error:
                version.failure = Failure.of(error, version.file)
                raise
            if version.failure is None and version.model.error is not None:
                # It could not be loaded again after a restart.
                version.failure = Failure.of(version.model.error, file)
            if version.failure is not None and version.failure.counts_for(file):
                raise version.failure.error.copy()
            if version.resident:
                return  # others have loaded it meanwhile
        if version.loading is None:
            version.loading = asyncio.create_task(self._load(version, file))
        # A caller that is cancelled or reaches its deadline leaves the load to the others.
        await asyncio.shield(version.loading)
        if version.failure is not None:
            raise version.failure.error.copy()

    def retire(self, version: Version) -> None:
        """Give a version no further call, and unload it when it has none."""
        version.retired = True
        self.unload_if_unused(version)
        self._when_changed()

    def retire_all(self, model: ServedModel) -> None:
        """Retire all versions of a model."""
        for version in model.versions.values():
            self.retire(version)

    def unload_if_unused(self, version: Version) -> None:
        """Unload a retired version unless calls use it. The last of them calls this again."""
        if not version.users and version.resident:
            version.worker.unload(version.model)
            _LOG.info("model %s unloaded", version.model.name)
            self._when_changed()

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
                self.unload_if_unused(version)
            self._when_changed()


def _check_dtypes(version: Version) -> None:
    for spec in (*version.model.inputs, *version.model.outputs):
        if not has_wire_type(spec.dtype):
            version.worker.unload(version.model)
            raise InvalidRequest(f"tensor {spec.name!r} has dtype {spec.dtype}, which cannot be sent")
