"""Where a server listens, whom it lets in, and how it comes and goes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from converters import NO_CONVERTERS
from surprises import surprises

DEFAULT_SOCKET = Path("/tmp/acap-runtime.sock")
THREE = np.array([1, 2, 3], np.uint8)


def _answers(client: Any, model: str = "echo", **options: Any) -> bool:
    return np.array_equal(client.predict(model, {"data": THREE}, **options)["data"], THREE)


def _refusal(client: Any, model: str = "echo", inputs: Any = None, timeout: float = 10.0) -> grpc.RpcError:
    """What a client that does not wait for the server gets instead of an answer."""
    stub = client.stubs.service.PredictionServiceStub(client.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(client.request(model, inputs or {"data": THREE}), timeout=timeout)
    return caught.value


def _ends(server: Any, timeout_s: float = 30.0) -> int:
    return server.process.wait(timeout_s)


def _socket(server: Any) -> Path:
    return Path(server.address.removeprefix("unix://"))


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _gone(pids: list[int], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while any(map(_is_alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def start_server(start_server: Callable[..., Any]) -> Callable[..., Any]:
    """No image is converted here."""
    return partial(start_server, *NO_CONVERTERS)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    """Makes a model file of the debug chip, and the argument that loads it."""

    def make(text: str = "", name: str = "echo") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return f"{name}={path}"

    return make


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path

    @property
    def arguments(self) -> list[object]:
        return ["-c", self.certificate, "-k", self.key]

    @property
    def as_client(self) -> dict[str, bytes]:
        return {"private_key": self.key.read_bytes(), "certificate_chain": self.certificate.read_bytes()}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Certificate]:
    """Makes self-signed certificates for localhost."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, *options: str) -> Certificate:
        made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        if not made.key.exists():
            command = [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *(options or ("-nodes",)),
                *("-keyout", str(made.key), "-out", str(made.certificate)),
            ]
            subprocess.run(command, check=True, capture_output=True)
        return made

    return make


@pytest.fixture
def listening_at(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], list[object]]:
    """Arguments for one of the two transports."""

    def arguments(transport: str) -> list[object]:
        if transport == "unix":
            return ["--socket", tmp_path / "tls.sock"]
        return ["-a", "127.0.0.1", "-p", request.getfixturevalue("free_port")]

    return arguments


TRANSPORTS = pytest.mark.parametrize("transport", ["unix", "tcp"])


