"""What plugin authors import: ``import acap_runtime as acap``."""

import sys

from acap_runtime.contract.backend import (
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
from acap_runtime.contract.camera import (
    STREAM_FORMATS,
    Camera,
    EncodedFormat,
    Frame,
    Stream,
    StreamFormat,
    StreamSettings,
)
from acap_runtime.contract.driver_library import open_library
from acap_runtime.contract.hookspecs import hookimpl
from acap_runtime.contract.parameter_store import ParameterStore
from acap_runtime.contract.unexpected import log_unexpected, unexpected
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

# The contract's modules were published under these names, which stay.
backend, camera, parameters = (
    sys.modules[name] for name in (Model.__module__, Camera.__module__, ParameterStore.__module__)
)
sys.modules |= {f"{__name__}.backend": backend, f"{__name__}.camera": camera, f"{__name__}.parameters": parameters}

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
