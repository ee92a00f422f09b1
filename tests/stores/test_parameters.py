"""The parameter API over the wire, as clients of both releases call it, and what -o makes of a device's parameters."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

METHOD = "/keyvaluestore.KeyValueStore/GetValues"
LISTING = """root.Brand.Brand=AXIS\r
root.Brand.ProdFullName=AXIS Q1656-LE Box Camera\r
root.Brand.WebURL=http://www.axis.com/?a=b\r
root.Image.I0.Enabled=yes\r
root.Empty.Value=\r
"""


@pytest.fixture(scope="module")
def parameters(stubs: SimpleNamespace) -> SimpleNamespace:
    """Stubs of keyvaluestore.proto that protoc made, in protobuf's default pool."""
    messages, services = (import_module(f"keyvaluestore_pb2{suffix}") for suffix in ("", "_grpc"))
    return SimpleNamespace(Request=messages.Request, Response=messages.Response, Stub=services.KeyValueStoreStub)


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "parameters.txt"
    path.write_text(LISTING, newline="")
    return path


@pytest.fixture
def value(parameters):
    def ask(server, key: str, **tls: bytes) -> str:
        with server.client(**tls) as client:
            stub = parameters.Stub(client.channel)
            return stub.GetValues(parameters.Request(key=key), timeout=20, wait_for_ready=True).value

    return ask


def test_a_unary_client_reads_the_known_examples(start_server, listing: Path, value) -> None:
    server = start_server("--parameters", listing)
    assert value(server, "root.Brand.Brand") == "AXIS"
    assert value(server, "root.Brand.ProdFullName") == "AXIS Q1656-LE Box Camera"
    assert value(server, "root.Brand.WebURL") == "http://www.axis.com/?a=b"
    assert value(server, "root.Image.I0.Enabled") == "yes"
    assert value(server, "root.Empty.Value") == ""
    assert value(server, "root.Brand.Unknown") == ""


def test_a_client_of_release_1_asks_over_a_stream(start_server, listing: Path, parameters) -> None:
    server = start_server("--parameters", listing)
    keys = ["root.Brand.Brand", "root.No.Such", "root.Image.I0.Enabled"]
    with server.client() as client:
        call = client.channel.stream_stream(
            METHOD, parameters.Request.SerializeToString, parameters.Response.FromString
        )
        answers = call(iter([parameters.Request(key=key) for key in keys]), timeout=20, wait_for_ready=True)
        assert [answer.value for answer in answers] == ["AXIS", "", "yes"]


def test_answers_to_a_stream_come_as_the_questions_do(start_server, listing: Path, parameters) -> None:
    server = start_server("--parameters", listing)
    with server.client() as client:
        call = client.channel.stream_stream(
            METHOD, parameters.Request.SerializeToString, parameters.Response.FromString
        )
        heard = threading.Event()

        def questions():
            yield parameters.Request(key="root.Brand.Brand")
            assert heard.wait(20)
            yield parameters.Request(key="root.Image.I0.Enabled")

        answers = call(questions(), timeout=30, wait_for_ready=True)
        assert next(answers).value == "AXIS"
        heard.set()
        assert [answer.value for answer in answers] == ["yes"]


@pytest.mark.parametrize(
    "key", ["", "a b", "root.Brand;ls", "root/Brand", "root.Bränd", "x" * 256, "root.Brand.Brand\n"]
)
def test_what_is_no_key_is_refused_and_the_next_is_answered(
    start_shared_server, tmp_path_factory, value, key: str
) -> None:
    path = tmp_path_factory.mktemp("parameters") / "listing.txt"
    path.write_text(LISTING)
    server = start_shared_server("--parameters", path)
    with pytest.raises(grpc.RpcError) as caught:
        value(server, key)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("key: expected 1 to 255 letters, digits, '.', '_' and '-'")
    assert value(server, "root.Brand.Brand") == "AXIS"


def test_a_key_may_have_every_sign_that_is_allowed(start_server, tmp_path: Path, value) -> None:
    path = tmp_path / "parameters.txt"
    path.write_text(f"root.A-b_c.D9=1\nroot.{'x' * 250}=2\n")
    server = start_server("--parameters", path)
    assert value(server, "root.A-b_c.D9") == "1"
    assert value(server, f"root.{'x' * 250}") == "2"


