"""What all contracts have in common: what the report says of a plugin beside the results of its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

Kind: TypeAlias = Literal["inference", "processing", "camera", "parameters"]


class Contract:
    """The base of every contract. What a test class says here changes no check; the report shows it."""

    kind: ClassVar[Kind]
    capabilities: ClassVar[tuple[str, ...]] = ()
    """Attributes with which a subclass says what cannot be done: False where it cannot."""
    reasons: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Why not, for attributes that say so: ``{"crops": "the driver has no call for it"}``."""
    tested_on: ClassVar[str] = ""
    """What these tests run on wherever they are run, if not the device itself, such as ``a stand-in for larod``."""
    needs_hardware: ClassVar[bool] = False
    """Whether this class tests a device that few machines have: what it finds is not for documents, which are the same
    on all machines."""
    may_import: ClassVar[frozenset[str]] = frozenset()
    """Small packages outside the standard library that the plugin needs to tell who it is."""
    proven: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """What a check did, how often, and how often it would have with enough time: set by the check, on the instance that
    pytest makes for it."""

    def shows(self, check: str, arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """What the check of this name shows if it passes with these arguments: the name of a list of the report's, and
        what belongs into it. What one check shows and another fails to, is not shown.
        """
        del check, arguments
        return ()
