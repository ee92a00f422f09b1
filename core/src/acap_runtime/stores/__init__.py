"""Where the front reads parameters: a file, a camera over HTTP, or a plugin's store in a worker process."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Store(ABC):
    """What the front asks for parameters. Each says who it is in messages (`str`) and never blocks the event loop."""

    @abstractmethod
    async def probe(self) -> None:
        """Raise `NotReady` with the reason if this store cannot be used as it was configured. To be called at start."""

    @abstractmethod
    async def get(self, key: str) -> str | None:
        """The value of a parameter, with or without ``root.`` before its name; None for one that does not exist.

        Raises `AcapError`: `Unavailable` where the store cannot answer for the moment, `NotReady` where something has
        to be put right first.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything. Nothing is asked afterwards."""
