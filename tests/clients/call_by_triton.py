"""Do one thing with NVIDIA's tritonclient alone, and print what came of it as JSON.

The arguments are the server's address, one of the functions below, and what that takes.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

Client = triton.InferenceServerClient


def given(array: np.ndarray, name: str = "data") -> Any:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def byte(value: int, size: int = 3) -> Any:
    return given(np.full(size, value, np.uint8))


def outcome(call: Callable[[], Any]) -> list[Any]:
    """The status and message of what fails, or what comes back."""
    try:
        return ["OK", call()]
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), error.message()]


def as_dict(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def describe(client: Client, model: str) -> Any:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "server": as_dict(client.get_server_metadata()),
        "model_ready": client.is_model_ready(model),
        "version_ready": [client.is_model_ready(model, version) for version in ("1", "2")],
        "unknown_ready": client.is_model_ready("unknown"),
        "metadata": as_dict(client.get_model_metadata(model)),
        "config": as_dict(client.get_model_config(model).config),
    }


def infer_every_dtype(client: Client, *dtypes: str) -> Any:
    """Models called by their dtypes give back what they get."""
    same = {}
    for dtype in dtypes:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        result = client.infer(dtype, [given(array)], request_id=dtype)
        assert result.get_response().id == dtype
        back = result.as_numpy("data")
        same[dtype] = back.dtype == array.dtype and np.array_equal(back, array)
    return same


def infer_typed(client: Client, *dtypes: str) -> Any:
    """The same by typed contents, which tritonclient itself does not send."""
    fields = {"b": "bool_contents", "u": "uint_contents", "i": "int_contents", "f": "fp32_contents"}
    wide = {"uint64": "uint64_contents", "int64": "int64_contents", "float64": "fp64_contents"}
    same = {}
    for dtype in dtypes:
        if dtype == "float16":
            continue
        array = np.arange(6).reshape(2, 3).astype(dtype)
        request = service_pb2.ModelInferRequest(model_name=dtype)
        tensor = request.inputs.add(name="data", datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        getattr(tensor.contents, wide.get(dtype) or fields[array.dtype.kind]).extend(array.reshape(-1).tolist())
        (content,) = client._client_stub.ModelInfer(request, timeout=10).raw_output_contents
        same[dtype] = content == array.tobytes()
    return same


def infer(client: Client, model: str, parameters: str = "{}", options: str = "{}", size: str = "3") -> Any:
    call = functools.partial(
        client.infer, model, [byte(7, int(size))], parameters=json.loads(parameters), **json.loads(options)
    )
    return outcome(lambda: as_dict(call().get_response()))


def select(client: Client, model: str, *outputs: str) -> Any:
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    return outcome(
        lambda: [each.name for each in client.infer(model, [byte(7)], outputs=wanted).get_response().outputs]
    )


def infer_picture(client: Client, model: str) -> Any:
    """A picture of another size, and one of the model's own."""
    shapes = []
    for shape in ((1, 48, 64, 3), (1, 24, 32, 3)):
        result = client.infer(model, [given(np.full(shape, 90, np.uint8), "image")])
        shapes.append([list(result.as_numpy("image").shape), int(result.as_numpy("image").max())])
    return shapes


def classify(client: Client, model: str, seed: str) -> Any:
    """A model with one input and one output, on random bytes: the output's datatype, shape and bytes."""
    (spec,) = client.get_model_metadata(model).inputs
    picture = np.random.default_rng(int(seed)).integers(0, 256, spec.shape, np.uint8)
    result = client.infer(model, [given(picture, spec.name)])
    (output,) = result.get_response().outputs
    return [output.datatype, list(output.shape), result.as_numpy(output.name).tobytes().hex()]


def index(client: Client) -> Any:
    entries = as_dict(client.get_model_repository_index()).get("models", [])
    return {each["name"]: [each["state"], each.get("reason", "")] for each in entries}


def infer_stream(client: Client, model: str, stream: str) -> Any:
    """A model on the newest picture of a capture stream."""
    result = client.infer(model, [], parameters={"stream_id": int(stream)})
    reference = result.get_response().parameters["frame_reference"].int64_param
    return {"reference": reference, "picture": result.as_numpy("image").tobytes().hex()}


def async_infer(client: Client, model: str, count: str) -> Any:
    answers: queue.Queue[Any] = queue.Queue()
    for number in range(int(count)):
        client.async_infer(
            model, [byte(number)], lambda result, error: answers.put((result, error)), request_id=str(number)
        )
    found = {}
    for _ in range(int(count)):
        result, error = answers.get(timeout=30)
        assert error is None, error
        found[result.get_response().id] = int(result.as_numpy("data")[0])
    return found


