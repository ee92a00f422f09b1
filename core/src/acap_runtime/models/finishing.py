"""Work that is finished even if nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Finishing:
    """What was begun and is not done yet: so many pieces of work as its length says."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, and wait until it is done; who gives up waiting leaves it to be done all the same."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it
