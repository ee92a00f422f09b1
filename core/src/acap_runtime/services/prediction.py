"""tensorflow.serving.PredictionService, for the clients of the original and of TensorFlow Serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
import numpy as np

from acap_runtime.errors import InvalidRequest, quoted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.inference import Inference, Request, check_count
from acap_runtime.proto import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from acap_runtime.services.rpc import Method, unimplemented
from acap_runtime.wire.tensors import Tensor, TensorReader, has_data, write_spec, write_tensor

SIGNATURE: Final = "serving_default"
_PREDICT_METHOD: Final = "tensorflow/serving/predict"
_SIGNATURES: Final = "signature_def"
"""The only metadata_field that TensorFlow Serving has."""
_NO_EXAMPLES: Final = (
    "Classify, Regress and MultiInference take tensorflow.Example, which no model here does; call Predict with the "
    "model's input tensors (GetModelMetadata names them)"
)


@dataclass(frozen=True, slots=True)
class _GivenProto:
    """A TensorProto, in the form that `Inference` takes."""

    proto: Any
    reader: TensorReader

    @property
    def has_data(self) -> bool:
        return has_data(self.proto)

    def read(self, name: str, expected: np.dtype[Any], default_shape: tuple[int, ...]) -> Tensor:
        return self.reader.read(name, self.proto, expected, default_shape)


class PredictionService:
    """Answers Predict, describes models' inputs and outputs, and refuses TensorFlow Serving's other methods."""

    name: Final = "tensorflow.serving.PredictionService"

    def __init__(self, catalogue: Catalogue, inference: Inference, reader: TensorReader) -> None:
        self._catalogue = catalogue
        self._inference = inference
        self._reader = reader
        self.methods = {
            "Predict": Method(PredictRequest, self.predict),
            "GetModelMetadata": Method(GetModelMetadataRequest, self.get_model_metadata),
            **dict.fromkeys(("Classify", "Regress", "MultiInference"), unimplemented(_NO_EXAMPLES)),
        }

    async def predict(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a PredictRequest with a PredictResponse. Raises `AcapError`."""
        spec = request.model_spec
        check_count("inputs", len(request.inputs))
        check_count("output_filter", len(request.output_filter))
        result = await self._inference.run(
            Request(
                spec.name,
                _version(spec),
                spec.version_label,
                {name: _GivenProto(proto, self._reader) for name, proto in request.inputs.items()},
                request.output_filter,
                "output_filter",
                request.stream_id,
                context.time_remaining(),
            )
        )
        response = PredictResponse(frame_reference=result.frame)
        response.model_spec.name = spec.name
        response.model_spec.version.value = result.version.number
        response.model_spec.signature_name = spec.signature_name or SIGNATURE
        for output in result.answer.outputs:
            write_tensor(response.outputs[output.name], output.dtype, output.shape, output.content)
        return response

    async def get_model_metadata(self, request: Any, _context: Any) -> Any:
        """Answer a GetModelMetadataRequest with the one signature that each model has, packed in an Any.

        The call waits for a model that is loading, as Predict does. Raises `InvalidRequest` for a request without a
        metadata_field or with one other than ``signature_def``, and the errors of `Catalogue.use`.
        """
        if not request.metadata_field:
            raise InvalidRequest(f"metadata_field: expected {_SIGNATURES!r}, got nothing")
        if unknown := [field for field in request.metadata_field if field != _SIGNATURES]:
            raise InvalidRequest(f"metadata_field: expected {_SIGNATURES!r}, got {quoted(unknown[0])}")
        spec = request.model_spec
        signatures = SignatureDefMap()
        signature = signatures.signature_def[SIGNATURE]
        signature.method_name = _PREDICT_METHOD
        async with self._catalogue.use(spec.name, _version(spec), spec.version_label) as version:
            for tensor in version.model.inputs:
                write_spec(signature.inputs[tensor.name], tensor)
            for tensor in version.model.outputs:
                write_spec(signature.outputs[tensor.name], tensor)
        response = GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version.number
        response.metadata[_SIGNATURES].Pack(signatures)
        return response


def _version(spec: Any) -> int | None:
    """Return the number of the version that a ModelSpec asks for, if any."""
    return int(spec.version.value) if spec.HasField("version") else None
