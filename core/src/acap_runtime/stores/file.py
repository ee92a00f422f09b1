"""Reads parameters from a file, for a device that has none of its own, or from a saved answer of a camera."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

from acap_runtime.errors import NotReady, Unavailable
from acap_runtime.stores import Store
from acap_runtime.stores.listing import LARGEST, bare, parse_listing
from acap_runtime.stores.regular_file import open_regular

_PATIENCE_S: Final = 5.0
_SETTLED_NS: Final = 2 * 10**9
"""A file that changed this recently may change again within one tick of its file system's clock, which stat cannot
detect.
"""

_Identity: TypeAlias = tuple[int, int, int, int]


class FileStore(Store):
    """A file in the format of ``param.cgi?action=list`` (see `listing`). It is read again whenever it has changed.

    To change the file, write a new file and rename it into place; otherwise a reader may see a partial file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        # One thread: if the disk hangs, calls queue for this thread and time out, rather than occupy ever more threads.
        self._reader = ThreadPoolExecutor(1, "parameters")
        self._known: tuple[_Identity | None, Mapping[str, str]] = (None, {})

    def __str__(self) -> str:
        return f"parameters file {self._path}"

    async def probe(self) -> None:
        try:
            await self._values()
        except Unavailable as error:
            raise NotReady(str(error)) from None

    async def get(self, key: str) -> str | None:
        return (await self._values()).get(bare(key))

    async def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def _values(self) -> Mapping[str, str]:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.get_running_loop().run_in_executor(self._reader, self._read)
        except TimeoutError:
            raise Unavailable(f"{self} could not be read within {_PATIENCE_S:g} s") from None

    def _read(self) -> Mapping[str, str]:
        try:
            with open_regular(self._path) as file:
                status = os.fstat(file.fileno())
                identity, values = self._known
                if _identity(status) == identity:
                    return values
                content = file.read(LARGEST + 1)
                unchanged = _identity(os.fstat(file.fileno())) == _identity(status)
        except OSError as error:
            raise Unavailable(f"{self} cannot be read: {error.strerror}") from None
        if len(content) > LARGEST:
            raise Unavailable(f"{self}: expected at most {LARGEST >> 20} MiB, got more")
        settled = unchanged and time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        values = parse_listing(content)
        self._known = (_identity(status) if settled else None, values)
        return values


def _identity(status: os.stat_result) -> _Identity:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