def stream(client: Client, count: str, *models: str) -> Any:
    """Requests for models in turn, on one stream: id, and the first byte of the answer or the error, as they come."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(int(count)):
        client.async_stream_infer(models[number % len(models)], [byte(number % 256)], request_id=str(number))
    found = []
    for _ in range(int(count)):
        result, error = answers.get(timeout=30)
        found.append([None, error.message()] if error else [result.get_response().id, int(result.as_numpy("data")[0])])
    client.stop_stream()
    return found


def stream_messages(client: Client, *models: str) -> Any:
    """The messages of a stream, by the stub: a request for each model."""
    requests = []
    for model in models:
        request = service_pb2.ModelInferRequest(model_name=model, id=f"to {model}", raw_input_contents=[b"abc"])
        request.inputs.add(name="data", datatype="UINT8", shape=[3])
        requests.append(request)
    return [as_dict(each) for each in client._client_stub.ModelStreamInfer(iter(requests), timeout=10)]


def stream_until_error(client: Client, *models: str) -> Any:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
    for number, model in enumerate(models):
        client.async_stream_infer(model, [byte(number)], request_id=str(number))
    found = []
    while True:
        result, error = answers.get(timeout=10)
        if error is not None:
            return [*found, str(error.status())]
        found.append(result.get_response().id)


def stream_and_die(client: Client, model: str, count: str) -> Any:
    client.start_stream(lambda result, error: None)
    for number in range(int(count)):
        client.async_stream_infer(model, [byte(number)])
    time.sleep(0.5)
    os.write(1, b"null")
    os._exit(0)


def share(client: Client, model: str) -> Any:
    """Input and output in shared memory, as in simple_grpc_shm_client.py of tritonclient's examples."""
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    array = np.arange(1000, dtype=np.uint8)
    prefix = f"acap-kserve-{os.getpid()}"
    into = shared_memory.create_shared_memory_region("into", f"/{prefix}-in", 4000)
    out = shared_memory.create_shared_memory_region("out", f"/{prefix}-out", 4000)
    found = {}
    try:
        shared_memory.set_shared_memory_region(into, [array], offset=3000)
        client.register_system_shared_memory("into", f"/{prefix}-in", 3000, offset=1000)
        client.register_system_shared_memory("out", f"/{prefix}-out", 4000)
        found["twice"] = outcome(lambda: client.register_system_shared_memory("out", f"/{prefix}-out", 10))[0]
        found["status"] = {
            name: [region.offset, region.byte_size]
            for name, region in client.get_system_shared_memory_status().regions.items()
        }
        tensor = triton.InferInput("data", [1000], "UINT8")
        tensor.set_shared_memory("into", 1000, offset=2000)
        wanted = triton.InferRequestedOutput("data")
        wanted.set_shared_memory("out", 1000, offset=500)
        result = client.infer(model, [tensor], outputs=[wanted])
        found["raw"] = [len(each) for each in result.get_response().raw_output_contents]
        output = result.get_output("data")
        found["output"] = [output.datatype, list(output.shape)]
        found["same"] = bool(
            np.array_equal(shared_memory.get_contents_as_numpy(out, np.uint8, [1000], offset=500), array)
        )
        found["by_bytes"] = bool(np.array_equal(client.infer(model, [tensor]).as_numpy("data"), array))
        found["around"] = int(shared_memory.get_contents_as_numpy(out, np.uint8, [500]).max())
        wanted.set_shared_memory("out", 999)
        found["small_output"] = outcome(lambda: client.infer(model, [tensor], outputs=[wanted]))
        tensor.set_shared_memory("into", 999, offset=2000)
        found["small_input"] = outcome(lambda: client.infer(model, [tensor]))
        tensor.set_shared_memory("into", 1000, offset=2001)
        found["beyond"] = outcome(lambda: client.infer(model, [tensor]))
        tensor.set_shared_memory("nothing", 1000)
        found["unknown"] = outcome(lambda: client.infer(model, [tensor]))
        tensor.set_shared_memory("into", 1000, offset=2000)
        found["large"] = outcome(lambda: client.register_system_shared_memory("large", f"/{prefix}-in", 4001))
        client.unregister_system_shared_memory("out")
        found["left"] = sorted(client.get_system_shared_memory_status().regions)
    finally:
        shared_memory.destroy_shared_memory_region(into)
        shared_memory.destroy_shared_memory_region(out)
    found["gone"] = outcome(lambda: client.infer(model, [tensor]))
    client.unregister_system_shared_memory()
    found["cuda"] = len(client.get_cuda_shared_memory_status().regions)
    return found


def repository(client: Client, model: str) -> Any:
    """The index before, while and after the model is unloaded, and what calls get then."""

    found = {"before": index(client)}
    client.unload_model(model)
    found["unloaded"] = index(client)
    ready = client._client_stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))
    found["ready"] = [each.name for each in ready.models]
    found["call"] = outcome(lambda: client.infer(model, [byte(1)]))[0]
    found["ready_without"] = client.is_model_ready(model)
    found["server_ready"] = client.is_server_ready()
    client.load_model(model)
    found["after"] = index(client)
    found["again"] = outcome(lambda: client.infer(model, [byte(1)]).get_response().model_name)
    found["override"] = outcome(lambda: client.load_model(model, config="{}"))
    found["unknown"] = outcome(lambda: client.load_model("unknown"))[0]
    return found


def control(client: Client, model: str) -> Any:
    """What a client over TCP may do."""
    return {
        "extensions": list(client.get_server_metadata().extensions),
        "register": outcome(lambda: client.register_system_shared_memory("a", "/a", 10)),
        "unregister": outcome(client.unregister_system_shared_memory)[0],
        "load": outcome(lambda: client.load_model(model)),
        "unload": outcome(lambda: client.unload_model(model))[0],
        "index": outcome(lambda: len(client.get_model_repository_index().models)),
    }


def statistics(client: Client, *models: str) -> Any:
    """What each model's statistics say; of an empty name, all models'."""
    return [as_dict(client.get_inference_statistics(model)).get("model_stats", []) for model in models]


def unimplemented(client: Client) -> Any:
    calls = {
        "cuda": lambda: client.register_cuda_shared_memory("a", b"aGFuZGxl", 0, 10),
        "trace": client.get_trace_settings,
        "log": client.get_log_settings,
    }
    return {name: outcome(call) for name, call in calls.items()}


def main() -> None:
    address, name, *arguments = sys.argv[1:]
    client = Client(address)
    # Servers listen before they have loaded their models, but not before they are started.
    while not outcome(client.is_server_live)[1]:
        time.sleep(0.05)
    json.dump(globals()[name](client, *arguments), sys.stdout)
    client.close()


if __name__ == "__main__":
    main()
