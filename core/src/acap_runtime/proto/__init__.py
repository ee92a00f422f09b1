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


# TensorFlow Serving's.
TensorProto = _message("tensorflow.TensorProto")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
SignatureDefMap = _message("tensorflow.serving.SignatureDefMap")
GetModelMetadataRequest = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest = _message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _message("tensorflow.serving.GetModelStatusResponse")
ModelServerConfig = _message("tensorflow.serving.ModelServerConfig")
ReloadConfigRequest = _message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = _message("tensorflow.serving.ReloadConfigResponse")

# KServe's, and Triton's.
ServerLiveRequest = _message("inference.ServerLiveRequest")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyRequest = _message("inference.ServerReadyRequest")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ServerMetadataRequest = _message("inference.ServerMetadataRequest")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
ModelConfigRequest = _message("inference.ModelConfigRequest")
ModelConfigResponse = _message("inference.ModelConfigResponse")
ModelStatisticsRequest = _message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("inference.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("inference.RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("inference.RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("inference.RepositoryModelUnloadResponse")
SystemSharedMemoryStatusRequest = _message("inference.SystemSharedMemoryStatusRequest")
SystemSharedMemoryStatusResponse = _message("inference.SystemSharedMemoryStatusResponse")
SystemSharedMemoryRegisterRequest = _message("inference.SystemSharedMemoryRegisterRequest")
SystemSharedMemoryRegisterResponse = _message("inference.SystemSharedMemoryRegisterResponse")
SystemSharedMemoryUnregisterRequest = _message("inference.SystemSharedMemoryUnregisterRequest")
SystemSharedMemoryUnregisterResponse = _message("inference.SystemSharedMemoryUnregisterResponse")
CudaSharedMemoryStatusRequest = _message("inference.CudaSharedMemoryStatusRequest")
CudaSharedMemoryStatusResponse = _message("inference.CudaSharedMemoryStatusResponse")
CudaSharedMemoryUnregisterRequest = _message("inference.CudaSharedMemoryUnregisterRequest")
CudaSharedMemoryUnregisterResponse = _message("inference.CudaSharedMemoryUnregisterResponse")

# Axis'.
NewStreamRequest = _message("videocapture.v1.NewStreamRequest")
NewStreamResponse = _message("videocapture.v1.NewStreamResponse")
DeleteStreamRequest = _message("videocapture.v1.DeleteStreamRequest")
DeleteStreamResponse = _message("videocapture.v1.DeleteStreamResponse")
GetFrameRequest = _message("videocapture.v1.GetFrameRequest")
GetFrameResponse = _message("videocapture.v1.GetFrameResponse")
ParameterRequest = _message("keyvaluestore.Request")
ParameterResponse = _message("keyvaluestore.Response")

# Our own.
GetStatusRequest = _message("acapruntime.v1.GetStatusRequest")
GetStatusResponse = _message("acapruntime.v1.GetStatusResponse")
GetModelRequest = _message("acapruntime.v1.GetModelRequest")
ModelStatus = _message("acapruntime.v1.Model")
