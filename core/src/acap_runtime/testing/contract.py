"""The base of all contracts: facts about a plugin that the report shows beside the results of its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

Kind: TypeAlias = Literal["inference", "processing", "camera", "parameters"]


class Contract:
    """The base of every contract. Its attributes appear in the report and change no check."""

    kind: ClassVar[Kind]
    capabilities: ClassVar[tuple[str, ...]] = ()
    """Attributes with which a subclass declares what is not supported: False means not supported."""
    reasons: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The reasons for attributes that are False: ``{"crops": "the driver has no call for it"}``."""
    tested_on: ClassVar[str] = ""
    """The system that these tests run on everywhere, if not the device itself, such as ``a stand-in for larod``."""
    needs_hardware: ClassVar[bool] = False
    """True if this class tests a device that few machines have. Its results are left out of documents, which are the
    same on all machines."""
    may_import: ClassVar[frozenset[str]] = frozenset()
    """Small packages outside the standard library that the plugin needs to describe itself."""
    proven: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """The actions of a check, with their number of repetitions and the number that enough time would allow. The check
    sets this on the instance that pytest makes for it."""

    def shows(self, check: str, arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Return what a check proves if it passes with these arguments.

        Each item is the name of a list in the report and an entry for that list. An entry is left out of the report
        if any check that should prove it does not pass.
        """
        del check, arguments
        return ()
