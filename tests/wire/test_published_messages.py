"""Our messages and services beside the published ones, descriptor by descriptor: of the stubs that clients use, and of
the files that the examples make theirs of.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from acap_runtime.proto import POOL
from client_environments import run
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "protos"
PACKAGES = {
    "tensorflow_serving": {"tensorflow", "tensorflow.error", "tensorflow.serving"},
    "triton": {"inference"},
}
"""Which of our packages are in the stubs of each environment."""
MODULES = {
    "tensorflow_serving": [f"tensorflow_serving.apis.{each}_service_pb2" for each in ("prediction", "model")],
    "triton": ["tritonclient.grpc.service_pb2"],
}
DIFFERENCES = {
    "tensorflow_serving": {
        "tensorflow.TensorInfo": {"-composite_tensor"},
        "tensorflow.TensorProto": {"-float8_val", "-resource_handle_val", "-variant_val"},
        "tensorflow.serving.FileSystemStoragePathSourceConfig": {
            "-fail_if_zero_versions_at_startup",
            "-file_system_poll_wait_seconds",
            "-servable_versions_always_present",
            "-servables",
        },
        "tensorflow.serving.PredictRequest": {
            *("+stream_id", "-client_id", "-predict_streamed_options", "-request_options"),
        },
        "tensorflow.serving.PredictResponse": {"+frame_reference"},
    },
    "triton": {
        "inference.ModelConfig": {
            *("-batch_input", "-batch_output", "-ensemble_scheduling", "-model_metrics", "-model_operations"),
            *("-model_repository_agents", "-optimization", "-sequence_batching"),
        },
        "inference.ModelInstanceGroup": {"-rate_limiter", "-secondary_devices"},
        "inference.ModelMetadataResponse": {"+properties"},
        "inference.ModelMetadataResponse.PropertiesEntry": {"+key", "+value"},
    },
}
"""What is ours alone (+), and what we left out (-)."""
AXIS = {"keyvaluestore", "videocapture.v1"}
OUR_OWN = {"acapruntime.v1"}


def checked_in() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(files("acap_runtime.proto").joinpath("api.binpb").read_bytes())


def pool_of(content: bytes) -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    return pool


def files_of(pool: DescriptorPool, content: FileDescriptorSet, packages: set[str]) -> list[Any]:
    return [pool.FindFileByName(file.name) for file in content.file if file.package in packages]


def messages(file: Any) -> Iterator[Any]:
    remaining = list(file.message_types_by_name.values())
    while remaining:
        message = remaining.pop()
        remaining += message.nested_types
        yield message


def enums(file: Any) -> list[Any]:
    return [*file.enum_types_by_name.values(), *(enum for message in messages(file) for enum in message.enum_types)]


def _is_repeated(field: Any) -> bool:
    # protobuf before 6.31 has the label alone, which later ones warn of.
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def fields(message: Any) -> set[tuple[Any, ...]]:
    """All that decides how a message looks on the wire, in code and as JSON; names first."""
    return {
        (
            *(field.name, field.number, field.json_name, field.type, _is_repeated(field), field.is_packed),
            field.has_presence,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def methods(service: Any) -> set[tuple[Any, ...]]:
    return {
        (
            *(method.name, method.input_type.full_name, method.output_type.full_name),
            *(method.client_streaming, method.server_streaming),
        )
        for method in service.methods
    }


def values(enum: Any) -> set[tuple[Any, ...]]:
    return {(value.name, value.number) for value in enum.values}


def found_in(pool: DescriptorPool, name: str) -> Any | None:
    for find in (pool.FindMessageTypeByName, pool.FindEnumTypeByName, pool.FindServiceByName):
        try:
            return find(name)
        except KeyError:
            continue
    return None


def parts(file: Any) -> dict[str, tuple[Any, ...]]:
    """Every message, enum and service of a file, with what reads its parts."""
    kinds = ((messages(file), fields), (enums(file), values), (file.services_by_name.values(), methods))
    return {each.full_name: (read, read(each)) for group, read in kinds for each in group}


def differences(file: Any, pool: DescriptorPool) -> dict[str, set[str]]:
    """What a file has more (+) than a pool, and what less (-)."""
    found = {}
    for name, (read, here) in parts(file).items():
        other = found_in(pool, name)
        there = read(other) if other is not None else set()
        found[name] = {f"+{part[0]}" for part in here - there} | {f"-{part[0]}" for part in there - here}
    return {name: names for name, names in found.items() if names}


@pytest.mark.timeout(600)  # an environment may have to be made first
@pytest.mark.parametrize("name", PACKAGES)
def test_messages_and_services_are_those_of_the_published_stubs(name: str, request: pytest.FixtureRequest) -> None:
    published = pool_of(run(request.getfixturevalue(f"{name}_python"), "print_descriptors.py", *MODULES[name]))
    found: dict[str, set[str]] = {}
    for file in files_of(POOL, checked_in(), PACKAGES[name]):
        found |= differences(file, published)
    # Of tensors' types we have those that we can name; their numbers are compared all the same.
    assert all(name.startswith("-DT_") for name in found.pop("tensorflow.DataType", ()))
    assert found == DIFFERENCES[name]


def test_the_examples_make_their_stubs_of_the_same_messages(tmp_path: Path) -> None:
    target = tmp_path / "examples.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{EXAMPLES}", "--include_imports"]
    sources = [str(path) for path in EXAMPLES.rglob("*.proto")]
    subprocess.run([*command, f"--descriptor_set_out={target}", *sources], check=True)
    content = FileDescriptorSet.FromString(target.read_bytes())
    examples = pool_of(target.read_bytes())
    for file in files_of(examples, content, AXIS | PACKAGES["tensorflow_serving"]):
        assert not {part for names in differences(file, POOL).values() for part in names if part.startswith("+")}
    for file in files_of(POOL, checked_in(), AXIS):
        assert not differences(file, examples)


def test_every_message_but_our_own_is_compared_with_a_published_one() -> None:
    ours = {file.package for file in checked_in().file if not file.name.startswith("google/")}
    assert ours == set().union(*PACKAGES.values(), AXIS, OUR_OWN)


def test_the_descriptor_set_is_what_the_proto_files_say() -> None:
    path = ROOT / "core" / "build_proto.py"
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
