"""What is seen of changes on disk, without a server."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from acap_runtime.models.watching import Watcher


class Changing:
    """What is watched: something new comes up right when it is looked at for the first time, and nothing after that."""

    def __init__(self, folder: Path) -> None:
        self.watched = frozenset([folder])
        self.looks = 0
        self.seen = asyncio.Event()
        self._folder = folder

    async def refresh(self) -> None:
        self.looks += 1
        if self.looks == 1:
            (self._folder / "new").touch()
        else:
            self.seen.set()


def test_what_comes_up_during_the_first_look_is_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        changing = Changing(tmp_path)
        watching = asyncio.create_task(Watcher(changing).run())
        try:
            async with asyncio.timeout(10):
                await changing.seen.wait()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    asyncio.run(scenario())
