"""The contract for parameter stores: where a device keeps its parameters, such as ``root.Brand.Brand``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class ParameterStore(ABC):
    """A store that a plugin brings. Built in the front, where it only tells its name; everything else happens in a
    worker process, one call at a time.
    """

    name: ClassVar[str]
    """What ``--parameters`` calls it, such as ``axparameter``."""
    own: ClassVar[bool] = False
    """Whether this is the device's own store, used where the operator names none."""

    @abstractmethod
    def probe(self) -> None:
        """Raise `NotReady` with the reason if this store cannot be used here and now."""

    @abstractmethod
    def get(self, key: str) -> str | None:
        """The value of a parameter, such as ``root.Brand.Brand``; None for one that does not exist. `key` always begins
        with ``root.``.

        Raises `Unavailable` where the store cannot answer for the moment.
        """
