"""Opens a driver's shared library, or reports how to install it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from acap_runtime.errors import NotReady

LibraryT = TypeVar("LibraryT")


def open_library(
    opener: Callable[[str], LibraryT],
    name: str,
    *,
    advice: str,
    variable: str | None = None,
    functions: Iterable[str] = (),
) -> LibraryT:
    """Open a shared library by ``ctypes.CDLL``, or by ``dlopen`` of a ``cffi.FFI``.

    `name` is a path, or a name for the dynamic linker to look up. An environment `variable` that is set takes
    precedence. Raises `NotReady`, whose message ends with `advice` ("install Acme's SDK"), if the library cannot be
    opened or lacks one of `functions` or one of those declared to cffi. Call this from `probe` or later, never when a
    plugin is imported.
    """
    chosen = (os.environ.get(variable) if variable else None) or name
    if variable:
        advice = f"{advice}, or name its file in {variable}"
    try:
        library = opener(chosen)
    except OSError as error:
        # cffi appends the other places where it looked. They do not help a user who does not have the library.
        reason = str(error).partition(".  Additionally,")[0]
        raise NotReady(f"{reason}; {advice}") from None
    # The declarations given to cffi are the library's attributes, but cffi looks up each one only on first use.
    missing = [each for each in (*functions, *dir(library)) if not hasattr(library, each)]
    if missing:
        raise NotReady(f"{chosen} lacks {', '.join(missing)}; {advice}")
    return library
