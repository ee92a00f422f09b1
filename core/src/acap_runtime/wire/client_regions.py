"""Parts of clients' shared memory objects, registered by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from acap_runtime.errors import AcapError, AlreadyExists, Busy, InvalidRequest, NotFound, quoted
from acap_runtime.wire.client_memory import ClientMemory, open_client_memory

_MOST_REGIONS: Final = 1024
_LONGEST_NAME: Final = 255
_MOST_BYTES: Final = 2**63 - 1
"""The largest offset that a file can have."""


@dataclass(frozen=True, slots=True)
class Region:
    """The part of `nbytes` from `offset` of the object that clients made with ``shm_open(key)``."""

    key: str
    offset: int
    nbytes: int

    def open(self, label: str, *, writable: bool = False) -> ClientMemory:
        """Open the object for this region. Raises the errors of `open_client_memory`, with a message that starts with
        `label`.
        """
        return open_client_memory(label, self.key.encode(), self.nbytes, self.offset, writable=writable)


class ClientRegions:
    """The regions that clients registered. They belong to the server, since gRPC does not identify the client of a
    call.

    Only names are kept. Objects are opened for each call, which takes 10 µs. So a client that dies leaves nothing open,
    and each call checks again that the object may be used.
    """

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    @property
    def regions(self) -> Mapping[str, Region]:
        """All regions, by name."""
        return self._regions

    def part(self, label: str, name: str, offset: int, nbytes: int) -> Region:
        """Return the part of `nbytes` from `offset` of the region called `name`.

        Raises `NotFound` if there is no such region, `InvalidRequest` if the part lies outside it.
        """
        if name not in self._regions:
            raise NotFound(
                f"{label}: shared memory region {quoted(name)} is not registered; SystemSharedMemoryRegister does that"
            )
        region = self._regions[name]
        if offset < 0 or nbytes < 0 or offset + nbytes > region.nbytes:
            raise InvalidRequest(
                f"{label}: expected bytes within the {region.nbytes} of shared memory region {quoted(name)}, got "
                f"{nbytes} from byte {offset} on"
            )
        return Region(region.key, region.offset + offset, nbytes)

    def register(self, name: str, region: Region) -> None:
        """Register a region under a name.

        A name whose object is gone can be registered again. It is dropped when room is needed. Raises `InvalidRequest`,
        `NotFound` or `Forbidden` if the object may not be used or is too small, `AlreadyExists` for a name in use,
        `Busy` if there are too many regions.
        """
        if not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise InvalidRequest(f"name: expected 1 to {_LONGEST_NAME} bytes, got {len(name.encode())}")
        label = f"region {quoted(name)}"
        if not 0 < region.nbytes <= _MOST_BYTES - region.offset:
            raise InvalidRequest(
                f"{label}: expected at least 1 byte, ending at {_MOST_BYTES} at most, got {region.nbytes} from byte "
                f"{region.offset} on"
            )
        region.open(label).close()
        if name in self._regions and not _is_gone(self._regions[name]):
            raise AlreadyExists(f"{label} is registered already; unregister it first, or choose another name")
        if len(self._regions) >= _MOST_REGIONS:
            self._regions = {known: each for known, each in self._regions.items() if not _is_gone(each)}
        if len(self._regions) >= _MOST_REGIONS:
            raise Busy(f"{_MOST_REGIONS} shared memory regions are registered, as many as may be; unregister some")
        self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Remove a region if it exists. Calls that use it continue. An empty name removes all regions."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()


def _is_gone(region: Region) -> bool:
    try:
        region.open("").close()
    except NotFound:
        return True
    except AcapError:
        pass  # the object exists, but has changed
    return False
