"""Reads the user name and password for a camera, from a file that only its owner can read or from the environment.

They are never on the command line, which every process of the machine can read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from acap_runtime.errors import NotReady
from acap_runtime.stores.regular_file import open_regular

USER: Final = "ACAPRUNTIME_PARAMETERS_USER"
PASSWORD: Final = "ACAPRUNTIME_PARAMETERS_PASSWORD"  # noqa: S105 - the variable's name
_LARGEST: Final = 4096
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password for a camera. `repr` shows neither."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def read_credentials(path: Path | None, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Read the credentials in the file at `path` (``user:password`` in one line) or else in the environment; None if
    neither has any.

    Raises `NotReady` for a file that cannot be read, that others can read or that contains anything else, and if only
    one of the two is in the environment.
    """
    if path is not None:
        return _read_file(path)
    user, password = environment.get(USER, ""), environment.get(PASSWORD, "")
    if not user and not password:
        return None
    if not user or not password:
        missing, given = (USER, PASSWORD) if not user else (PASSWORD, USER)
        raise NotReady(f"credentials for parameters: expected {missing} beside {given}, got none")
    return Credentials(user, password)


def _read_file(path: Path) -> Credentials:
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS:
                raise NotReady(
                    f"--parameters-credentials {path}: expected a file that only its owner can read, got "
                    f"{stat.filemode(mode)}; chmod 600 {path}, and change the password if others may have read it"
                )
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise NotReady(f"--parameters-credentials {path} cannot be read: {error.strerror}") from None
    user, separator, password = _text(content).removesuffix("\n").removesuffix("\r").partition(":")
    if not user or not separator or not password or "\n" in password or len(content) > _LARGEST:
        raise NotReady(f"--parameters-credentials {path}: expected one line, user:password, in UTF-8")
    return Credentials(user, password)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""
