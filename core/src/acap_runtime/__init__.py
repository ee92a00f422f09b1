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
from acap_runtime.camera import (
    STREAM_FORMATS,
    Camera,
    EncodedFormat,
    Frame,
    Stream,
    StreamFormat,
    StreamSettings,
)
from acap_runtime.driver_library import open_library
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
from acap_runtime.parameters import ParameterStore
from acap_runtime.surprises import log_unexpected, unexpected

__all__ = [
    "IMAGE_FORMATS",
    "STREAM_FORMATS",
    "AcapError",
    "Array",
    "Backend",
    "Busy",
    "Camera",
    "Conversion",
    "Crop",
    "DeviceError",
    "EncodedFormat",
    "Forbidden",
    "Frame",
    "Image",
    "ImageFormat",
    "InferenceBackend",
    "InvalidRequest",
    "Model",
    "NotFound",
    "NotReady",
    "ParameterStore",
    "ProcessingBackend",
    "Quantisation",
    "Stream",
    "StreamFormat",
    "StreamSettings",
    "TensorSpec",
    "Unavailable",
    "hookimpl",
    "log_unexpected",
    "open_library",
    "unexpected",
]
