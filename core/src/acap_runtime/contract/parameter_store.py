"""The contract for parameter stores: the place where a device keeps its parameters, such as ``root.Brand.Brand``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class ParameterStore(ABC):
    """A store that a plugin brings. It is built in the front, which only asks its name. Everything else happens in a
    worker process, one call at a time.
    """

    name: ClassVar[str]
    """The name of the store for ``--parameters``, such as ``axparameter``."""
    own: ClassVar[bool] = False
    """True if this is the device's own store, which is used where the operator names none."""

    @abstractmethod
    def probe(self) -> None:
        """Raise `NotReady` with the reason if this store cannot be used here and now."""

    @abstractmethod
    def get(self, key: str) -> str | None:
        """Return the value of a parameter, such as ``root.Brand.Brand``; None if it does not exist. `key` always begins
        with ``root.``.

        Raises `Unavailable` if the store cannot answer at the moment.
        """
