"""What plugin authors import: ``import acap_runtime as acap``."""

from acap_runtime.backend import (
    IMAGE_FORMATS,
    Array,
    Backend,
    Conversion,
    Crop,
    Image,
    ImageFormat,
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
    "IMAGE_FORMATS",
    "AcapError",
    "Array",
    "Backend",
    "Busy",
    "Conversion",
    "Crop",
    "DeviceError",
    "Forbidden",
    "Image",
    "ImageFormat",
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