def test_a_file_that_changes_is_read_again_without_a_restart(start_server, listing: Path, value) -> None:
    server = start_server("--parameters", listing)
    assert value(server, "root.Brand.Brand") == "AXIS"
    listing.write_text("root.Brand.Brand=Other\n")
    assert value(server, "root.Brand.Brand") == "Other"
    listing.unlink()
    with pytest.raises(grpc.RpcError) as caught:
        value(server, "root.Brand.Brand")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    listing.write_text("root.Brand.Brand=Again\n")
    assert value(server, "root.Brand.Brand") == "Again"


def test_a_server_without_a_store_says_how_to_give_one(start_server, value) -> None:
    server = start_server()
    with pytest.raises(grpc.RpcError) as caught:
        value(server, "root.Brand.Brand")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "--parameters FILE|URL" in caught.value.details()


def test_a_plugins_store_that_crashes_fails_its_call_and_comes_back(start_server, value) -> None:
    server = start_server(environment={"ACAPRUNTIME_PARAMETERS": "debug"})
    assert value(server, "root.Brand.Brand") == "debug"
    with pytest.raises(grpc.RpcError) as caught:
        value(server, "root.Debug.Crash")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert value(server, "root.Brand.Brand") == "debug"
    assert server.stop() == 0


def test_the_parameter_example_works_over_tls_on_the_unix_socket(
    start_server, listing: Path, tmp_path: Path, value
) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    server = start_server("--parameters", listing, "-c", certificate, "-k", key)
    assert value(server, "root.Brand.Brand", root_certificates=certificate.read_bytes()) == "AXIS"


class TestOverrides:
    """-o: what root.Acapruntime says goes before the command line."""

    def test_a_device_says_chip_port_and_verbosity(
        self, start_server, tmp_path: Path, free_port: int, value, write
    ) -> None:
        path = tmp_path / "device.txt"
        path.write_text(
            f"root.Acapruntime.ChipId=1\nroot.Acapruntime.IpPort={free_port}\nroot.Acapruntime.Verbose=yes\n"
            "root.Acapruntime.UseTLS=no\n"
        )
        model = write("echo")
        server = start_server("-a", "localhost", "-o", "--parameters", path, "-m", f"echo={model}", ready=False)
        server.wait_for_log("ready")
        server.address = f"localhost:{free_port}"
        assert value(server, "root.Acapruntime.ChipId") == "1"
        assert f"listening on localhost:{free_port}" in server.log
        assert "chip 1 (debug-device)" in server.log
        with pytest.raises(grpc.RpcError):
            value(server, "no key")
        server.wait_for_log(" DEBUG INVALID_ARGUMENT")

    @pytest.mark.parametrize("content", ["", "root.Acapruntime.IpPort=http\nroot.Acapruntime.ChipId=\n"])
    def test_what_is_absent_or_does_not_parse_overrides_nothing(
        self, start_server, tmp_path: Path, value, content: str
    ) -> None:
        path = tmp_path / "device.txt"
        path.write_text(content)
        server = start_server("-j", "1", "-o", "--parameters", path)
        assert value(server, "root.Brand.Brand") == ""
        assert "worker of chip 1" in server.log
        assert ("IpPort" in server.log) == bool(content)

    def test_without_it_the_device_has_no_say(self, start_server, tmp_path: Path, value) -> None:
        path = tmp_path / "device.txt"
        path.write_text("root.Acapruntime.ChipId=77\n")
        server = start_server("--parameters", path)
        assert value(server, "root.Acapruntime.ChipId") == "77"

    def test_tls_that_the_device_asks_for_is_not_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "device.txt"
        path.write_text("root.Acapruntime.UseTLS=yes\n")
        command = [Path(sys.executable).with_name("acapruntime"), "-o", "--parameters", path, "-t", "1"]
        done = subprocess.run(
            [*command, "--socket", tmp_path / "s.sock"], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert "/usr/local/packages/acapruntime/server.pem" in done.stderr

    def test_without_a_store_it_warns_and_goes_on(self, start_server) -> None:
        server = start_server("-o", "--block", "axis_os")
        server.wait_for_log("-o: there is no parameter store")

    def test_a_devices_own_store_on_another_machine_is_warned_of_too(self, start_server) -> None:
        server = start_server("-o")
        server.wait_for_log("-o: nothing overrides the command line: parameter store axparameter is not ready")
