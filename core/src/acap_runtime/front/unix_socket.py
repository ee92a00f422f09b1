"""Claims the path of a unix socket, so that only one server uses it and no dead socket stays there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from acap_runtime.errors import InvalidRequest, NotReady

_LONGEST_PATH: Final = 107  # bytes, unix(7)


@contextlib.contextmanager
def claimed_socket(path: Path) -> Iterator[None]:
    """Hold the lock file beside `path`, and make sure that the path is free to bind. Remove both at exit.

    A socket whose server died is removed. Raises `NotReady` if a running server has the path, naming its process, or if
    something other than a socket is there.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidRequest(f"socket path {path}: expected at most {_LONGEST_PATH} bytes (--socket)")
    with _lock(path.with_name(f"{path.name}.lock"), path):
        _remove_stale(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def file_creation_mode(mode: int) -> Iterator[None]:
    """Set the umask so that files and sockets created in this context have `mode` from the start.

    A chmod after the creation would come too late: for a moment others could connect.
    """
    before = os.umask(~mode & 0o777)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _lock(lock: Path, path: Path) -> Iterator[None]:
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise NotReady(f"cannot make the lock file {lock}: {error.strerror}; choose another --socket") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            os.close(descriptor)
            raise NotReady(f"{lock} is not a lock file of this user's; remove it or choose another --socket")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise NotReady(
                f"socket {path} is served by process {holder} already; stop it or choose another --socket"
            ) from None
        # The previous holder may have removed the file after the open above and before the lock.
        if _same_file(descriptor, lock):
            break
        os.close(descriptor)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise NotReady(f"{path} exists and is no socket; remove it or choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise NotReady(f"{path} cannot be tried: {error}; remove it or choose another --socket") from None
        credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, _, _ = struct.unpack("3i", credentials)
    raise NotReady(f"socket {path} is served by process {process} already; stop it or choose another --socket")
