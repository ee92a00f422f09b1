"""Call methods of TensorFlow Serving with the messages and stubs of tensorflow-serving-api alone.

The arguments are the server's address, then pairs of a method and its request as JSON. Prints a list of what came, as
JSON: a response, or ``code`` and ``details``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}


def call(channel: grpc.Channel, method: str, request: str) -> Any:
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    stub = prediction if hasattr(prediction, method) else model_service_pb2_grpc.ModelServiceStub(channel)
    message = json_format.Parse(request, REQUESTS[method]())
    try:
        response = getattr(stub, method)(message, timeout=30, wait_for_ready=True)
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    return json_format.MessageToDict(response, preserving_proto_field_name=True)


address, *words = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    calls = zip(words[::2], words[1::2], strict=True)
    json.dump([call(channel, method, request) for method, request in calls], sys.stdout)
