"""Learn of a server's services by grpcio-reflection alone, and have it predict; print what was found as JSON.

The arguments are the server's address and a model with one input of three bytes.
"""

from __future__ import annotations

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, model = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    grpc.channel_ready_future(channel).result(30)
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    methods = {
        name: {method.name: method.input_type.full_name for method in pool.FindServiceByName(name).methods}
        for name in database.get_services()
    }
    service = "tensorflow.serving.PredictionService"
    method = pool.FindServiceByName(service).methods_by_name["Predict"]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    tensor = {"dtype": "DT_UINT8", "tensor_shape": {"dim": [{"size": 3}]}, "tensor_content": "AQID"}
    call = channel.unary_unary(f"/{service}/Predict", request.SerializeToString, response.FromString)
    answer = call(ParseDict({"model_spec": {"name": model}, "inputs": {"data": tensor}}, request()), timeout=30)
    try:
        database.FindFileContainingSymbol("no.such.Message")
        missing = "found"
    except KeyError:
        missing = "KeyError"
    file_of_method = database.FindFileContainingSymbol(f"{service}.Predict").name
json.dump(
    {"methods": methods, "answer": MessageToDict(answer), "missing": missing, "file of a method": file_of_method},
    sys.stdout,
)
