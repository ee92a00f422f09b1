"""Model files that clients have loaded by their paths."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from acap_runtime.errors import Busy, InvalidRequest, quoted
from acap_runtime.models.loading import Loader
from acap_runtime.models.repository import resolve
from acap_runtime.models.versions import MakeVersion, ServedModel
from acap_runtime.settings.model_source import ModelSource

_LONGEST_PATH: Final = 4096


class FilesOnDemand:
    """The files that clients had loaded, each a model of one version under its path.

    At most `limit` files are loaded at once, none at all if it is 0. A new file takes the place of the one that was
    not used for the longest time.
    """

    def __init__(self, limit: int, make_version: MakeVersion, loader: Loader) -> None:
        self._limit = limit
        self._make_version = make_version
        self._loader = loader
        self._models: dict[str, ServedModel] = {}

    @property
    def allowed(self) -> bool:
        """True if clients may have files loaded."""
        return self._limit > 0

    @property
    def models(self) -> Sequence[ServedModel]:
        """A model for each file that is loaded."""
        return list(self._models.values())

    def get(self, path: str) -> ServedModel | None:
        """Return the model of a file, None if the file is not loaded."""
        return self._models.get(path)

    def allows(self, name: str) -> bool:
        """Return True if a client may name a file like this."""
        return self.allowed and name.startswith("/")

    async def resolve(self, path: str) -> str:
        """Return the path of a model file without links.

        Raises `InvalidRequest`, `NotFound` or `Forbidden` for a path that leads to no model file.
        """
        if len(path) > _LONGEST_PATH:
            raise InvalidRequest(f"model {quoted(path)}: expected a path of at most {_LONGEST_PATH} characters")
        if "\0" in path:
            raise InvalidRequest(f"model {quoted(path)}: a path holds no NUL character")
        return await asyncio.to_thread(resolve, path)

    def add(self, path: str) -> ServedModel:
        """Add a file, which is yet to be loaded. Raises `Busy` if all others are in use and no more may be loaded."""
        if len(self._models) >= self._limit:
            self._make_room()
        source = ModelSource(path, Path(path))
        model = self._models[path] = ServedModel(source)
        model.versions[1] = self._make_version(source, 1, source.path)
        return model

    def _make_room(self) -> None:
        """Retire a file that failed to load, or else the one that was not used for the longest time."""
        versions = [(path, model.versions[1]) for path, model in self._models.items()]
        unused = [(path, version) for path, version in versions if version.unused]
        if not unused:
            raise Busy(f"{len(self._models)} model files are in use, as many as may be (--on-demand-models)")
        path, version = min(unused, key=lambda pair: (pair[1].failure is None, pair[1].used))
        del self._models[path]
        self._loader.retire(version)
