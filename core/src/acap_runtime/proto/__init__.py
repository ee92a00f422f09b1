"""Classes of the messages on the wire.

They live in a descriptor pool of their own: in protobuf's default pool they would clash with the same messages of
TensorFlow, tensorflow-serving-api or tritonclient in a user's process. ``core/build_proto.py`` makes ``api.binpb``
from the .proto files beside it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

POOL = DescriptorPool()
for _file in FileDescriptorSet.FromString(files(__name__).joinpath("api.binpb").read_bytes()).file:
    POOL.Add(_file)


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(name))


TensorProto = _message("tensorflow.TensorProto")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
NewStreamRequest = _message("videocapture.v1.NewStreamRequest")
NewStreamResponse = _message("videocapture.v1.NewStreamResponse")
DeleteStreamRequest = _message("videocapture.v1.DeleteStreamRequest")
DeleteStreamResponse = _message("videocapture.v1.DeleteStreamResponse")
GetFrameRequest = _message("videocapture.v1.GetFrameRequest")
GetFrameResponse = _message("videocapture.v1.GetFrameResponse")
ParameterRequest = _message("keyvaluestore.Request")
ParameterResponse = _message("keyvaluestore.Response")