class TestUnixSocket:
    def test_its_mode_is_0660_from_its_first_moment_whatever_the_umask(self, start_server: Callable[..., Any]) -> None:
        server = start_server(ready=False, through=["sh", "-c", 'umask 000; exec "$@"', "sh"])
        path, modes = _socket(server), set()
        end = time.monotonic() + 30
        while not modes and time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):
                modes.add(path.lstat().st_mode & 0o7777)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            modes.add(path.lstat().st_mode & 0o7777)
        assert modes == {0o660}, server.log
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), os.getegid())
        server.wait_for_log("listening")
        assert path.lstat().st_mode & 0o7777 == 0o660

    def test_a_narrow_umask_does_not_narrow_it(self, start_server: Callable[..., Any]) -> None:
        server = start_server(through=["sh", "-c", 'umask 077; exec "$@"', "sh"])
        assert _socket(server).lstat().st_mode & 0o7777 == 0o660

    def test_the_default_address_is_the_originals(self, start_server: Callable[..., Any]) -> None:
        server = start_server("--socket", "", ready=False, environment={"ACAPRUNTIME_SOCKET": ""})
        server.address = f"unix://{DEFAULT_SOCKET}"
        try:
            server.wait_for_log("listening")
        except AssertionError:
            if "is served by process" in server.log:
                pytest.skip(f"another server has {DEFAULT_SOCKET}")
            raise
        assert f"listening on {server.address}" in server.log
        with server.client() as client:
            assert _refusal(client).code() is grpc.StatusCode.FAILED_PRECONDITION
        assert server.stop() == 0
        assert not DEFAULT_SOCKET.exists()

    def test_it_is_gone_with_its_lock_and_workers_when_the_server_stops(
        self, start_server: Callable[..., Any], model: Callable[..., str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        server = start_server("-j", "1", "-m", model(), "--socket", folder / "s.sock")
        pids = [server.process.pid, *server.workers()]
        assert len(pids) == 2
        with server.client() as client:
            assert _answers(client)
        assert server.stop() == 0
        assert list(folder.iterdir()) == []
        assert _gone(pids)

    def test_tensors_cross_in_memory_without_a_name(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        server = start_server("-j", "1", "-m", model())
        with server.client() as client:
            assert len(client.predict("echo", {"data": np.zeros(5_000_000, np.uint8)})["data"]) == 5_000_000
        for pid in (server.process.pid, *server.workers()):
            mapped = Path(f"/proc/{pid}/maps").read_text()
            assert "memfd:acap-runtime" in mapped
            assert "/dev/shm" not in mapped

    def test_that_of_a_killed_server_is_replaced_and_its_worker_gone(
        self, start_server: Callable[..., Any], model: Callable[..., str], tmp_path: Path
    ) -> None:
        arguments = ("-j", "1", "-m", model(), "--socket", tmp_path / "shared.sock")
        first = start_server(*arguments)
        workers = first.workers()
        first.process.kill()
        first.process.wait(10)
        assert (tmp_path / "shared.sock").is_socket()
        second = start_server(*arguments)
        with second.client() as client:
            assert _answers(client)
        assert _gone(workers)

    def test_that_of_a_living_server_is_left_to_it(
        self, start_server: Callable[..., Any], model: Callable[..., str], tmp_path: Path
    ) -> None:
        arguments = ("-j", "1", "-m", model(), "--socket", tmp_path / "shared.sock")
        first = start_server(*arguments)
        second = start_server(*arguments, ready=False)
        assert _ends(second) == 1
        assert f"is served by process {first.process.pid}" in second.log
        assert not surprises(second.log)
        with first.client() as client:
            assert _answers(client)

    def test_of_many_servers_started_at_once_one_has_it(self, start_server: Callable[..., Any], tmp_path: Path) -> None:
        servers = [start_server("--socket", tmp_path / "shared.sock", ready=False) for _ in range(4)]
        end = time.monotonic() + 60
        while sum(server.process.poll() is None for server in servers) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        (winner,) = (server for server in servers if server.process.poll() is None)
        winner.wait_for_log("listening")
        assert [server.process.returncode for server in servers if server is not winner] == [1, 1, 1]
        with winner.client() as client:
            assert _refusal(client).code() is grpc.StatusCode.FAILED_PRECONDITION

    def test_that_of_another_program_is_left_to_it(self, start_server: Callable[..., Any], tmp_path: Path) -> None:
        path = tmp_path / "foreign.sock"
        with socket.socket(socket.AF_UNIX) as foreign:
            foreign.bind(str(path))
            foreign.listen()
            server = start_server("--socket", path, ready=False)
            assert _ends(server) == 1
            assert f"is served by process {os.getpid()}" in server.log
            assert path.is_socket()
        assert [each.name for each in tmp_path.glob("*.lock")] == []

    def test_a_file_in_its_place_is_not_deleted(self, start_server: Callable[..., Any], tmp_path: Path) -> None:
        path = tmp_path / "precious.txt"
        path.write_text("precious")
        server = start_server("--socket", path, ready=False)
        assert _ends(server) == 1
        assert f"{path} exists and is no socket" in server.log
        assert path.read_text() == "precious"

    def test_a_link_in_its_place_is_not_followed(self, start_server: Callable[..., Any], tmp_path: Path) -> None:
        precious, link = tmp_path / "precious.txt", tmp_path / "s.sock"
        precious.write_text("precious")
        link.symlink_to(precious)
        server = start_server("--socket", link, ready=False)
        assert _ends(server) == 1
        assert str(link) in server.log
        assert precious.read_text() == "precious"

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(Path.hardlink_to, id="a hard link"),
            pytest.param(Path.symlink_to, id="a symbolic link"),
            pytest.param(lambda lock, _: os.mkfifo(lock), id="a FIFO"),
        ],
    )
    def test_what_is_no_lock_file_of_its_own_is_left_alone(
        self, start_server: Callable[..., Any], tmp_path: Path, make: Callable[[Path, Path], None]
    ) -> None:
        precious, lock = tmp_path / "precious.txt", tmp_path / "s.sock.lock"
        precious.write_text("precious")
        make(lock, precious)
        before = lock.lstat()
        server = start_server("--socket", tmp_path / "s.sock", ready=False)
        assert _ends(server) == 1
        assert str(lock) in server.log
        assert not surprises(server.log)
        assert precious.read_text() == "precious"
        assert os.path.samestat(lock.lstat(), before)

    def test_a_folder_that_does_not_exist_ends_the_start(
        self, start_server: Callable[..., Any], tmp_path: Path
    ) -> None:
        server = start_server("--socket", tmp_path / "nowhere" / "s.sock", ready=False)
        assert _ends(server) == 1
        assert str(tmp_path / "nowhere") in server.log
        assert not surprises(server.log)

    def test_a_path_too_long_for_a_socket_ends_the_start(self, start_server: Callable[..., Any]) -> None:
        server = start_server("--socket", f"/tmp/{'n' * 110}", ready=False)
        assert _ends(server) == 1
        assert "at most 107 bytes" in server.log

    def test_a_relative_path_starts_in_the_folder_that_the_server_was_started_in(
        self, start_server: Callable[..., Any], tmp_path: Path
    ) -> None:
        through = ["sh", "-c", f'cd {tmp_path}; exec "$@"', "sh"]
        server = start_server("--socket", "relative.sock", through=through)
        server.address = f"unix://{tmp_path}/relative.sock"
        with server.client() as client:
            assert _refusal(client).code() is grpc.StatusCode.FAILED_PRECONDITION

    def test_a_client_may_come_before_the_server_and_outlive_it(
        self, start_server: Callable[..., Any], model: Callable[..., str], tmp_path: Path
    ) -> None:
        arguments = ("-j", "1", "-m", model(), "--socket", tmp_path / "later.sock")
        server = start_server(*arguments, ready=False)
        with server.client() as client:
            assert _answers(client)
            assert server.stop() == 0
            start_server(*arguments, ready=False)
            assert _answers(client)


class TestTcp:
    def test_a_port_alone_listens_everywhere_with_a_warning(
        self, start_server: Callable[..., Any], model: Callable[..., str], free_port: int
    ) -> None:
        server = start_server("-p", free_port, "-j", "1", "-m", model())
        assert f"listening on 0.0.0.0:{free_port}" in server.log
        assert "without encryption" in server.log
        server.address = f"127.0.0.1:{free_port}"
        with server.client() as client:
            assert _answers(client)

    @pytest.mark.parametrize("address", ["::1", "[::1]"])
    def test_an_address_may_be_of_ipv6(
        self, start_server: Callable[..., Any], model: Callable[..., str], address: str
    ) -> None:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
                port = probe.getsockname()[1]
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        server = start_server("-a", address, "-p", port, "-j", "1", "-m", model())
        server.address = f"[::1]:{port}"
        with server.client() as client:
            assert _answers(client)
        assert "without encryption" not in server.log

    def test_the_address_is_the_only_one_listened_on(self, start_server: Callable[..., Any], free_port: int) -> None:
        server = start_server("-a", "127.0.0.1", "-p", free_port)
        assert "without encryption" not in server.log
        socket.create_connection(("127.0.0.1", free_port), 5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", free_port), 5)

    def test_a_port_in_use_ends_the_start(self, start_server: Callable[..., Any], free_port: int) -> None:
        first = start_server("-a", "127.0.0.1", "-p", free_port)
        second = start_server("-a", "127.0.0.1", "-p", free_port, ready=False)
        assert _ends(second) == 1
        assert f"cannot listen on 127.0.0.1:{free_port}" in second.log
        assert not surprises(second.log)
        with first.client() as client:
            assert _refusal(client).code() is grpc.StatusCode.FAILED_PRECONDITION

    @pytest.mark.parametrize("address", ["203.0.113.1", "nobody.invalid"])
    def test_an_address_of_nobody_here_ends_the_start(
        self, start_server: Callable[..., Any], free_port: int, address: str
    ) -> None:
        server = start_server("-a", address, "-p", free_port, ready=False)
        assert _ends(server) == 1
        assert f"cannot listen on {address}:{free_port}" in server.log

    def test_only_the_operators_models_are_served_and_no_shared_memory(
        self, start_server: Callable[..., Any], model: Callable[..., str], free_port: int, tmp_path: Path
    ) -> None:
        named, other = model(), tmp_path / "other.toml"
        other.touch()
        server = start_server(
            "-a", "127.0.0.1", "-p", free_port, "-j", "1", "-m", named, "-m", model(name="unnamed")[8:]
        )
        with server.client() as client:
            assert _answers(client)
            assert _answers(client, str(tmp_path / "unnamed.toml"))
            for path in (other, tmp_path / "echo.toml", "/etc/passwd", "/does/not/exist"):
                error = _refusal(client, str(path))
                assert error.code() is grpc.StatusCode.NOT_FOUND
                assert "must be given with -m" in error.details()
            shared = client.stubs.tensor.TensorProto(dtype=7, string_val=[b"/capture"])
            error = _refusal(client, inputs={"data": shared})
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "unix socket only" in error.details()
            assert _answers(client)


class TestTls:
    @TRANSPORTS
    def test_a_client_that_trusts_the_certificate_is_served(
        self,
        start_server: Callable[..., Any],
        model: Callable[..., str],
        certificates: Callable[..., Certificate],
        listening_at: Callable[[str], list[object]],
        transport: str,
    ) -> None:
        own = certificates("server")
        server = start_server(*listening_at(transport), *own.arguments, "-j", "1", "-m", model())
        assert "with TLS" in server.log
        with server.client(root_certificates=own.certificate.read_bytes()) as client:
            assert _answers(client)
        with server.client() as plain:
            assert _refusal(plain).code() is grpc.StatusCode.UNAVAILABLE
        with server.client(root_certificates=certificates("other").certificate.read_bytes()) as distrustful:
            assert _refusal(distrustful).code() is grpc.StatusCode.UNAVAILABLE
        with server.client(root_certificates=own.certificate.read_bytes()) as client:
            assert _answers(client)

    @TRANSPORTS
    def test_only_clients_with_a_certificate_are_served_where_one_is_demanded(
        self,
        start_server: Callable[..., Any],
        model: Callable[..., str],
        certificates: Callable[..., Certificate],
        listening_at: Callable[[str], list[object]],
        transport: str,
    ) -> None:
        own, known, stranger = certificates("server"), certificates("client"), certificates("other")
        server = start_server(
            *listening_at(transport), *own.arguments, "--client-ca", known.certificate, "-j", "1", "-m", model()
        )
        roots = own.certificate.read_bytes()
        with server.client(root_certificates=roots, **known.as_client) as client:
            assert _answers(client)
        for wrong in ({}, stranger.as_client):
            with server.client(root_certificates=roots, **wrong) as client:
                assert _refusal(client).code() is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize("given", ["-c", "-k"])
    def test_half_of_it_on_the_unix_socket_is_none_with_a_warning(
        self,
        start_server: Callable[..., Any],
        model: Callable[..., str],
        certificates: Callable[..., Certificate],
        given: str,
    ) -> None:
        own = certificates("server")
        file = own.certificate if given == "-c" else own.key
        server = start_server(given, file, "-j", "1", "-m", model())
        missing = "key (-k) is missing" if given == "-c" else "certificate (-c) is missing"
        assert f"WARNING no TLS: the {missing}" in server.log
        with server.client() as client:
            assert _answers(client)

    @pytest.mark.parametrize("given", ["-c", "-k"])
    def test_half_of_it_on_tcp_ends_the_start(
        self, start_server: Callable[..., Any], certificates: Callable[..., Certificate], free_port: int, given: str
    ) -> None:
        own = certificates("server")
        file = own.certificate if given == "-c" else own.key
        server = start_server("-p", free_port, given, file, ready=False)
        assert _ends(server) == 1
        assert f"got no {'key (-k)' if given == '-c' else 'certificate (-c)'}" in server.log

    def test_an_authority_for_clients_without_a_certificate_ends_the_start(
        self, start_server: Callable[..., Any], certificates: Callable[..., Certificate]
    ) -> None:
        server = start_server("--client-ca", certificates("client").certificate, ready=False)
        assert _ends(server) == 1
        assert "--client-ca: expected a certificate (-c) and its key (-k)" in server.log

    @pytest.mark.parametrize(
        ("spoilt", "content", "transport"),
        [
            pytest.param("certificate", None, "unix", id="no certificate"),
            pytest.param("key", None, "tcp", id="no key"),
            pytest.param("authority", None, "unix", id="no authority"),
            pytest.param("certificate", b"Not a certificate.\n", "tcp", id="a text for a certificate"),
            pytest.param("key", b"Not a key.\n", "unix", id="a text for a key"),
            pytest.param("authority", b"Not an authority.\n", "unix", id="a text for an authority"),
            pytest.param("certificate", b"", "unix", id="an empty certificate"),
            pytest.param("authority", b"", "unix", id="an empty authority"),
            pytest.param("certificate", bytes(range(256)), "unix", id="bytes for a certificate"),
            pytest.param("certificate", Path.mkdir, "unix", id="a folder for a certificate"),
        ],
    )
    def test_a_file_that_cannot_be_used_ends_the_start(
        self,
        certificates: Callable[..., Certificate],
        serve_until_it_ends: Callable[..., tuple[int, str]],
        tmp_path: Path,
        spoilt: str,
        content: bytes | Callable[[Path], None] | None,
        transport: str,
    ) -> None:
        own = certificates("server")
        files = {"certificate": own.certificate, "key": own.key, "authority": own.certificate}
        files[spoilt] = tmp_path / "spoilt.pem"
        if callable(content):
            content(files[spoilt])
        elif content is not None:
            files[spoilt].write_bytes(content)
        code, said = serve_until_it_ends(
            transport, "-c", files["certificate"], "-k", files["key"], "--client-ca", files["authority"]
        )
        assert code == 1
        assert "TLS" in said
        assert str(files[spoilt]) in said
        assert not surprises(said)

    def test_a_key_of_another_certificate_ends_the_start(
        self, certificates: Callable[..., Certificate], serve_until_it_ends: Callable[..., tuple[int, str]]
    ) -> None:
        own, other = certificates("server"), certificates("other")
        code, said = serve_until_it_ends("unix", "-c", own.certificate, "-k", other.key)
        assert code == 1
        assert str(other.key) in said

    def test_a_key_under_a_passphrase_ends_the_start_without_a_question(
        self, certificates: Callable[..., Certificate], serve_until_it_ends: Callable[..., tuple[int, str]]
    ) -> None:
        locked = certificates("locked", "-passout", "pass:secret")
        code, said = serve_until_it_ends("unix", *locked.arguments)
        assert code == 1
        assert "unencrypted key" in said


@pytest.fixture
def serve_until_it_ends(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a server that is to end by itself, for its exit code and what it said."""

    def run(transport: str, *arguments: object) -> tuple[int, str]:
        where = ["--socket", str(tmp_path / "s.sock")] if transport == "unix" else ["-a", "127.0.0.1", "-p", "1"]
        command = [Path(sys.executable).with_name("acapruntime"), *where, *map(str, arguments)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False, start_new_session=True
        )
        return done.returncode, done.stderr.decode()

    return run


class TestStart:
    @pytest.mark.parametrize("arguments", [[], ["-j", "0"], ["-j", ""]])
    def test_without_a_chip_it_serves_all_but_inference(
        self, start_server: Callable[..., Any], arguments: list[str]
    ) -> None:
        server = start_server(*arguments, ready=False)
        server.wait_for_log("listening")
        with server.client() as client, pytest.raises(grpc.RpcError) as caught:
            client.predict("echo", {"data": THREE})
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "without inference" in caught.value.details()
        assert "-j CHIP" in caught.value.details()
        assert server.workers() == []

    def test_it_listens_while_a_model_loads_and_the_call_waits(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        server = start_server("-j", "1", "-m", model("load_delay = 2"), ready=False)
        with server.client() as client:
            grpc.channel_ready_future(client.channel).result(20)
            with pytest.raises(grpc.RpcError) as caught:
                client.predict("echo", {"data": THREE}, timeout=0.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "loaded on" not in server.log, "the test was too slow to see it"
            assert _answers(client)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            pytest.param(None, ["does not exist"], id="no file"),
            pytest.param("This is no model.", ["expected a TOML"], id="text"),
            pytest.param('fail = "load"', ["told to fail"], id="chip that fails"),
            pytest.param('crash = "load"', ["SIGSEGV"], id="crash"),
        ],
    )
    def test_a_bad_model_ends_it_by_name(
        self, start_server: Callable[..., Any], model: Callable[..., str], text: str | None, words: list[str]
    ) -> None:
        good, bad = model(name="good"), model(text or "", name="bad")
        path = Path(bad.partition("=")[2])
        if text is None:
            path.unlink()
        server = start_server("-j", "1", "-m", good, "-m", bad, ready=False)
        assert _ends(server) == 1
        assert all(word in server.log for word in [str(path), *words]), server.log
        assert not surprises(server.log)
        assert not _socket(server).exists()

    def test_of_two_that_load_when_the_worker_dies_the_one_that_it_dies_of_is_named(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        slow, bad = model("load_delay = 0.5", name="slow"), model('load_delay = 0.1\ncrash = "load"', name="bad")
        server = start_server("-j", "1", "-m", slow, "-m", bad, ready=False)
        assert _ends(server) == 1
        assert "acapruntime: error: model bad of " in server.log

    def test_one_that_fails_ends_at_once_and_tells_the_clients_that_wait(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        bad, slow = model('load_delay = 1\nfail = "load"', name="bad"), model("load_delay = 60", name="slow")
        server = start_server("-j", "1", "-m", bad, "-m", slow, "--grace", "5", ready=False)
        with server.client() as client:
            stub = client.stubs.service.PredictionServiceStub(client.channel)
            waiting = stub.Predict.future(client.request("bad", {"data": THREE}), timeout=30, wait_for_ready=True)
            other = stub.Predict.future(client.request("slow", {"data": THREE}), timeout=30, wait_for_ready=True)
            assert waiting.code() is grpc.StatusCode.INTERNAL
            assert "told to fail" in waiting.details()
            failed = time.monotonic()
            assert _ends(server) == 1
            assert time.monotonic() - failed < 4, "it waits for calls that will never be served"
            assert other.code() is grpc.StatusCode.UNAVAILABLE
            assert "told to fail" in other.details()

    def test_a_model_that_hangs_in_loading_ends_it(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        server = start_server("-j", "1", "-m", model('hang = "load"'), "--load-timeout", "1", ready=False)
        assert _ends(server) == 1
        assert "did not load within 1 s" in server.log


class TestStop:
    def test_a_time_to_run_ends_it_with_success(self, start_server: Callable[..., Any]) -> None:
        server = start_server("-t", "1")
        listening = time.monotonic()
        assert _ends(server) == 0
        assert 0.5 < time.monotonic() - listening < 10
        assert not _socket(server).exists()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_running_and_waiting_calls_are_finished_first(
        self, start_server: Callable[..., Any], model: Callable[..., str], number: int
    ) -> None:
        server = start_server("-j", "1", "-m", model("delay = 0.5"), "--grace", "20")
        workers = server.workers()
        with server.client() as client:
            stub = client.stubs.service.PredictionServiceStub(client.channel)
            grpc.channel_ready_future(client.channel).result(10)
            calls = [stub.Predict.future(client.request("echo", {"data": THREE}), timeout=30) for _ in range(4)]
            time.sleep(0.3)
            started = time.monotonic()
            server.process.send_signal(number)
            time.sleep(0.2)
            late = _refusal(client)
            assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 4
        assert late.code() is grpc.StatusCode.UNAVAILABLE
        assert _ends(server) == 0
        assert time.monotonic() - started < 15, "it did not wait for calls alone"
        assert not _socket(server).exists()
        assert _gone(workers)

    def test_a_signal_to_every_process_of_the_service_lets_the_running_call_finish(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        server = start_server("-j", "1", "-m", model("delay = 1"), "--grace", "20")
        with server.client() as client:
            stub = client.stubs.service.PredictionServiceStub(client.channel)
            call = stub.Predict.future(client.request("echo", {"data": THREE}), timeout=30, wait_for_ready=True)
            time.sleep(0.4)
            for process in (*server.workers(), server.process.pid):
                os.kill(process, signal.SIGTERM)
                time.sleep(0.1)
            assert call.code() is grpc.StatusCode.OK
        assert _ends(server) == 0
        assert server.log.count("worker of chip 1 (debug-device) started") == 1
        assert "call(s) failed" not in server.log

    @pytest.mark.parametrize(("how", "number"), [("hang", signal.SIGTERM), ("freeze", signal.SIGINT)])
    def test_a_call_that_hangs_does_not_keep_it(
        self, start_server: Callable[..., Any], model: Callable[..., str], how: str, number: int
    ) -> None:
        server = start_server("-j", "1", "-m", model(f'{how} = "run"'), "--grace", "0.5")
        workers = server.workers()
        with server.client() as client:
            stub = client.stubs.service.PredictionServiceStub(client.channel)
            call = stub.Predict.future(client.request("echo", {"data": THREE}), timeout=60, wait_for_ready=True)
            time.sleep(0.5)
            started = time.monotonic()
            server.process.send_signal(number)
            assert call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert _ends(server) == 0
        assert time.monotonic() - started < 10
        assert not _socket(server).exists()
        assert _gone(workers)
        assert not surprises(server.log)

    def test_a_model_that_hangs_in_loading_does_not_keep_it(
        self, start_server: Callable[..., Any], model: Callable[..., str]
    ) -> None:
        server = start_server("-j", "1", "-m", model('freeze = "load"'), ready=False)
        server.wait_for_log("worker of chip 1 (debug-device) started")
        workers = server.workers()
        time.sleep(0.3)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10
        assert _gone(workers)
        assert not surprises(server.log)

    def test_a_signal_before_the_chip_is_up_ends_it(self, start_server: Callable[..., Any]) -> None:
        server = start_server("-j", "1", ready=False)
        server.wait_for_log("listening")
        assert server.stop() == 0
        assert not _socket(server).exists()
        assert not surprises(server.log)

    def test_a_second_signal_does_no_harm(self, start_server: Callable[..., Any], model: Callable[..., str]) -> None:
        server = start_server("-j", "1", "-m", model("delay = 1"))
        with server.client() as client:
            stub = client.stubs.service.PredictionServiceStub(client.channel)
            call = stub.Predict.future(client.request("echo", {"data": THREE}), timeout=30, wait_for_ready=True)
            time.sleep(0.4)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                server.process.send_signal(number)
                time.sleep(0.05)
            assert call.code() is grpc.StatusCode.OK
        assert _ends(server) == 0
        assert not _socket(server).exists()
