"""Watches model files, so that new versions are served as they appear. Needs watchfiles, an extra."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from watchfiles import Change, awatch

from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.models.catalogue import Catalogue

_LOG = logging.getLogger(__name__)
_MOST_REFRESHES: Final = 8
_LOOK_S: Final = 1.0


class Watcher:
    """Refreshes `catalogue` whenever something changes on disk.

    A folder of versions is watched as a whole. A file is watched through its folder, since a file that replaces it is
    another one.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._refreshes: set[asyncio.Task[None]] = set()
        self._missed = False

    async def run(self) -> None:
        """Watch until this is cancelled. Logs an error and ends if the system has no more watches to give."""
        try:
            while True:
                await self._watch_current()
        except* (OSError, RuntimeError) as errors:
            _LOG.error("changes of model files are not seen any more, but at SIGHUP: %s", errors.exceptions[0])
        finally:
            for refresh in self._refreshes:
                refresh.cancel()
            await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def _watch_current(self) -> None:
        """Watch the files and folders of the catalogue until it has others."""
        watched = self._catalogue.watched
        folders = await asyncio.to_thread(_folders, watched)
        parents = await asyncio.to_thread(_folders, {path.parent for path in watched})
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(parents, watched, stop, recursive=False))
            tasks.create_task(self._watch(folders, (), stop, recursive=True))
            await asyncio.sleep(0)  # the tasks watch from their first step on
            self._refresh()  # for changes while nobody watched
            # A client may configure other models, which is no event of the disk.
            while (  # noqa: ASYNC110
                self._catalogue.watched == watched and await asyncio.to_thread(_folders, watched) == folders
            ):
                await asyncio.sleep(_LOOK_S)
            stop.set()

    async def _watch(
        self, folders: Collection[Path], only: Collection[Path], stop: asyncio.Event, *, recursive: bool
    ) -> None:
        # Nothing is awaited before the watch begins, as changes until then would be missed.
        if not folders:
            return
        changes = awatch(
            *folders,
            watch_filter=_only(only) if only else None,
            stop_event=stop,
            recursive=recursive,
            ignore_permission_denied=True,
        )
        async for _ in changes:
            self._refresh()

    def _refresh(self) -> None:
        # Refreshes are concurrent, so that a slow load does not hide other changes; but their number is limited.
        if len(self._refreshes) >= _MOST_REFRESHES:
            self._missed = True
            return
        refresh = asyncio.create_task(self._catalogue.refresh())
        self._refreshes.add(refresh)
        refresh.add_done_callback(self._end_refresh)

    def _end_refresh(self, refresh: asyncio.Task[None]) -> None:
        self._refreshes.discard(refresh)
        if refresh.cancelled():
            return
        if (error := refresh.exception()) is not None:
            log_unexpected(_LOG, "a change of model files is not followed", error)
        if self._missed:
            self._missed = False
            self._refresh()


def _only(paths: Collection[Path]) -> Callable[[Change, str], bool]:
    names = {str(path) for path in paths}
    return lambda _change, path: path in names


def _folders(paths: Collection[Path]) -> set[Path]:
    """Return the folders that can be watched. This may take long on a network disk."""
    return {path for path in paths if _is_readable_folder(path)}


def _is_readable_folder(path: Path) -> bool:
    try:
        return path.is_dir() and os.access(path, os.R_OK)
    except OSError:
        return False
