"""Every hook of the product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pluggy

from acap_runtime.contract.backend import Backend
from acap_runtime.contract.camera import Camera
from acap_runtime.contract.parameter_store import ParameterStore

PROJECT: Final = "acap_runtime"
"""Name of the pluggy project, and of the entry point group that plugins register in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def acap_runtime_backends() -> Iterable[Backend]:  # type: ignore[empty-body]  # a specification has no body
    """The chips that this plugin drives."""


@hookspec
def acap_runtime_cameras() -> Iterable[Camera]:  # type: ignore[empty-body]
    """The kinds of source that this plugin takes video from."""


@hookspec
def acap_runtime_parameter_stores() -> Iterable[ParameterStore]:  # type: ignore[empty-body]
    """The stores that this plugin reads parameters from."""
