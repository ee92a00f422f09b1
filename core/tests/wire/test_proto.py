"""The classes of messages. tests/wire/test_published_messages.py compares their fields with the published ones."""

from __future__ import annotations

import subprocess
import sys

from acap_runtime.proto import (
    GetModelMetadataResponse,
    ModelInferRequest,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
    TensorProto,
)


def test_axis_additions_have_the_originals_numbers() -> None:
    assert PredictRequest.DESCRIPTOR.fields_by_name["stream_id"].number == 10
    assert PredictResponse.DESCRIPTOR.fields_by_name["frame_reference"].number == 10


def test_a_message_survives_the_wire() -> None:
    request = PredictRequest(stream_id=7, output_filter=["a", "b"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 1
    request.inputs["x"].CopyFrom(TensorProto(dtype=4, tensor_content=b"\x00\xff"))
    request.inputs["x"].tensor_shape.dim.add(size=2)
    assert PredictRequest.FromString(request.SerializeToString()) == request


def test_fields_that_were_left_out_survive_too() -> None:
    # PredictRequest.client_id and ModelInferRequest's next, whatever it may be.
    for kind, number in ((PredictRequest, 6), (ModelInferRequest, 15)):
        content = bytes([number << 3 | 2, 1, 65])
        assert kind.FromString(content).SerializeToString() == content


def test_a_message_packed_into_any_is_of_the_type_that_clients_ask_for() -> None:
    signatures = SignatureDefMap()
    signatures.signature_def["serving_default"].inputs["x"].name = "x:0"
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    assert response.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    unpacked = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(unpacked)
    assert unpacked == signatures


def test_protobufs_default_pool_stays_free_for_tensorflow_and_triton() -> None:
    code = (
        "import acap_runtime.proto\n"
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "pool = descriptor_pool.Default()\n"
        "for name in ('tensorflow.TensorProto', 'tensorflow.serving.PredictRequest', 'inference.ModelInferRequest'):\n"
        "    try:\n"
        "        pool.FindMessageTypeByName(name)\n"
        "    except KeyError:\n"
        "        continue\n"
        "    raise SystemExit(f'{name} is in the default pool')\n"
        "file = descriptor_pb2.FileDescriptorProto(name='tensor.proto', package='tensorflow')\n"
        "file.message_type.add(name='TensorProto')\n"
        "pool.Add(file)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
