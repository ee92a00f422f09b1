"""Locates the bytes of an input until they are copied to a worker: in the request, or in a client's shared memory. That
memory may also take answers.

A client's object is read and written, never mapped. If a client truncates an object while it is in use, that client
gets an error; with a mapping, this process would end with SIGBUS.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from acap_runtime.errors import Forbidden, InvalidRequest, NotFound, quoted

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - the location of POSIX shared memory on Linux, shm_overview(7)
_LONGEST_NAME: Final = 255


@dataclass(slots=True)
class ClientMemory:
    """An open shared memory object of a client. The tensor has `nbytes` of it, starting at `offset`."""

    label: str
    descriptor: int
    nbytes: int
    offset: int = 0

    def write_into(self, target: memoryview) -> None:
        done = 0
        while done < self.nbytes:
            try:
                count = os.preadv(self.descriptor, [target[done : self.nbytes]], self.offset + done)
            except OSError as error:
                raise InvalidRequest(f"{self.label} cannot be read: {error.strerror}") from None
            if count == 0:
                raise InvalidRequest(f"{self.label} shrank while it was read: expected {self.nbytes} bytes, got {done}")
            done += count

    def store(self, content: bytes) -> None:
        """Write an answer to the start of the memory. The rest of it stays unchanged.

        Raises `InvalidRequest` if the answer does not fit, or if the object was not opened for writing.
        """
        if len(content) > self.nbytes:
            raise InvalidRequest(f"{self.label}: expected room for {len(content)} bytes, got {self.nbytes}")
        view = memoryview(content)
        done = 0
        while done < len(content):
            try:
                done += os.pwrite(self.descriptor, view[done:], self.offset + done)
            except OSError as error:
                raise InvalidRequest(f"{self.label} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        os.close(self.descriptor)


def open_client_memory(
    label: str, name: bytes, nbytes: int, offset: int = 0, *, writable: bool = False
) -> ClientMemory:
    """Open the object that a client called `name`. Check that the client may use it and that it is large enough.

    A gRPC server does not know the user of its caller. But any process that created an object as the server's user or
    group could also have connected to the socket, which has the same user and group and mode 0660. Raises
    `InvalidRequest`, `NotFound` or `Forbidden`. The message starts with `label`.
    """
    label = f"{label}: shared memory {quoted(name.decode('utf-8', 'replace'))}"
    stem = name.removeprefix(b"/")
    if not stem or b"/" in stem or b"\0" in stem or stem in (b".", b"..") or len(stem) > _LONGEST_NAME:
        raise InvalidRequest(f"{label}: expected a name such as '/capture', with no other slash, of 1 to 255 bytes")
    try:
        # O_NONBLOCK: a FIFO of that name must not block the server.
        descriptor = os.open(
            os.fsencode(_FOLDER) + b"/" + stem,
            (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
        )
    except FileNotFoundError:
        raise NotFound(
            f"{label} does not exist; create it with shm_open and write the tensor before the call"
        ) from None
    except OSError as error:
        purpose = "writing" if writable else "reading"
        raise Forbidden(f"{label} cannot be opened for {purpose}: {error.strerror}") from None
    try:
        _check(label, os.fstat(descriptor), offset + nbytes, writable=writable)
    except BaseException:
        os.close(descriptor)
        raise
    return ClientMemory(label, descriptor, nbytes, offset)


def _check(label: str, status: os.stat_result, nbytes: int, *, writable: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Forbidden(f"{label} is no shared memory object")
    groups = status.st_gid == os.getegid() and status.st_mode & (stat.S_IWGRP if writable else stat.S_IRGRP)
    if status.st_uid != os.geteuid() and not groups:
        raise Forbidden(
            f"{label} belongs to user {status.st_uid}, group {status.st_gid}; "
            f"expected the server's user {os.geteuid()}, or its group {os.getegid()} and "
            f"{'writable' if writable else 'readable'} by that"
        )
    if status.st_size < nbytes:
        raise InvalidRequest(f"{label}: expected {nbytes} bytes, got {status.st_size}")
