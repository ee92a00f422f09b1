"""Parameter stores: what each answers, how each fails, and what of it overrides the command line."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from acap_runtime.errors import AcapError, DeviceError, InvalidRequest, NotReady, Unavailable
from acap_runtime.link.restarts import RestartPolicy
from acap_runtime.plugins.installed import InstalledStore, Plugin, Plugins, load_plugin
from acap_runtime.proto import ParameterRequest
from acap_runtime.services.parameter import ParameterService
from acap_runtime.settings.options import Settings
from acap_runtime.stores import Store
from acap_runtime.stores.choice import make_store
from acap_runtime.stores.credentials import Credentials, read_credentials
from acap_runtime.stores.file import FileStore
from acap_runtime.stores.listing import LARGEST, is_listing, parse_listing
from acap_runtime.stores.overrides import overridden
from acap_runtime.stores.remote import RemoteStore

LONG_AGO = time.time() - 3600


async def failure(call: Awaitable[Any]) -> AcapError:
    with pytest.raises(AcapError) as caught:
        await call
    return caught.value


async def impatient(call: Awaitable[Any], patience_s: float) -> BaseException | None:
    """How a call ends whose caller gives up after `patience_s` seconds."""
    try:
        await asyncio.wait_for(call, patience_s)
    except (TimeoutError, AcapError) as error:
        return error
    return None


def run_with(store: Store, scenario: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with a store that is closed after it."""

    async def whole() -> None:
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


class FixedStore(Store):
    """Values, or an error in place of one."""

    def __init__(self, values: dict[str, str | AcapError]) -> None:
        self.values = values

    async def probe(self) -> None:
        raise AssertionError("it was probed by who made it")

    async def get(self, key: str) -> str | None:
        value = self.values.get(key)
        if isinstance(value, AcapError):
            raise value
        return value

    async def close(self) -> None:
        raise AssertionError("it is closed by who made it")


