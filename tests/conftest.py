"""A running server, and a client that shares no code with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import client_environments
import environments
import grpc
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("acapruntime")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one module share its servers: one process runs them. Tests of one distribution run wherever there is
    room, and first, because they take longest.
    """
    items.sort(key=lambda item: not _is_of_a_distribution(item))
    for item in items:
        group = item.name if _is_of_a_distribution(item) else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))


def _is_of_a_distribution(item: pytest.Item) -> bool:
    return "distribution" in getattr(getattr(item, "callspec", None), "params", ())


@pytest.fixture(scope="session")
def models() -> Path:
    """Real models, which the project does not contain."""
    folder = Path(os.environ.get("ACAP_TEST_MODELS", ROOT.parent / "shared" / "models")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder {folder} of test models (ACAP_TEST_MODELS)")
    return folder


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Client stubs that protoc makes of wire-compatible .proto files, in protobuf's default pool."""
    target = tmp_path_factory.mktemp("stubs")
    source = ROOT / "examples" / "protos"
    protos = [str(path) for path in source.rglob("*.proto")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source}"]
    subprocess.run([*command, f"--python_out={target}", f"--grpc_python_out={target}", *protos], check=True)
    sys.path.insert(0, str(target))
    return SimpleNamespace(
        path=target,
        predict=import_module("tensorflow_serving.apis.predict_pb2"),
        service=import_module("tensorflow_serving.apis.prediction_service_pb2_grpc"),
        tensor=import_module("tensorflow.core.framework.tensor_pb2"),
        types=import_module("tensorflow.core.framework.types_pb2"),
    )


@pytest.fixture(scope="session")
def tensorflow_serving_python() -> Path:
    """The Python that has tensorflow-serving-api."""
    return client_environments.tensorflow_serving()


@pytest.fixture(scope="session")
def triton_python() -> Path:
    """The Python that has tritonclient, numpy, and gRPC's health and reflection."""
    return client_environments.triton()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every distribution, built once for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheels"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            building = folder.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            for distribution in environments.DISTRIBUTIONS:
                environments.build_wheel(distribution, building)
            building.rename(folder)
    return folder


@dataclass
class Client:
    """An independent client of one server."""

    stubs: SimpleNamespace
    channel: grpc.Channel

    def request(self, model: str, inputs: Mapping[str, Any] | None = None, **fields: Any) -> Any:
        """A PredictRequest; `inputs` are arrays, sent in tensor_content, or TensorProtos."""
        request = self.stubs.predict.PredictRequest(**fields)
        request.model_spec.name = model
        for name, value in (inputs or {}).items():
            request.inputs[name].CopyFrom(self.tensor(value) if isinstance(value, np.ndarray) else value)
        return request

    def tensor(self, array: np.ndarray, **fields: Any) -> Any:
        """A TensorProto with an array's dtype and shape, and its content unless `fields` say otherwise."""
        proto = self.stubs.tensor.TensorProto(dtype=DTYPES[str(array.dtype)], **fields)
        for size in array.shape:
            proto.tensor_shape.dim.add(size=size)
        if not fields:
            proto.tensor_content = array.tobytes()
        return proto

    def send(self, request: Any, timeout: float = 30.0, **options: Any) -> Any:
        """The PredictResponse; raises `grpc.RpcError`."""
        stub = self.stubs.service.PredictionServiceStub(self.channel)
        return stub.Predict(request, timeout=timeout, wait_for_ready=True, **options)

    def predict(self, model: str, inputs: Mapping[str, Any], **options: Any) -> dict[str, np.ndarray]:
        """Every output as an array."""
        return self.arrays(self.send(self.request(model, inputs), **options))

    @staticmethod
    def arrays(response: Any) -> dict[str, np.ndarray]:
        names = {number: name for name, number in DTYPES.items()}
        return {
            name: np.frombuffer(proto.tensor_content, names[proto.dtype]).reshape(
                [dim.size for dim in proto.tensor_shape.dim]
            )
            for name, proto in response.outputs.items()
        }


DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8, "int64": 9, "bool": 10,
    "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip


@dataclass
class Server:
    """A server process of its own."""

    process: subprocess.Popen[bytes]
    address: str
    log_file: Path
    stubs: SimpleNamespace

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @contextlib.contextmanager
    def client(self, **tls: bytes | None) -> Iterator[Client]:
        """A client; with `root_certificates` (and a client's certificate) over TLS to authority localhost."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if tls:
            options.append(("grpc.default_authority", "localhost"))
            channel = grpc.secure_channel(self.address, grpc.ssl_channel_credentials(**tls), options)
        else:
            channel = grpc.insecure_channel(self.address, options)
        with channel:
            yield Client(self.stubs, channel)

    def workers(self) -> list[int]:
        """Processes that this server has started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in children.split()]

    def wait_for_log(self, text: str, timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.log:
            assert time.monotonic() < end, f"{text!r} did not come up in the log:\n{self.log}"
            assert self.process.poll() is None or text in self.log, f"the server ended:\n{self.log}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal and wait for the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path, stubs: SimpleNamespace) -> Iterator[StartServer]:
    """Starts servers that end with the test."""
    with _servers(tmp_path, stubs) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_server(tmp_path_factory: pytest.TempPathFactory, stubs: SimpleNamespace) -> Iterator[StartServer]:
    """Starts servers that end with the module's last test."""
    with _servers(tmp_path_factory.mktemp("servers"), stubs) as start:
        yield start


@contextlib.contextmanager
def _servers(folder: Path, stubs: SimpleNamespace) -> Iterator[StartServer]:
    """Start servers with the given arguments, on a unix socket in `folder` unless `-p` is among them; `through` is a
    command that starts the server's, such as setpriv.
    """
    with contextlib.ExitStack() as stack:

        def start(
            *arguments: object,
            environment: Mapping[str, str] | None = None,
            through: Sequence[str] = (),
            ready: bool = True,
        ) -> Server:
            words = [str(argument) for argument in arguments]
            number = len(list(folder.glob("server*.log")))
            socket = folder / f"s{number}.sock"
            if "-p" in words:
                address = f"localhost:{words[words.index('-p') + 1]}"
            else:
                if "--socket" in words:
                    socket = Path(words[words.index("--socket") + 1])
                else:
                    words += ["--socket", str(socket)]
                address = f"unix://{socket}"
            log_file = folder / f"server{number}.log"
            with log_file.open("wb") as log:
                process = subprocess.Popen(
                    [*through, COMMAND, *words], stdout=log, stderr=log, env={**os.environ, **(environment or {})}
                )
            server = Server(process, address, log_file, stubs)
            stack.callback(server.stop)
            if ready:
                server.wait_for_log("ready" if "-j" in words else "listening")
            return server

        yield start


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def assert_tests_pass() -> Callable[..., None]:
    """Runs the tests in a folder by themselves, without this repository's configuration."""

    def run(
        tests: Path, python: object = sys.executable, environment: Mapping[str, str] | None = None, *more: object
    ) -> None:
        # Its processes, hundreds of them, compile the modules of a fresh environment once, wherever this was forbidden.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        options = ["-q", "--import-mode=importlib", "-W", "error", "-p", "no:cacheprovider", "-c", "/dev/null"]
        done = subprocess.run(
            [python, "-m", "pytest", *options, "--rootdir", tests, *more, tests],
            cwd=tests,
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a model file of the debug chip, a line for each knob."""

    def write_file(name: str, *knobs: str) -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(knobs))
        return str(path)

    return write_file
