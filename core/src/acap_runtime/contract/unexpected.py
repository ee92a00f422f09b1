"""Describes unexpected exceptions in one line that names the library, and logs the traceback at DEBUG."""

from __future__ import annotations

import logging
import traceback
from typing import Final

from acap_runtime.errors import AcapError, redacted

_LONGEST_TEXT: Final = 500


def unexpected(error: BaseException) -> str:
    """Describe an exception in one line: ``unexpected TypeError: open() got an unexpected keyword argument
    'metadata_errors' (av 19.0.2, called by acap-runtime-video 0.1.0, opening.py:31)``. The contract's own errors are
    described by their message alone.

    The line shows no credentials of URLs. This function never raises.
    """
    if isinstance(error, AcapError):
        return str(error)
    text = _text(error)
    try:
        from acap_runtime.contract.origins import origin  # noqa: PLC0415 - plugins that import the contract need none of it

        came_from = origin(error)
    except Exception:  # noqa: BLE001 - a damaged package must not hide the exception
        came_from = ""
    return f"unexpected {type(error).__name__}{text and f': {text}'}{came_from and f' ({came_from})'}"


def log_unexpected(log: logging.Logger, doing: str, error: BaseException) -> None:
    """Log the description of an exception by `unexpected` at ERROR, and its traceback at DEBUG, for ``--verbose``."""
    log.error("%s: %s", doing, unexpected(error))
    log_traceback(log, doing, error)


def log_traceback(log: logging.Logger, doing: str, error: BaseException) -> None:
    """Log only the traceback, at DEBUG, for an exception whose description is reported elsewhere. The contract's own
    errors have no traceback.
    """
    if not isinstance(error, AcapError) and log.isEnabledFor(logging.DEBUG):
        lines = "".join(traceback.format_exception(error)).splitlines()
        log.debug("%s:\n%s", doing, "\n".join(map(redacted, lines)))


def _text(error: BaseException) -> str:
    """Return the exception's message in one line of bounded length."""
    try:
        text = redacted(str(error))
    except Exception:  # noqa: BLE001 - the class is a plugin's or a library's
        return ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}…"
