"""The worker processes of all chips that models run on, one for each chip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeAlias

from acap_runtime.chips.supervisor import Worker
from acap_runtime.errors import AcapError, NotReady
from acap_runtime.plugins.installed import InstalledChip

SelectChip: TypeAlias = Callable[[str], InstalledChip | None]
"""Finds a chip by number, name or alias; None for no chip. Raises `InvalidRequest` or `NotReady`."""


class Workers:
    """Makes the worker of a chip for the first model that names the chip. Others run on the `default`."""

    def __init__(
        self, default: InstalledChip | None, select: SelectChip, make: Callable[[InstalledChip], Worker]
    ) -> None:
        self._select = select
        self._make = make
        self._workers: dict[InstalledChip, Worker] = {}
        self.default = None if default is None else self._of(default)
        """The worker of the server's own chip; None for a server without one."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def of(self, word: str | None) -> Worker:
        """Return the worker of the chip that a model names, or the default. Raises `InvalidRequest` or `NotReady`."""
        if word is None:
            if self.default is None:
                raise NotReady(
                    "this server runs without inference; start it with -j CHIP (acapruntime chips lists them)"
                )
            return self.default
        chip = self._select(word)
        if chip is None:
            raise NotReady(f"chip {word} is no chip, on which nothing runs")
        return self._of(chip)

    def refuse(self, error: AcapError) -> None:
        """Fail all waiting and future calls and loads with `error`."""
        for worker in self:
            worker.refuse(error)

    async def stop(self) -> None:
        """End all processes, as `Worker.stop` does."""
        await asyncio.gather(*(worker.stop() for worker in self))

    def _of(self, chip: InstalledChip) -> Worker:
        if chip not in self._workers:
            self._workers[chip] = self._make(chip)
        return self._workers[chip]
