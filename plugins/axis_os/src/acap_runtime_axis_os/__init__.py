"""acap-runtime plugin: an Axis device's own camera, through VDO, and its parameters, through axparameter."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_axis_os.camera import VdoCamera
from acap_runtime_axis_os.store import AxParameterStore

__all__ = ["AxParameterStore", "VdoCamera"]


@acap.hookimpl
def acap_runtime_cameras() -> list[acap.Camera]:
    return [VdoCamera()]


@acap.hookimpl
def acap_runtime_parameter_stores() -> list[acap.ParameterStore]:
    return [AxParameterStore()]
