"""tensorflow.serving.PredictionService, as the original's and TensorFlow Serving's clients call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
import numpy as np

from acap_runtime.inference import Inference, Request
from acap_runtime.proto import PredictRequest, PredictResponse
from acap_runtime.rpc import Method, unimplemented
from acap_runtime.tensors import Tensor, TensorReader, has_data, write_tensor

SIGNATURE: Final = "serving_default"
_NO_EXAMPLES: Final = (
    "Classify, Regress and MultiInference take tensorflow.Example, which no model here does; call Predict with the "
    "model's input tensors (GetModelMetadata names them)"
)


@dataclass(frozen=True, slots=True)
class _GivenProto:
    """A TensorProto, as `Inference` takes it."""

    proto: Any
    reader: TensorReader

    @property
    def has_data(self) -> bool:
        return has_data(self.proto)

    def read(self, name: str, expected: np.dtype[Any], default_shape: tuple[int, ...]) -> Tensor:
        return self.reader.read(name, self.proto, expected, default_shape)


class PredictionService:
    """Predict, and what TensorFlow Serving has beside it."""

    name: Final = "tensorflow.serving.PredictionService"

    def __init__(self, inference: Inference, reader: TensorReader) -> None:
        self._inference = inference
        self._reader = reader
        self.methods = {
            "Predict": Method(PredictRequest, self.predict),
            **dict.fromkeys(("Classify", "Regress", "MultiInference"), unimplemented(_NO_EXAMPLES)),
        }

    async def predict(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a PredictRequest with a PredictResponse. Raises `AcapError`."""
        spec = request.model_spec
        result = await self._inference.run(
            Request(
                spec.name,
                spec.version.value if spec.HasField("version") else None,
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
