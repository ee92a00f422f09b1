"""The smallest Python gRPC server for a model: grpcio's synchronous server around one interpreter.

It checks nothing and does nothing else. It is the yardstick for the cost of checks, queues, deadlines and a worker
process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from acap_runtime.link.malloc import keep_large_buffers

keep_large_buffers()

import grpc  # noqa: E402 - after the malloc settings, as in the server that this one is compared with
import numpy as np  # noqa: E402
from acap_runtime.proto import PredictRequest, PredictResponse  # noqa: E402
from acap_runtime.wire.tensors import write_tensor  # noqa: E402
from interpreter import LockedInterpreter  # noqa: E402

Model = Callable[[Any], Any]
THREADS = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("models", nargs="*", metavar="NAME=PATH")
    arguments = parser.parse_args()
    models: dict[str, Model] = {"echo": _echo, "input": _take}
    for text in arguments.models:
        name, _, path = text.partition("=")
        models[name] = partial(_run, LockedInterpreter(Path(path)))

    def predict(request: Any, _: grpc.ServicerContext) -> Any:
        return models[request.model_spec.name](request)

    handler = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=PredictRequest.FromString,
        response_serializer=PredictResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.max_receive_message_length", -1)])
    service = "tensorflow.serving.PredictionService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Predict": handler}),))
    server.add_insecure_port(f"unix://{arguments.socket.absolute()}")
    server.start()
    server.wait_for_termination()


def _run(model: LockedInterpreter, request: Any) -> Any:
    (tensor,) = request.inputs.values()
    output = model.run(tensor.tensor_content)
    response = PredictResponse()
    write_tensor(response.outputs[model.output_name], output.dtype, output.shape, output.tobytes())
    return response


def _echo(request: Any) -> Any:
    return _bytes("data", request.inputs["data"].tensor_content)


def _take(request: Any) -> Any:
    np.frombuffer(request.inputs["data"].tensor_content, np.uint8)
    return _bytes("big", b"\0")


def _bytes(name: str, content: bytes) -> Any:
    response = PredictResponse()
    write_tensor(response.outputs[name], np.dtype(np.uint8), (len(content),), content)
    return response


if __name__ == "__main__":
    main()
