"""A driver's shared library is opened, or it is said what to do about it."""

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

    `name` is a path, or what the dynamic linker looks for; an environment `variable` that is set goes before it. Raises
    `NotReady`, which ends with `advice` ("install Acme's SDK"), where the library cannot be opened, and where it lacks
    one of `functions`, or of those that are declared to cffi. To be called by `probe` and what comes after it: never
    when a plugin is imported.
    """
    chosen = (os.environ.get(variable) if variable else None) or name
    if variable:
        advice = f"{advice}, or name its file in {variable}"
    try:
        library = opener(chosen)
    except OSError as error:
        # cffi adds where else it looked, which is of no use to who does not have the library.
        reason = str(error).partition(".  Additionally,")[0]
        raise NotReady(f"{reason}; {advice}") from None
    # What cffi was told of a library are its attributes, but each is looked for only when it is used.
    missing = [each for each in (*functions, *dir(library)) if not hasattr(library, each)]
    if missing:
        raise NotReady(f"{chosen} lacks {', '.join(missing)}; {advice}")
    return library
