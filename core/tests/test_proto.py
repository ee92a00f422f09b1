"""The checked-in descriptor set: what the .proto files say, and what independent .proto files say too."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from acap_runtime.proto import POOL, PredictRequest, PredictResponse, TensorProto
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

CORE = Path(__file__).parents[1]
INDEPENDENT = CORE.parent / "examples" / "protos"
AXIS = ("keyvaluestore.proto", "predict.proto", "tensor.proto", "videocapture.proto")
"""What clients of the original use, and examples/protos has."""


def checked_in() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(files("acap_runtime.proto").joinpath("api.binpb").read_bytes())


@pytest.fixture(scope="module")
def independent(tmp_path_factory: pytest.TempPathFactory) -> DescriptorPool:
    """The descriptors of the .proto files that clients use, with TensorFlow's names and folders."""
    if not INDEPENDENT.is_dir():
        pytest.skip("examples/protos is in the repository only")
    target = tmp_path_factory.mktemp("protos") / "independent.binpb"
    sources = [str(path) for path in INDEPENDENT.rglob("*.proto")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{INDEPENDENT}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={target}", *sources], check=True)
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(target.read_bytes()).file:
        pool.Add(file)
    return pool


def messages_of(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        yield from messages_of(nested)


def our_messages() -> list[Descriptor]:
    return [
        message
        for name in AXIS
        for top in POOL.FindFileByName(name).message_types_by_name.values()
        for message in messages_of(top)
    ]


def our_enums() -> list[EnumDescriptor]:
    return [enum for name in AXIS for enum in POOL.FindFileByName(name).enum_types_by_name.values()]


def fields_of(message: Descriptor) -> dict[int, tuple[object, ...]]:
    """All that decides how a message looks on the wire and in code."""
    return {
        field.number: (
            *(field.name, field.type, field.is_repeated, field.is_packed),
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def test_the_descriptor_set_is_what_the_proto_files_say() -> None:
    pytest.importorskip("grpc_tools")
    path = CORE / "build_proto.py"
    spec = importlib.util.spec_from_file_location("build_proto", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rebuilt = {file.name: file for file in FileDescriptorSet.FromString(module.build()).file}
    current = {file.name: file for file in checked_in().file}
    assert rebuilt.keys() == current.keys()
    for name, file in rebuilt.items():
        if not name.startswith("google/"):  # whose comments and options change with protobuf's version
            assert file == current[name], f"{name} has changed: python core/build_proto.py"


def test_every_message_has_the_fields_that_clients_send_and_no_others(independent: DescriptorPool) -> None:
    for message in our_messages():
        if message.full_name.startswith(("tensorflow.TensorProto", "tensorflow.TensorShapeProto")):
            theirs = fields_of(independent.FindMessageTypeByName(message.full_name))
            for number, field in theirs.items():
                assert fields_of(message)[number] == field, f"{message.full_name}: field {number}"
        else:
            assert fields_of(message) == fields_of(independent.FindMessageTypeByName(message.full_name))


def test_every_dtype_has_tensorflows_number(independent: DescriptorPool) -> None:
    assert our_enums()
    for enum in our_enums():
        theirs = independent.FindEnumTypeByName(enum.full_name)
        ours = {value.name: value.number for value in enum.values}
        assert {value.name: value.number for value in theirs.values}.items() <= ours.items()


def test_axis_additions_have_the_originals_numbers() -> None:
    assert PredictRequest.DESCRIPTOR.fields_by_name["stream_id"].number == 10
    assert PredictResponse.DESCRIPTOR.fields_by_name["frame_reference"].number == 10


def test_the_service_and_its_method_have_tensorflow_servings_names(independent: DescriptorPool) -> None:
    name = "tensorflow.serving.PredictionService"
    for pool in (POOL, independent):
        method = pool.FindServiceByName(name).methods_by_name["Predict"]
        assert method.input_type.full_name == "tensorflow.serving.PredictRequest"
        assert method.output_type.full_name == "tensorflow.serving.PredictResponse"


def test_a_message_survives_the_wire() -> None:
    request = PredictRequest(stream_id=7, output_filter=["a", "b"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 1
    request.inputs["x"].CopyFrom(TensorProto(dtype=4, tensor_content=b"\x00\xff"))
    request.inputs["x"].tensor_shape.dim.add(size=2)
    assert PredictRequest.FromString(request.SerializeToString()) == request


def test_protobufs_default_pool_stays_free_for_tensorflow() -> None:
    code = (
        "import acap_runtime.proto\n"
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "pool = descriptor_pool.Default()\n"
        "for name in ('tensorflow.TensorProto', 'tensorflow.serving.PredictRequest'):\n"
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
