"""Send a PredictRequest made by tensorflow-serving-api alone; print what comes back as JSON.

The arguments are the server's address, a model, an input's name and the numbers in it.
"""

from __future__ import annotations

import json
import struct
import sys

import grpc
from google.protobuf import json_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

address, model, name, *numbers = sys.argv[1:]
request = predict_pb2.PredictRequest()
request.model_spec.name = model
request.model_spec.signature_name = "serving_default"
tensor = request.inputs[name]
tensor.dtype = types_pb2.DT_FLOAT
tensor.tensor_shape.dim.add(size=1)
tensor.tensor_shape.dim.add(size=len(numbers))
tensor.tensor_content = struct.pack(f"<{len(numbers)}f", *map(float, numbers))
with grpc.insecure_channel(address) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(request, timeout=30, wait_for_ready=True)
json.dump(json_format.MessageToDict(response), sys.stdout)