class TestListing:
    def test_lines_are_parsed_as_cameras_write_them(self) -> None:
        content = (
            b"root.Brand.Brand=AXIS\r\nBrand.WebURL=http://www.axis.com/?a=b\nroot.Empty=\r\n\r\n"
            b"# root.Remark=1\n root.Blank = two words \nno separator\nroot.Bad key=1\nroot.Latin=\xe9\n=x"
        )
        assert parse_listing(content) == {
            "Brand.Brand": "AXIS",
            "Brand.WebURL": "http://www.axis.com/?a=b",
            "Empty": "",
            "Blank": " two words ",
            "Latin": "�",
        }

    def test_a_byte_order_mark_and_odd_line_separators_change_nothing(self) -> None:
        assert parse_listing("\ufeffroot.A=1\nroot.B=x\u2028y\x0bz\n".encode()) == {"A": "1", "B": "x\u2028y\x0bz"}

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", True),
            (b"\r\n\r\nroot.A=1", True),
            (b"# Error: Error -1 getting param in group 'X'\r\n", True),
            (b"<!DOCTYPE html>\n<a href=x>", False),
            (b"\x00\x01\x02", False),
        ],
    )
    def test_what_is_a_listing(self, content: bytes, expected: bool) -> None:
        assert is_listing(content) is expected


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "device.txt"
        path.write_text("root.Brand.Brand=AXIS\nImage.I0.Enabled=yes\nroot.Empty=\n")
        return path

    def test_both_spellings_of_a_key_find_both_spellings_of_a_line(self, path: Path) -> None:
        async def scenario(store: FileStore) -> None:
            await store.probe()
            for key in ("Brand.Brand", "root.Brand.Brand"):
                assert await store.get(key) == "AXIS"
            for key in ("Image.I0.Enabled", "root.Image.I0.Enabled"):
                assert await store.get(key) == "yes"
            assert await store.get("root.Empty") == ""
            for key in ("root.Brand", "root.root.Brand.Brand", "root", "brand.brand"):
                assert await store.get(key) is None

        run_with(FileStore(path), scenario)

    @pytest.mark.parametrize("age_s", [0.0, 3600.0], ids=["just written", "long ago"])
    def test_a_change_is_seen_also_one_of_the_same_size_and_one_by_rename(self, path: Path, age_s: float) -> None:
        async def scenario(store: FileStore) -> None:
            for number, rename in enumerate([False, True, False, True]):
                target = path.with_suffix(".new") if rename else path
                target.write_text(f"root.A={number}\n")
                os.utime(target, (time.time() - age_s + number,) * 2)
                target.replace(path)
                assert await store.get("root.A") == str(number)
                assert await store.get("root.A") == str(number)

        run_with(FileStore(path), scenario)

    def test_a_file_that_stays_as_it_is_is_read_once(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.utime(path, (LONG_AGO, LONG_AGO))
        reads = []
        monkeypatch.setattr(
            "acap_runtime.stores.file.parse_listing", lambda content: reads.append(content) or parse_listing(content)
        )

        async def scenario(store: FileStore) -> None:
            for _ in range(5):
                assert await store.get("root.Brand.Brand") == "AXIS"
            assert len(reads) == 1

        run_with(FileStore(path), scenario)

    def test_one_that_vanishes_is_unavailable_and_comes_back_by_itself(self, path: Path) -> None:
        async def scenario(store: FileStore) -> None:
            assert await store.get("Brand.Brand") == "AXIS"
            os.rename(path, path.with_suffix(".aside"))  # noqa: PTH104 - nothing here waits for a disk
            error = await failure(store.get("Brand.Brand"))
            assert isinstance(error, Unavailable)
            assert str(error) == f"parameters file {path} cannot be read: No such file or directory"
            os.rename(path.with_suffix(".aside"), path)  # noqa: PTH104
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(FileStore(path), scenario)

    def test_at_start_a_missing_file_is_not_ready(self, tmp_path: Path) -> None:
        async def scenario(store: FileStore) -> None:
            assert isinstance(await failure(store.probe()), NotReady)

        run_with(FileStore(tmp_path / "nothing"), scenario)

    @pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
    def test_what_is_no_regular_file_is_refused_at_once(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "odd"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(path)

        async def scenario(store: FileStore) -> None:
            started = time.monotonic()
            error = await failure(store.get("A"))
            assert isinstance(error, Unavailable)
            assert re.search("expected a regular file, got|Is a directory|Too many levels", str(error))
            assert time.monotonic() - started < 2

        run_with(FileStore(path), scenario)

    def test_a_huge_one_is_refused(self, path: Path) -> None:
        path.write_bytes(b"root.A=1\n")
        os.truncate(path, LARGEST + 1)

        async def scenario(store: FileStore) -> None:
            assert "expected at most 4 MiB" in str(await failure(store.get("A")))

        run_with(FileStore(path), scenario)

    def test_a_disk_that_hangs_blocks_neither_the_loop_nor_the_other_calls_for_long(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hang, opened = threading.Event(), os.open
        monkeypatch.setattr("acap_runtime.stores.file._PATIENCE_S", 0.3)
        monkeypatch.setattr("os.open", lambda *words: (hang.wait(20), opened(*words))[1])

        async def scenario(store: FileStore) -> None:
            started = time.monotonic()
            errors = await asyncio.gather(*(failure(store.get("A")) for _ in range(50)))
            assert time.monotonic() - started < 3
            assert all("could not be read within 0.3 s" in str(error) for error in errors)
            assert [thread.name for thread in threading.enumerate()].count("parameters_0") == 1
            assert "parameters_1" not in [thread.name for thread in threading.enumerate()]
            hang.set()
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(FileStore(path), scenario)


class TestCredentials:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "credentials"
        path.touch(0o600)
        return path

    @pytest.mark.parametrize(
        ("content", "user", "password"),
        [
            (b"root:pass", "root", "pass"),
            (b"root:pa:ss \n", "root", "pa:ss "),
            ("viewer:pä\r\n".encode(), "viewer", "pä"),
        ],
    )
    def test_a_file_has_them_in_one_line(self, path: Path, content: bytes, user: str, password: str) -> None:
        path.write_bytes(content)
        found = read_credentials(path, {"ACAPRUNTIME_PARAMETERS_USER": "other"})
        assert found == Credentials(user, password)
        assert "pa" not in repr(found)

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"secret", b":secret", b"root:", b"a:secret\nb:c\n", b"a:\xff", b"a:" + b"b" * 5000]
    )
    def test_anything_else_is_refused_without_showing_it(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(NotReady, match="expected one line, user:password") as caught:
            read_credentials(path)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
    def test_a_file_that_others_can_read_is_refused_with_what_to_do(self, path: Path, mode: int) -> None:
        path.write_text("root:pass")
        path.chmod(mode)
        with pytest.raises(NotReady, match=f"only its owner can read.*chmod 600 {path}"):
            read_credentials(path)

    def test_a_missing_file_and_a_fifo_are_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(NotReady, match="No such file"):
            read_credentials(tmp_path / "nothing")
        os.mkfifo(tmp_path / "fifo", 0o600)
        with pytest.raises(NotReady, match="expected a regular file"):
            read_credentials(tmp_path / "fifo")

    def test_the_environment_has_both_or_neither(self) -> None:
        user, password = {"ACAPRUNTIME_PARAMETERS_USER": "root"}, {"ACAPRUNTIME_PARAMETERS_PASSWORD": "secret"}
        assert read_credentials(None, {}) is None
        assert read_credentials(None, user | password) == Credentials("root", "secret")
        with pytest.raises(NotReady, match="expected ACAPRUNTIME_PARAMETERS_PASSWORD beside"):
            read_credentials(None, user)
        with pytest.raises(NotReady, match="expected ACAPRUNTIME_PARAMETERS_USER beside") as caught:
            read_credentials(None, password)
        assert "secret" not in str(caught.value)


PARAMETERS = {
    "root.Brand.Brand": "AXIS",
    "root.Brand.ProdFullName": "AXIS Q1656 = good",
    "root.Acapruntime.IpPort": "9001",
    "root.Empty": "",
}


class Camera(ThreadingHTTPServer):
    """param.cgi on the loopback, with digest authentication (RFC 7616, qop auth) for root:pass."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CameraRequest)
        self.algorithm: str | None = "MD5"
        self.challenge = 'Digest realm="AXIS", nonce="{nonce}", algorithm={algorithm}, qop="auth"'
        self.prefix = "root."
        self.line_end = "\r\n"
        self.answer: Callable[[_CameraRequest], None] | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.nonce = "first"
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that gives up is no error."""


class _CameraRequest(BaseHTTPRequestHandler):
    server: Camera
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        camera = self.server
        given = self.headers.get("Authorization")
        camera.requests.append((self.path, given))
        if camera.answer is not None:
            camera.answer(self)
        elif camera.algorithm is not None and not self._is_authorized(given or ""):
            self.refuse()
        else:
            query = parse_qs(urlsplit(self.path).query)
            assert query["action"] == ["list"]
            self.send(200, self._listed(query["group"][0]).encode())

    def refuse(self) -> None:
        challenge = self.server.challenge.format(nonce=self.server.nonce, algorithm=self.server.algorithm)
        self.send(401, b"<html>who are you?</html>", {"WWW-Authenticate": challenge})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _listed(self, group: str) -> str:
        bare = group.removeprefix("root.")
        keys = [key for key in PARAMETERS if f"{key}.".startswith(f"root.{bare}.")]
        lines = [f"{self.server.prefix}{key.removeprefix('root.')}={PARAMETERS[key]}" for key in keys]
        lines = lines or [f"# Error: Error -1 getting param in group '{group}'"]
        return "".join(line + self.server.line_end for line in lines)

    def _is_authorized(self, given: str) -> bool:
        fields = dict(re.findall(r'(\w+)="?([^",]+)"?', given))
        if fields.get("nonce") != self.server.nonce:
            return False
        name = {"MD5": "md5", "SHA-256": "sha256"}[self.server.algorithm or ""]

        def digest(*words: str) -> str:
            return hashlib.new(name, ":".join(words).encode()).hexdigest()

        assert fields["uri"] == self.path
        expected = digest(
            *(digest("root", "AXIS", "pass"), fields["nonce"], fields["nc"], fields["cnonce"], "auth"),
            digest("GET", self.path),
        )
        return fields["username"] == "root" and fields["response"] == expected


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera() as camera:
        thread = threading.Thread(target=camera.serve_forever, args=(0.01,))
        thread.start()
        yield camera
        camera.stopping.set()
        camera.shutdown()
        thread.join()


@pytest.fixture
def vapix() -> Any:
    """The class, which needs an extra that core alone does not bring."""
    pytest.importorskip("httpx")
    from acap_runtime.stores.vapix import VapixStore

    return VapixStore


ROOT = Credentials("root", "pass")


class TestVapix:
    @pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", None])
    def test_it_reads_with_digest_authentication_and_keeps_the_nonce(
        self, camera: Camera, vapix: Any, algorithm: str | None
    ) -> None:
        camera.algorithm = algorithm

        async def scenario(store: Store) -> None:
            await store.probe()
            for key in ("root.Brand.Brand", "Brand.Brand"):
                assert await store.get(key) == "AXIS"
            assert await store.get("root.Brand.ProdFullName") == "AXIS Q1656 = good"
            assert await store.get("root.Empty") == ""
            assert len(camera.requests) == (5 if algorithm is None else 6)
            assert not any("pass" in (given or "") for _, given in camera.requests)

        run_with(vapix(camera.url, None if algorithm is None else ROOT), scenario)

    def test_a_nonce_that_has_expired_is_replaced(self, camera: Camera, vapix: Any) -> None:
        async def scenario(store: Store) -> None:
            assert await store.get("Brand.Brand") == "AXIS"
            camera.nonce = "second"
            assert await store.get("Brand.Brand") == "AXIS"
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(vapix(camera.url, ROOT), scenario)

    def test_many_calls_at_once_are_all_answered(self, camera: Camera, vapix: Any) -> None:
        async def scenario(store: Store) -> None:
            assert set(await asyncio.gather(*(store.get("Brand.Brand") for _ in range(40)))) == {"AXIS"}

        run_with(vapix(camera.url, ROOT), scenario)

    @pytest.mark.parametrize(("prefix", "line_end"), [("root.", "\n"), ("", "\r\n")])
    def test_older_cameras_spellings_are_understood(
        self, camera: Camera, vapix: Any, prefix: str, line_end: str
    ) -> None:
        camera.prefix, camera.line_end = prefix, line_end

        async def scenario(store: Store) -> None:
            assert await store.get("root.Brand.Brand") == "AXIS"

        run_with(vapix(camera.url + "/", ROOT), scenario)

    def test_an_unknown_key_and_a_group_have_no_value(self, camera: Camera, vapix: Any) -> None:
        async def scenario(store: Store) -> None:
            for key in ("root.Nothing", "root.Brand", "root", "root.Brand.Bran"):
                assert await store.get(key) is None

        run_with(vapix(camera.url, ROOT), scenario)

    @pytest.mark.parametrize(
        ("credentials", "said"),
        [(None, "give --parameters-credentials FILE"), (Credentials("root", "wrong"), "refuses the user name and")],
    )
    def test_refused_credentials_end_the_start_and_are_never_shown(
        self,
        camera: Camera,
        vapix: Any,
        caplog: pytest.LogCaptureFixture,
        credentials: Credentials | None,
        said: str,
    ) -> None:
        caplog.set_level(logging.INFO)

        async def scenario(store: Store) -> None:
            for call in (store.probe(), store.get("Brand.Brand")):
                error = await failure(call)
                assert isinstance(error, NotReady)
                assert said in str(error)
                assert "wrong" not in str(error)
            assert len(camera.requests) <= 4

        run_with(vapix(camera.url, credentials), scenario)
        assert "wrong" not in caplog.text

    @pytest.mark.parametrize(
        "challenge",
        [
            'Digest realm="AXIS", nonce="{nonce}", algorithm=ROT13, qop="auth"',
            'Digest realm="AXIS", nonce="{nonce}", qop="auth-int"',
            'Digest realm="AXIS"',
            "Digest nonsense",
        ],
    )
    def test_a_challenge_that_is_none_is_unavailable_until_there_is_a_better_one(
        self, camera: Camera, vapix: Any, challenge: str
    ) -> None:
        good, camera.challenge = camera.challenge, challenge

        async def scenario(store: Store) -> None:
            assert isinstance(await failure(store.get("Brand.Brand")), Unavailable)
            camera.challenge = good
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(vapix(camera.url, ROOT), scenario)

    def test_a_camera_that_offers_basic_authentication_only_gets_no_password(self, camera: Camera, vapix: Any) -> None:
        camera.challenge = 'Basic realm="AXIS"'

        async def scenario(store: Store) -> None:
            assert "digest" in str(await failure(store.get("Brand.Brand")))
            assert [given for _, given in camera.requests] == [None]

        run_with(vapix(camera.url, ROOT), scenario)

    @pytest.mark.parametrize(
        ("status", "headers"), [(500, {}), (503, {}), (404, {}), (403, {}), (302, {"Location": "http://127.0.0.2:1/x"})]
    )
    def test_another_status_is_unavailable_and_named_and_redirects_are_not_followed(
        self, camera: Camera, vapix: Any, status: int, headers: dict[str, str]
    ) -> None:
        camera.answer = lambda request: request.send(status, b"no", headers)

        async def scenario(store: Store) -> None:
            error = await failure(store.get("Brand.Brand"))
            assert isinstance(error, Unavailable)
            assert f"got {status}" in str(error)
            assert headers.get("Location", "") in str(error)
            assert len(camera.requests) == 1

        run_with(vapix(camera.url, ROOT), scenario)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda request: request.send(200, b"<html>\r\n<a href='/login'>log in</a>"),
            lambda request: request.send(200, bytes(range(256))),
            lambda request: request.wfile.write(b"\xff\xfe garbage that is no HTTP\r\n\r\n"),
            lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nroot.Bra"),
            lambda request: request.connection.close(),
        ],
        ids=["page", "bytes", "no HTTP", "cut short", "hung up"],
    )
    def test_garbage_is_unavailable(self, camera: Camera, vapix: Any, answer: Callable[[_CameraRequest], None]) -> None:
        def answer_and_close(request: _CameraRequest) -> None:
            answer(request)
            request.close_connection = True

        camera.answer = answer_and_close

        async def scenario(store: Store) -> None:
            error = await failure(store.get("Brand.Brand"))
            assert isinstance(error, Unavailable)
            assert str(error).startswith(f"camera {camera.url} does not answer")
            camera.answer = None
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(vapix(camera.url, ROOT), scenario)

    @pytest.mark.parametrize("status", [200, 401])
    def test_a_huge_answer_is_cut_off(self, camera: Camera, vapix: Any, status: int) -> None:
        sent = []

        def flood(request: _CameraRequest) -> None:
            request.send(
                status, b"", {"Content-Length": str(1 << 40), "WWW-Authenticate": 'Digest realm="A", nonce="b"'}
            )
            while not camera.stopping.is_set():
                request.wfile.write(b"root.A=1\n" * 7282)
                sent.append(1)

        camera.answer = flood

        async def scenario(store: Store) -> None:
            assert "at most 4 MiB, got more" in str(await failure(store.get("Brand.Brand")))

        run_with(vapix(camera.url, ROOT, patience_s=30), scenario)
        assert len(sent) < 1000

    @pytest.mark.parametrize("slowly", [False, True], ids=["silent", "a byte now and then"])
    def test_a_camera_that_does_not_answer_in_time_is_unavailable(
        self, camera: Camera, vapix: Any, slowly: bool
    ) -> None:
        def keep_waiting(request: _CameraRequest) -> None:
            if slowly:
                request.send(200, b"", {"Content-Length": "1000"})
            while not camera.stopping.wait(0.1):
                if slowly:
                    request.wfile.write(b"r")

        camera.answer = keep_waiting

        async def scenario(store: Store) -> None:
            started = time.monotonic()
            error = await failure(store.get("Brand.Brand"))
            assert isinstance(error, Unavailable)
            assert "does not answer within 0.5 s" in str(error)
            assert time.monotonic() - started < 3

        run_with(vapix(camera.url, ROOT, patience_s=0.5), scenario)

    def test_a_camera_that_is_down_is_unavailable_but_does_not_stop_the_start(
        self, vapix: Any, free_port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario(store: Store) -> None:
            error = await failure(store.get("Brand.Brand"))
            assert isinstance(error, Unavailable)
            assert "Connection refused" in str(error)
            await store.probe()
            assert "as soon as it does" in caplog.text

        run_with(vapix(f"http://127.0.0.1:{free_port}", ROOT), scenario)

    def test_plain_http_to_another_machine_is_warned_of(self, vapix: Any, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario(_: Store) -> None:
            assert "camera http://camera.example: values travel in the open" in caplog.text

        run_with(vapix("http://camera.example", ROOT), scenario)

    def test_a_proxy_of_the_environment_is_not_asked(
        self, camera: Camera, vapix: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

        async def scenario(store: Store) -> None:
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(vapix(camera.url, ROOT), scenario)

    def test_a_missing_httpx_is_said_with_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "httpx", None)
        monkeypatch.delitem(sys.modules, "acap_runtime.stores.vapix", raising=False)
        with pytest.raises(NotReady, match=r"pip install 'acap-runtime\[vapix\]'"):
            make_store(Settings(parameters="http://127.0.0.1"), Plugins(()), {})


@pytest.fixture
def free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _CameraRequest) as server:
        return server.server_port


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for `name`, as cameras have, and its key."""
    made = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        *("-keyout", str(made[1]), "-out", str(made[0])),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return made


class TestVapixWithTls:
    @pytest.fixture
    def shown(self, camera: Camera, tmp_path: Path) -> Path:
        """The certificate that the camera shows."""
        shown, key = certificate(tmp_path, "localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown, key)
        camera.socket = context.wrap_socket(camera.socket, server_side=True)
        return shown

    def test_a_self_signed_certificate_is_trusted_where_it_is_named(
        self, camera: Camera, vapix: Any, shown: Path
    ) -> None:
        async def scenario(store: Store) -> None:
            assert await store.get("Brand.Brand") == "AXIS"

        run_with(vapix(f"https://localhost:{camera.server_port}", ROOT, shown), scenario)

    @pytest.mark.parametrize("trusted", ["the system's", "another"])
    def test_one_that_is_not_trusted_ends_the_start_with_what_to_do(
        self, camera: Camera, vapix: Any, shown: Path, tmp_path: Path, trusted: str
    ) -> None:
        authorities = None if trusted == "the system's" else certificate(tmp_path, "other")[0]

        async def scenario(store: Store) -> None:
            error = await failure(store.probe())
            assert isinstance(error, NotReady)
            assert "--parameters-ca" in str(error)
            assert not camera.requests

        run_with(vapix(f"https://localhost:{camera.server_port}", ROOT, authorities), scenario)

    def test_one_for_another_name_is_not_trusted(self, camera: Camera, vapix: Any, shown: Path) -> None:
        async def scenario(store: Store) -> None:
            error = await failure(store.get("Brand.Brand"))
            assert "the name in it" in str(error)
            assert not camera.requests

        run_with(vapix(f"https://127.0.0.1:{camera.server_port}", ROOT, shown), scenario)

    def test_plain_http_to_a_port_with_tls_is_unavailable(self, camera: Camera, vapix: Any, shown: Path) -> None:
        async def scenario(store: Store) -> None:
            assert isinstance(await failure(store.get("Brand.Brand")), Unavailable)

        run_with(vapix(camera.url, ROOT), scenario)

    def test_a_file_that_holds_no_certificates_is_refused(self, vapix: Any, tmp_path: Path) -> None:
        with pytest.raises(NotReady, match="cannot be read: No such file"):
            vapix("https://localhost", None, tmp_path / "nothing")
        (tmp_path / "text").write_text("hello")
        with pytest.raises(NotReady, match="expected certificates, PEM"):
            vapix("https://localhost", None, tmp_path / "text")


STORE = '''
"""A store whose keys are Python expressions, at work in its process."""
import ctypes, os, signal, time
from pathlib import Path
import acap_runtime as acap

class Scripted(acap.ParameterStore):
    name, own = "scripted", True

    def probe(self):
        script = Path(__file__).with_name("probe.py")
        if script.exists():
            exec(script.read_text())

    def get(self, key):
        script = Path(__file__).with_name(key)
        if not script.exists():
            return {"root.A": "1", "root.Pid": str(os.getpid())}.get(key)
        scope = {"acap": acap, "os": os, "time": time, "ctypes": ctypes, "signal": signal}
        exec(script.read_text(), scope)
        return scope.get("value")

@acap.hookimpl
def acap_runtime_parameter_stores():
    return [Scripted()]
'''
SEGFAULT = "ctypes.string_at(0)"
QUICK = RestartPolicy(first_delay_s=0.02, longest_delay_s=0.1)
MODULE = "acap_test_scripted_store"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    (tmp_path / f"{MODULE}.py").write_text(STORE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return Plugin("scripted", "acap-test", "1", MODULE, load_plugin(MODULE))


@pytest.fixture
def installed(plugin: Plugin) -> InstalledStore:
    return InstalledStore(plugin.brings.stores[0], plugin)


def children() -> list[int]:
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestRemote:
    @pytest.fixture(autouse=True)
    def nothing_left(self) -> Iterator[None]:
        before = descriptors()
        yield
        assert not children()
        assert descriptors() <= before

    @pytest.fixture
    def script(self, tmp_path: Path) -> Callable[[str, str], None]:
        """Makes what a key does when it is asked for, or ``probe.py``."""

        def write(key: str, code: str) -> None:
            (tmp_path / key).write_text(code)

        return write

    def test_it_answers_out_of_a_process_that_is_started_once(self, installed: InstalledStore) -> None:
        async def scenario(store: Store) -> None:
            assert not children()
            await store.probe()
            (process,) = children()
            assert await asyncio.gather(*(store.get("A") for _ in range(50))) == ["1"] * 50
            assert await store.get("root.Pid") == str(process)
            assert await store.get("root.Unknown") is None

        run_with(RemoteStore(installed), scenario)

    def test_an_error_is_the_calls_own(self, installed: InstalledStore, script: Callable[[str, str], None]) -> None:
        script("root.Down", "raise acap.Unavailable('the bus is down')")
        script("root.Odd", "raise KeyError('odd')")
        script("root.Number", "value = 3")
        script("root.Half", "value = chr(0xd800)")

        async def scenario(store: Store) -> None:
            assert "the bus is down" in str(await failure(store.get("root.Down")))
            for key, said in (("Odd", "KeyError"), ("Number", "gave int"), ("Half", "no Unicode text")):
                error = await failure(store.get(f"root.{key}"))
                assert isinstance(error, DeviceError)
                assert said in str(error)
            assert len(children()) == 1
            assert await store.get("A") == "1"

        run_with(RemoteStore(installed), scenario)

    def test_what_its_probe_raises_comes_back(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("probe.py", "raise acap.NotReady('no libaxparameter here')")

        async def scenario(store: Store) -> None:
            error = await failure(store.probe())
            assert isinstance(error, NotReady)
            assert "parameter store scripted is not ready: no libaxparameter here" in str(error)

        run_with(RemoteStore(installed, QUICK), scenario)

    def test_a_crash_fails_the_call_with_how_it_ended_and_the_next_has_a_new_process(
        self, installed: InstalledStore, script: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        script("root.Crash", SEGFAULT)

        async def scenario(store: Store) -> None:
            first = await store.get("root.Pid")
            crash = asyncio.create_task(failure(store.get("root.Crash")))
            await asyncio.sleep(0)
            others = [asyncio.create_task(store.get("A")) for _ in range(5)]
            error = await crash
            assert isinstance(error, Unavailable)
            assert str(error) == "the worker of parameter store scripted was killed by SIGSEGV"
            assert await asyncio.gather(*others) == ["1"] * 5
            assert await store.get("root.Pid") != first
            assert "was killed by SIGSEGV" in caplog.text

        run_with(RemoteStore(installed, QUICK), scenario)

    def test_one_that_dies_while_nobody_asks_is_started_by_the_next_call(self, installed: InstalledStore) -> None:
        async def scenario(store: Store) -> None:
            await store.probe()
            (process,) = children()
            os.kill(process, signal.SIGKILL)
            await asyncio.sleep(0.5)
            assert not children()
            assert await store.get("A") == "1"

        run_with(RemoteStore(installed, QUICK), scenario)

    def test_one_that_hangs_is_killed_and_the_next_call_has_a_new_process(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("root.Hang", "time.sleep(100)")

        async def scenario(store: Store) -> None:
            first = await store.get("root.Pid")
            started = time.monotonic()
            error = await failure(store.get("root.Hang"))
            assert isinstance(error, Unavailable)
            assert "was killed: it did not answer within 1 s" in str(error)
            assert 0.9 < time.monotonic() - started < 5
            assert await store.get("root.Pid") != first

        run_with(RemoteStore(installed, QUICK, patience_s=1), scenario)

    def test_one_that_hangs_is_killed_also_where_every_caller_gives_up_early(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("root.Hang", "time.sleep(100)")

        async def scenario(store: Store) -> None:
            await store.probe()
            first = children()
            end = time.monotonic() + 20
            while not isinstance(ending := await impatient(store.get("root.Hang"), 0.2), Unavailable):
                assert time.monotonic() < end
            assert "was killed" in str(ending)
            assert await store.get("A") == "1"
            assert children() != first

        run_with(RemoteStore(installed, QUICK, patience_s=2), scenario)

    def test_an_answer_that_comes_after_its_caller_gave_up_is_nobody_elses(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("root.Slow", "time.sleep(0.3); value = 'slow'")

        async def scenario(store: Store) -> None:
            await store.probe()
            assert isinstance(await impatient(store.get("root.Slow"), 0.1), TimeoutError)
            assert await store.get("A") == "1"

        run_with(RemoteStore(installed), scenario)

    def test_a_start_goes_on_when_its_caller_gives_up(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("probe.py", "time.sleep(0.5)")

        async def scenario(store: Store) -> None:
            assert isinstance(await impatient(store.get("A"), 0.1), TimeoutError)
            process = children()
            assert await store.get("A") == "1"
            assert children() == process

        run_with(RemoteStore(installed), scenario)

    def test_one_that_closes_its_channel_and_goes_on_is_killed(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        code = "import sys; control = int(sys.argv[1]); os.closerange(3, control); os.closerange(control + 1, 99)"
        script("root.Closes", f"{code}; time.sleep(100)")

        async def scenario(store: Store) -> None:
            error = await failure(store.get("root.Closes"))
            assert "closed its channel" in str(error)
            assert await store.get("A") == "1"

        run_with(RemoteStore(installed, QUICK), scenario)

    def test_one_that_fails_again_and_again_rests(
        self, installed: InstalledStore, script: Callable[[str, str], None]
    ) -> None:
        script("root.Crash", SEGFAULT)
        policy = RestartPolicy(budget=2, first_delay_s=0.02, longest_delay_s=0.1, rest_s=1.5)

        async def scenario(store: Store) -> None:
            for _ in range(policy.budget):
                assert "SIGSEGV" in str(await failure(store.get("root.Crash")))
            rest = time.monotonic()
            while time.monotonic() < rest + 1:
                started = time.monotonic()
                assert "failed 2 times of late" in str(await failure(store.get("A")))
                assert time.monotonic() - started < 0.3
                await asyncio.sleep(0.1)
            await asyncio.sleep(rest + 2 - time.monotonic())
            assert await store.get("A") == "1"

        run_with(RemoteStore(installed, policy), scenario)

    @pytest.mark.parametrize("moment", ["starting", "asked", "never used"])
    def test_it_is_closed_at_any_moment(
        self, installed: InstalledStore, script: Callable[[str, str], None], moment: str
    ) -> None:
        script("root.Slow", "time.sleep(1)")

        async def scenario() -> None:
            store = RemoteStore(installed)
            calls = []
            if moment == "asked":
                await store.probe()
            if moment != "never used":
                calls.append(asyncio.create_task(store.get("root.Slow")))
                await asyncio.sleep(0.1)
            await store.close()
            assert not children()
            await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(await failure(store.get("A")), Unavailable)

        asyncio.run(scenario())


class TestChoice:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "parameters"
        path.write_text("root.A=file\n")
        return path

    @staticmethod
    def made(settings: Settings, *plugins: Plugin, environment: dict[str, str] | None = None) -> str | None:
        """What the store that is made answers for root.A."""

        async def scenario() -> str | None:
            store = make_store(settings, Plugins(plugins), environment or {})
            if store is None:
                return None
            try:
                if settings.parameters:
                    await store.probe()
                return await store.get("root.A")
            finally:
                await store.close()

        try:
            return asyncio.run(scenario())
        finally:
            assert not children()

    def test_a_path_is_a_file_also_from_the_folder_of_the_start(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        for word in (str(path), path.name, f"./{path.name}"):
            assert self.made(Settings(parameters=word)) == "file"

    def test_a_name_is_a_plugins_store_and_goes_before_a_file(
        self, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "scripted").write_text("root.A=file\n")
        assert self.made(Settings(parameters="scripted"), plugin) == "1"
        assert self.made(Settings(parameters="./scripted"), plugin) == "file"

    def test_a_url_is_a_camera(self, camera: Camera, vapix: Any, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.touch(0o600)
        secret.write_text("root:pass\n")
        environment = {"ACAPRUNTIME_PARAMETERS_USER": "root", "ACAPRUNTIME_PARAMETERS_PASSWORD": "pass"}
        settings = Settings(parameters=camera.url)
        assert self.made(settings, environment=environment) is None
        assert self.made(Settings(parameters=camera.url, parameters_credentials=secret)) is None
        with pytest.raises(NotReady, match="401"):
            self.made(settings)

    def test_nothing_is_the_devices_own_store_or_none(self, plugin: Plugin) -> None:
        assert self.made(Settings()) is None
        assert self.made(Settings(), plugin) == "1"

    def test_an_own_store_that_is_not_the_only_one_is_not_used_and_one_that_is_not_ready_says_so_when_asked(
        self, plugin: Plugin, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert self.made(Settings(), plugin, plugin) is None
        assert "several stores of its own" in caplog.text
        (tmp_path / "probe.py").write_text("raise acap.NotReady('no bus')")
        with pytest.raises(NotReady, match="no bus"):
            self.made(Settings(), plugin)

    def test_what_is_named_has_to_be_there(self, plugin: Plugin, tmp_path: Path) -> None:
        with pytest.raises(NotReady, match=r"expected a file, https://HOST, or a plugin's store.*: scripted"):
            self.made(Settings(parameters="axparameter"), plugin)
        with pytest.raises(NotReady, match="No such file"):
            self.made(Settings(parameters=f"{tmp_path}/nothing"))
        with pytest.raises(NotReady, match=r"there more than once: scripted of acap-test.*--block"):
            self.made(Settings(parameters="scripted"), plugin, plugin)
        (tmp_path / "probe.py").write_text("raise acap.NotReady('no luck')")
        with pytest.raises(NotReady, match="no luck"):
            self.made(Settings(parameters="scripted"), plugin)


class TestOverride:
    @staticmethod
    def settings(values: dict[str, str | AcapError] | None, **given: Any) -> Settings:
        store = None if values is None else FixedStore({f"root.Acapruntime.{key}": v for key, v in values.items()})
        return asyncio.run(overridden(Settings(**({"parameters_override": True} | given)), store))

    def test_the_devices_parameters_override_the_command_line(self) -> None:
        values: dict[str, Any] = {"Verbose": "yes", "IpPort": "9001", "UseTLS": "yes", "ChipId": "4"}
        settings = self.settings(values, port=1, certificate=Path("mine.pem"), chips=("12", "11"))
        assert (settings.verbose, settings.port, settings.chips) == (True, 9001, ("4", "11"))
        assert settings.certificate == Path("/usr/local/packages/acapruntime/server.pem")
        assert settings.key == Path("/usr/local/packages/acapruntime/server.key")

    def test_they_also_turn_off_but_tls_stays_as_the_command_line_has_it(self) -> None:
        values: dict[str, Any] = {"Verbose": "no", "IpPort": "0", "UseTLS": "no", "ChipId": "0"}
        given: dict[str, Any] = {
            "verbose": True,
            "port": 1,
            "certificate": Path("c"),
            "key": Path("k"),
            "chips": ("2",),
        }
        settings = self.settings(values, **given)
        assert (settings.verbose, settings.port, settings.chips) == (False, 0, ("0",))
        assert (settings.certificate, settings.key) == (Path("c"), Path("k"))

    def test_what_is_absent_overrides_nothing(self) -> None:
        assert self.settings({}, port=5) == Settings(parameters_override=True, port=5)

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("Verbose", "maybe", "yes or no"),
            ("Verbose", "1", "yes or no"),
            ("Verbose", "", "yes or no"),
            ("IpPort", "65536", "an integer from 0 to 65535"),
            ("IpPort", "-1", "an integer from 0 to 65535"),
            ("IpPort", "80x", "an integer from 0 to 65535"),
            ("IpPort", "٣", "an integer from 0 to 65535"),
            ("UseTLS", "YES!", "yes or no"),
            ("ChipId", "cpu-tflite", "a chip's number"),
            ("ChipId", "", "a chip's number"),
        ],
    )
    def test_what_does_not_parse_overrides_nothing_and_is_warned_of(
        self, caplog: pytest.LogCaptureFixture, key: str, value: str, expected: str
    ) -> None:
        given: dict[str, Any] = {"verbose": True, "port": 5, "chips": ("2",)}
        assert self.settings({key: value}, **given) == Settings(parameters_override=True, **given)
        assert f"-o: root.Acapruntime.{key}: expected {expected}, got {value!r}" in caplog.text

    def test_without_the_option_nothing_is_asked(self) -> None:
        values: dict[str, Any] = {"IpPort": "9001", "Verbose": Unavailable("down")}
        assert self.settings(values, parameters_override=False) == Settings()

    def test_without_a_store_it_goes_on_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.settings(None, port=5).port == 5
        assert "-o: there is no parameter store" in caplog.text

    @pytest.mark.parametrize("kind", [Unavailable, NotReady, DeviceError])
    def test_a_store_that_does_not_answer_stops_the_start(self, kind: type[AcapError]) -> None:
        values: dict[str, Any] = {"Verbose": "yes", "UseTLS": kind("the camera is down")}
        with pytest.raises(kind, match=r"-o: root\.Acapruntime\.UseTLS cannot be read: the camera is down"):
            self.settings(values, parameters="https://camera")

    def test_a_devices_own_store_on_another_machine_overrides_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.settings({"Verbose": NotReady("no AXIS OS")}, port=5).port == 5
        assert "-o: nothing overrides the command line: no AXIS OS" in caplog.text


class TestService:
    @staticmethod
    def value(store: Store | None, key: str) -> str:
        service = ParameterService(store)
        return str(asyncio.run(service.get_values(ParameterRequest(key=key), None)).value)

    def test_a_value_is_answered_and_an_unknown_key_with_nothing(self) -> None:
        store = FixedStore({"root.Brand.Brand": "AXIS", "a" * 255: "long"})
        assert self.value(store, "root.Brand.Brand") == "AXIS"
        assert self.value(store, "a" * 255) == "long"
        assert self.value(store, "Unknown_key-1") == ""

    @pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "root.Brand&x=1", "a/b", "a,b", "ü", "a" * 256, "٣"])
    def test_what_is_no_key_is_refused_with_what_came(self, key: str) -> None:
        for store in (None, FixedStore({key: "x"})):
            with pytest.raises(InvalidRequest, match="key: expected 1 to 255 letters") as caught:
                self.value(store, key)
            assert repr(key)[:100] in str(caught.value)

    def test_without_a_store_it_says_how_to_give_one(self) -> None:
        with pytest.raises(NotReady, match="--parameters"):
            self.value(None, "root.A")

    def test_what_the_store_raises_is_the_answer(self) -> None:
        with pytest.raises(Unavailable, match="down"):
            self.value(FixedStore({"root.A": Unavailable("down")}), "root.A")
