"""What plugin authors import: ``import acap_runtime as acap``."""

from acap_runtime.backend import (
    Array,
    Backend,
    Conversion,
    Crop,
    Image,
    InferenceBackend,
    Model,
    ProcessingBackend,
    Quantisation,
    TensorSpec,
)
from acap_runtime.errors import (
    AcapError,
    Busy,
    DeviceError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    Unavailable,
)
from acap_runtime.hookspecs import hookimpl

__all__ = [
    "AcapError",
    "Array",
    "Backend",
    "Busy",
    "Conversion",
    "Crop",
    "DeviceError",
    "Forbidden",
    "Image",
    "InferenceBackend",
    "InvalidRequest",
    "Model",
    "NotFound",
    "NotReady",
    "ProcessingBackend",
    "Quantisation",
    "TensorSpec",
    "Unavailable",
    "hookimpl",
]
