"""Translates larod's errors to the contract's."""

from __future__ import annotations

import errno
from typing import Final

import acap_runtime as acap

from acap_runtime_larod.library import ffi

_NAMES: Final[dict[int, str]] = ffi.typeof("larodErrorCode").elements
CODES: Final = {name.removeprefix("LAROD_ERROR_"): code for code, name in _NAMES.items()}

_LOST_CONNECTION: Final = frozenset(
    {
        *(CODES["CONNECTION"], CODES["CREATE_SESSION"], CODES["KILL_SESSION"]),
        *(errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED, errno.ECONNREFUSED),
    }
)
_KINDS: Final[dict[int, type[acap.AcapError]]] = {
    **dict.fromkeys(_LOST_CONNECTION, acap.Unavailable),
    CODES["MODEL_NOT_FOUND"]: acap.Unavailable,
    CODES["POWER_NOT_AVAILABLE"]: acap.Unavailable,
    CODES["LOAD_MODEL"]: acap.InvalidRequest,
    CODES["TENSOR_MISMATCH"]: acap.InvalidRequest,
    CODES["PERMISSION"]: acap.Forbidden,
}
_ADVICE: Final = {
    CODES["MODEL_NOT_FOUND"]: "; it is loaded anew with the next request: try again",
    CODES["POWER_NOT_AVAILABLE"]: "; other work uses the device's power: try again later",
    CODES["PERMISSION"]: "; run this as a user, or in a container, that may use larod",
    **dict.fromkeys(_LOST_CONNECTION, "; this connects anew with the next request: try again"),
}


class LarodFailure(Exception):
    """A function of larod failed. `code` is a larodErrorCode, or an errno if it is positive."""

    def __init__(self, function: str, code: int, message: str) -> None:
        super().__init__(function, code, message)
        self.function = function
        self.code = code
        self.message = message

    @property
    def needs_reload(self) -> bool:
        """True if the connection, or the model in the service, is gone."""
        return self.code in _LOST_CONNECTION or self.code == CODES["MODEL_NOT_FOUND"]

    def as_error(self, doing: str) -> acap.AcapError:
        """Return the error for the caller, with `doing`, larod's message and the name of its code."""
        kind = _KINDS.get(self.code, acap.DeviceError)
        return kind(f"{doing}: {self}{_ADVICE.get(self.code, '')}")

    def __str__(self) -> str:
        name = errno.errorcode.get(self.code, "") if self.code > 0 else _NAMES.get(self.code, "")
        return f"{self.message} ({name or self.code} from {self.function})"
