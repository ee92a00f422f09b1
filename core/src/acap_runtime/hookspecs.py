"""Every hook of the product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pluggy

from acap_runtime.backend import Backend

PROJECT: Final = "acap_runtime"
"""Name of the pluggy project, and of the entry point group that plugins register in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def acap_runtime_backends() -> Iterable[Backend]:  # type: ignore[empty-body]  # a specification has no body
    """The chips that this plugin drives."""
