"""The front's sources of parameters: a file, a camera over HTTP, or a plugin's store in a worker process."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Store(ABC):
    """A source of parameters for the front. `str` gives its name for messages. It never blocks the event loop."""

    @abstractmethod
    async def probe(self) -> None:
        """Raise `NotReady` with the reason if this store cannot be used as configured. Call this at start."""

    @abstractmethod
    async def get(self, key: str) -> str | None:
        """Return the value of a parameter, with or without ``root.`` before its name; None if it does not exist.

        Raises `AcapError`: `Unavailable` if the store cannot answer at the moment, `NotReady` if something has to be
        fixed first.
        """

    @abstractmethod
    async def close(self) -> None:
        """Free all resources. No call follows."""
