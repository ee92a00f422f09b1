#!/usr/bin/env python3
"""Ask a running acapruntime what a picture shows.

This needs nothing from the runtime itself: only stubs that protoc makes from ../protos (see README.md), and Pillow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorflow.core.framework import types_pb2  # type: ignore[import-untyped]
from tensorflow.core.framework.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
from tensorflow_serving.apis.predict_pb2 import (  # type: ignore[import-not-found]
    PredictRequest,
    PredictResponse,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import (  # type: ignore[import-not-found]
    PredictionServiceStub,
)

DTYPES: dict[int, np.dtype[Any]] = {
    types_pb2.DT_FLOAT: np.dtype("<f4"),
    types_pb2.DT_UINT8: np.dtype("u1"),
    types_pb2.DT_INT8: np.dtype("i1"),
}
"""The types of the scores that classifiers return."""


def main() -> int:
    arguments = parse()
    try:
        with Image.open(arguments.picture) as picture:
            pixels = np.asarray(picture.convert("RGB"))[np.newaxis]
        labels = arguments.labels.read_text().splitlines() if arguments.labels else []
        with connect(arguments) as channel, tensor_of(pixels, shared=arguments.shared_memory) as tensor:
            # Waits until the server is up. A wrong address or a refused certificate fails here, after the time-out.
            grpc.channel_ready_future(channel).result(arguments.timeout)
            request = PredictRequest(inputs={"data": tensor})
            request.model_spec.name = arguments.model
            stub = PredictionServiceStub(channel)
            response = stub.Predict(request, timeout=arguments.timeout)
        show(response, labels, arguments.top)
    except grpc.FutureTimeoutError:
        tls = "with" if arguments.root_certificate else "without"
        print(f"nothing answers at {arguments.address} {tls} TLS: is the server running there?", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask a running acapruntime what a picture shows.")
    parser.add_argument("model", help="a name that the server knows, or on its unix socket the path of a model file")
    parser.add_argument("picture", type=Path, help="BMP, PNG or JPEG, of any size")
    parser.add_argument(
        "--address", default="unix:///tmp/acap-runtime.sock", help="unix:///PATH or HOST:PORT [%(default)s]"
    )
    parser.add_argument("--root-certificate", type=Path, metavar="FILE", help="PEM; turns TLS on")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM; this client's own, with --key")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM; of --certificate")
    parser.add_argument("--shared-memory", action="store_true", help="hand the picture over in POSIX shared memory")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to print [%(default)s]")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="[%(default)s]")
    arguments = parser.parse_args()
    if (arguments.certificate is None) != (arguments.key is None):
        parser.error("--certificate and --key belong together")
    if arguments.certificate and not arguments.root_certificate:
        parser.error("--certificate needs --root-certificate, the server's")
    if arguments.address.startswith("/"):
        arguments.address = f"unix://{arguments.address}"
    arguments.model = model_name(arguments.model)
    return arguments


def model_name(text: str) -> str:
    """Return a file's absolute path, which the server expects, or a name unchanged."""
    return str(Path(text).resolve()) if Path(text).is_file() else text


def connect(arguments: argparse.Namespace) -> grpc.Channel:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    if arguments.root_certificate is None:
        return grpc.insecure_channel(arguments.address, options)
    files = (arguments.root_certificate, arguments.key, arguments.certificate)
    credentials = grpc.ssl_channel_credentials(*(None if file is None else file.read_bytes() for file in files))
    # A unix socket has no host name to check a certificate against.
    options_for_tls = [("grpc.default_authority", "localhost")]
    return grpc.secure_channel(arguments.address, credentials, [*options, *options_for_tls])


@contextlib.contextmanager
def tensor_of(pixels: NDArray[np.uint8], *, shared: bool) -> Iterator[TensorProto]:
    """Yield a tensor with the pixels, or with the name of a shared memory object that has them."""
    tensor = TensorProto()
    for size in pixels.shape:
        tensor.tensor_shape.dim.add(size=size)
    if not shared:
        tensor.dtype = types_pb2.DT_UINT8
        tensor.tensor_content = pixels.tobytes()
        yield tensor
        return
    name = f"acap-example-{uuid.uuid4().hex}"
    memory = Path("/dev/shm", name)  # noqa: S108 - where Linux keeps POSIX shared memory, shm_overview(7)
    # Readable for the group too: server and client may have only their group in common.
    descriptor = os.open(memory, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pixels.tobytes())
        tensor.dtype = types_pb2.DT_STRING
        tensor.string_val.append(f"/{name}".encode())
        yield tensor
    finally:
        memory.unlink()


def show(response: PredictResponse, labels: list[str], count: int) -> None:
    """Print the likeliest classes. Raises `ValueError` if the answer holds no scores."""
    if len(response.outputs) != 1:
        raise ValueError(f"expected a classifier with one output, got {sorted(response.outputs)}")
    (output,) = response.outputs.values()
    if output.dtype not in DTYPES:
        raise ValueError(f"expected scores of float32, uint8 or int8, got dtype {output.dtype}")
    scores = np.frombuffer(output.tensor_content, DTYPES[output.dtype])
    for number in np.argsort(-scores.astype(np.float64), kind="stable")[:count]:
        label = labels[number] if number < len(labels) else ""
        print(f"{number:5}  {scores[number]:7.5g}  {label}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
