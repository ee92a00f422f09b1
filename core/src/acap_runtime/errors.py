"""Errors, in words that name no transport: the front alone turns them into gRPC statuses.

Every message says what was expected, what came, and what to do about it.
"""

from __future__ import annotations

import re
from typing import Self


class AcapError(Exception):
    """Base of every error that this package and its plugins raise on purpose."""

    def copy(self) -> Self:
        """Return a copy to raise. An error object that is raised over and over would grow its traceback without end."""
        return type(self)(*self.args)

    again = copy
    """The name of `copy` until 0.1."""


class InvalidRequest(AcapError):
    """The request is malformed or does not fit: a shape, a dtype, an option, a model file."""


class NotFound(AcapError):
    """A thing that the caller named does not exist."""


class AlreadyExists(AcapError):
    """The caller gives something a name that is taken."""


class NotReady(AcapError):
    """A precondition is missing here: a library, a device, a plugin, a setting."""


class Unavailable(AcapError):
    """Something that normally works is down for the moment. The same call may succeed later."""


class Busy(AcapError):
    """A limit is reached: a queue, memory, a number of models."""


class TooLate(AcapError):
    """The caller's deadline passed before its turn came."""


class DeviceError(AcapError):
    """The chip, its driver or the model failed on a valid request."""


class Forbidden(AcapError):
    """The caller may not use a thing that it named."""


class Unimplemented(AcapError):
    """The caller asked for a part of a protocol that this server does not have."""


class Incomplete(AcapError):
    """Some of the things that the caller asked for were done, and others failed."""


def quoted(text: object, limit: int = 120) -> str:
    """Quote something that a client sent, short enough for a status message and free of control characters."""
    literal = repr(str(text)[: limit + 1])
    return literal if len(literal) <= limit + 2 else f"{literal[:limit]}…'"


def redacted(source: str) -> str:
    """Remove the secrets from a URL: the user information and the query, since cameras take passwords in both.

    Text that is no URL stays as it is.
    """
    return re.sub(r"(://[^\s?]*\?).+", r"\1…", re.sub(r"(?<=://).*@", "***@", source, flags=re.DOTALL), flags=re.DOTALL)
