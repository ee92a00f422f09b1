"""What nobody meant to raise reaches clients and the log as one line that names the library and its version."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import acap_runtime as acap
import grpc
import grpc.aio
import numpy as np
import pytest
from acap_runtime.chips.calls import Input
from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.supervisor import Worker
from acap_runtime.contract import origins
from acap_runtime.link.sources import InlineBytes
from acap_runtime.plugins.installed import InstalledCamera, InstalledChip, InstalledStore, Plugin, load_plugin
from acap_runtime.services.rpc import Method, handlers
from acap_runtime.stores.remote import RemoteStore
from acap_runtime.video.camera_process import CameraWorker

MODULE = "acap_test_surprising"
PLUGIN = '''
"""Everything here raises what is asked for: by a model's file, a camera's source, a parameter, a file beside this."""
import json
from pathlib import Path
import acap_runtime as acap
import acap_test_library
import numpy as np

def stdlib():
    json.loads("{")

def library():
    acap_test_library.fold("nothing")

def changed_library():
    acap_test_library.fold("a", creases=2)

def smaller_library():
    acap_test_library.unfold("a")

def c_function():
    np.frombuffer(b"abc", np.uint16)

def c_method():
    np.zeros(3).reshape(7)

def own_code():
    raise ValueError("that went\\n\\x1b[31mwrong")

def said(what):
    globals()[what]()

class SurprisingModel(acap.Model):
    inputs = outputs = (acap.TensorSpec("data", np.dtype("uint8"), (-1,)),)

    def __init__(self, what):
        self.what = what

    def run(self, inputs):
        said(self.what)

class Inference(acap.InferenceBackend):
    chip_id, name = None, "surprising"

    def probe(self):
        if (asked := Path(__file__).with_name("probe")).exists():
            said(asked.read_text())

    def load(self, path, options):
        if path.suffix == ".load":
            said(path.stem)
        return SurprisingModel(path.stem)

class Processing(acap.ProcessingBackend):
    chip_id, name = None, "surprising-proc"

    def probe(self):
        pass

    def prepare(self, conversion):
        said(Path(__file__).with_name("prepare").read_text())

class SurprisingStream(acap.Stream):
    def __init__(self, what):
        self.what = what

    def read(self, picture, *, keyframe=False):
        said(self.what)

class SurprisingCamera(acap.Camera):
    name = sources = "surprising"

    def claims(self, source):
        if source.startswith("claims:"):
            said(source.removeprefix("claims:"))
        return super().claims(source)

    def probe(self, source):
        pass

    def open(self, source, settings):
        _, when, what = source.split(":")
        if when == "open":
            said(what)
        return SurprisingStream(what)

class SurprisingStore(acap.ParameterStore):
    name = "surprising"

    def probe(self):
        pass

    def get(self, key):
        said(key.removeprefix("root."))

@acap.hookimpl
def acap_runtime_backends():
    return [Inference(), Processing()]

@acap.hookimpl
def acap_runtime_cameras():
    return [SurprisingCamera()]

@acap.hookimpl
def acap_runtime_parameter_stores():
    return [SurprisingStore()]
'''
LIBRARY = """
def fold(name):
    return {"a": 1}[name]
"""
CONVERSION = """
image.input.format = "rgb-interleaved"
image.input.size = [4, 4]
image.output.format = "rgb-interleaved"
image.output.size = [2, 2]
"""
SETTINGS = acap.StreamSettings("rgb-interleaved", 4, 2, 10)
JSON = f"json of Python {platform.python_version()}"
NUMPY = f"numpy {np.__version__}"
HERE = r"(\S+/)?test_unexpected\.py:\d+"
SURPRISES = {
    "stdlib": (r"JSONDecodeError: Expecting property name .*: line 1 column 2 \(char 1\)", JSON),
    "library": ("KeyError: 'nothing'", "acap-test-collection 3.1"),
    "changed_library": (r"TypeError: fold\(\) got an unexpected keyword .*'creases'", "acap-test-collection 3.1"),
    "smaller_library": ("AttributeError: module 'acap_test_library' has no .*'unfold'.*", "acap-test-collection 3.1"),
    "c_function": ("ValueError: buffer size must be a multiple of element size", NUMPY),
    "c_method": (r"ValueError: cannot reshape array of size 3 into shape \(7,\)", NUMPY),
    "own_code": (r"ValueError: that went \[31mwrong", None),
}
"""What each of the plugin's functions raises, and what it comes out of; None is the plugin itself."""


def line_of(what: str) -> str:
    """The one line, as a regular expression."""
    text, library = SURPRISES[what]
    number = PLUGIN.partition(f"def {what}():")[0].count("\n") + 2
    place = f"acap-test-surprising 1.5, {MODULE}.py:{number}"
    return rf"unexpected {text} \({re.escape(f'{library}, called by {place}' if library else place)}\)"


def install(folder: Path, distribution: str, version: str, module: str, code: str, points: str = "") -> None:
    """Unpack a distribution of one module, as pip does."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    if points:
        (info / "entry_points.txt").write_text(points)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    points = f"[acap_runtime]\nsurprising = {MODULE}\n"
    install(tmp_path, "acap-test-surprising", "1.5", MODULE, PLUGIN, points)
    install(tmp_path, "acap-test-collection", "3.1", "acap_test_library", LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.delitem(sys.modules, "acap_test_library", raising=False)
    for remembered in (origins._owners, origins._own):
        remembered.cache_clear()
    return Plugin("surprising", "acap-test-surprising", "1.5", MODULE, load_plugin(MODULE))


Ask: TypeAlias = Callable[[str], Awaitable[None]]
"""Makes the plugin raise what one of its functions does."""


@asynccontextmanager
async def worker_of(plugin: Plugin, verbose: bool, number: int = 0) -> AsyncIterator[Worker]:
    worker = Worker(InstalledChip(plugin.brings.backends[number], plugin), verbose=verbose)
    try:
        yield worker
    finally:
        await worker.stop()


@asynccontextmanager
async def probed(plugin: Plugin, folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    async def ask(what: str) -> None:
        (folder / "probe").write_text(what)
        async with worker_of(plugin, verbose) as worker:
            await worker.start()

    yield ask


def model_of(path: Path, content: str = "") -> RemoteModel:
    path.write_text(content)
    return RemoteModel(path.stem, path, {}, 1, CallQueue(1))


@asynccontextmanager
async def loaded(plugin: Plugin, folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    async with worker_of(plugin, verbose) as worker:
        yield lambda what: worker.load(model_of(folder / f"{what}.load"))


@asynccontextmanager
async def run(plugin: Plugin, folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    async with worker_of(plugin, verbose) as worker:

        async def ask(what: str) -> None:
            model = model_of(folder / f"{what}.run")
            await worker.load(model)
            data = Input("data", np.dtype("uint8"), (1,), InlineBytes(b"1"))
            await model.run([data], (), time.monotonic() + 20)

        yield ask


@asynccontextmanager
async def prepared(plugin: Plugin, folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    async with worker_of(plugin, verbose, 1) as worker:

        async def ask(what: str) -> None:
            (folder / "prepare").write_text(what)
            await worker.load(model_of(folder / "conversion.toml", CONVERSION))

        yield ask


async def first_frame(plugin: Plugin, source: str, verbose: bool) -> None:
    camera = InstalledCamera("door", source, plugin.brings.cameras[0], plugin)
    worker = CameraWorker(camera, kept_frames=1, verbose=verbose)
    try:
        capture = await worker.open(SETTINGS)
        await capture.waiter()
    finally:
        await worker.stop()


@asynccontextmanager
async def opened(plugin: Plugin, _folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    yield lambda what: first_frame(plugin, f"surprising:open:{what}", verbose)


@asynccontextmanager
async def read(plugin: Plugin, _folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    yield lambda what: first_frame(plugin, f"surprising:read:{what}", verbose)


@asynccontextmanager
async def got(plugin: Plugin, _folder: Path, verbose: bool) -> AsyncIterator[Ask]:
    store = RemoteStore(InstalledStore(plugin.brings.stores[0], plugin), verbose=verbose)

    async def ask(what: str) -> None:
        await store.get(what)

    try:
        yield ask
    finally:
        await store.close()


PLACES = [probed, loaded, run, prepared, opened, read, got]


async def all_told(place: AbstractAsyncContextManager[Ask], surprises: Iterable[str]) -> dict[str, str]:
    told = {}
    async with place as ask:
        for what in surprises:
            with pytest.raises(acap.AcapError) as caught:
                await ask(what)
            told[what] = str(caught.value)
    return told


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_surprise_is_one_line_with_the_library_and_its_version(
    plugin: Plugin, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: Callable[..., Any]
) -> None:
    told = asyncio.run(all_told(place(plugin, tmp_path, False), SURPRISES))
    log = capfd.readouterr().err
    assert "Traceback" not in log
    for what in SURPRISES:
        assert re.fullmatch(rf"(.*: )?{line_of(what)}", told[what])
        # What a probe raises is the answer to whoever asked for it, and told there.
        assert len(re.findall(rf" ERROR worker .*: {line_of(what)}\n", log)) == (0 if place is probed else 1)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_its_traceback_is_in_the_log_of_who_asks_for_more(
    plugin: Plugin, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: Callable[..., Any]
) -> None:
    asyncio.run(all_told(place(plugin, tmp_path, True), ["library"]))
    log = capfd.readouterr().err
    assert log.count("Traceback") == 1
    assert re.search(r" DEBUG worker .*\nTraceback(.*\n)+.*acap_test_library\.py\", line 3, in fold\n", log)


def test_a_surprise_in_the_front_is_one_line_too(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: bytes, _context: object) -> None:
        getattr(sys.modules[MODULE], request.decode())()

    async def call(what: str) -> grpc.aio.AioRpcError:
        server = grpc.aio.server()
        service = SimpleNamespace(name="acap.Test", methods={"Do": Method(None, answer)})
        server.add_generic_rpc_handlers(handlers([service]))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/acap.Test/Do")(what.encode())
                return caught.value
        finally:
            await server.stop(0)

    caplog.set_level(logging.INFO)
    for what in SURPRISES:
        caplog.clear()
        error = asyncio.run(call(what))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "unexpected error in the server; its log says more"
        (record,) = (each for each in caplog.records if each.name.startswith("acap_runtime"))
        assert record.levelno == logging.ERROR
        assert re.fullmatch(rf"a call failed in the server: {line_of(what)}", record.getMessage())
        assert record.exc_info is None


@pytest.mark.parametrize("verbose", ["", "no", "yes"])
def test_a_surprise_in_a_command_is_one_line_and_exit_code_1(plugin: Plugin, verbose: str) -> None:
    command = [sys.executable, "-c", "import sys, acap_runtime.cli as cli; sys.exit(cli.main())"]
    environment = {**os.environ, "ACAPRUNTIME_VERBOSE": verbose}
    done = subprocess.run(
        [*command, "cameras", "claims:c_function"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.match(rf"acapruntime: error: {line_of('c_function')}\n", done.stderr)
    assert ("Traceback" in done.stderr) == (verbose == "yes")
    assert done.stderr.count("\n") == 1 or verbose == "yes"


class Unspeakable(Exception):
    """A class with a fault of its own."""

    def __str__(self) -> str:
        raise RuntimeError("what am I?")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(), "unexpected RuntimeError"),
        (RuntimeError("boom"), "unexpected RuntimeError: boom"),
        (SystemExit(3), "unexpected SystemExit: 3"),
        (KeyboardInterrupt(), "unexpected KeyboardInterrupt"),
        (Unspeakable(), "unexpected Unspeakable"),
        (RuntimeError("x" * 10_000), f"unexpected RuntimeError: {'x' * 500}…"),
        (RuntimeError(" many\n\n\twords\x1b\x00\u2028 here \udcff"), "unexpected RuntimeError: many words here"),
        (RuntimeError("rtsp://root:pass@host/a?b=c: gone"), "unexpected RuntimeError: rtsp://***@host/a?…"),
        (RuntimeError(f"rtsp://root:{'x' * 600}@host: gone"), "unexpected RuntimeError: rtsp://***@host: gone"),
        (acap.NotReady("no driver here"), "no driver here"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_it_says_is_one_line_of_bounded_length_without_credentials(error: BaseException, said: str) -> None:
    assert acap.unexpected(error) == said
    where = "" if isinstance(error, acap.AcapError) else rf" \({HERE}\)"
    assert re.fullmatch(re.escape(said) + where, acap.unexpected(raised(error)))


def test_its_traceback_shows_no_credentials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = raised(RuntimeError("rtsp://root:pass@host/a?b=secret"))
    acap.log_unexpected(logging.getLogger("test"), "it failed", error)
    one_line, traceback = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(rf"it failed: unexpected RuntimeError: rtsp://\*\*\*@host/a\?… \({HERE}\)", one_line)
    assert traceback.startswith("it failed:\nTraceback")
    assert traceback.endswith("RuntimeError: rtsp://***@host/a?…")


def test_a_damaged_distribution_hides_no_surprise(plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "acap_test_collection-3.1.dist-info" / "METADATA").write_bytes(b"\xff")
    with pytest.raises(KeyError) as caught:
        sys.modules[MODULE].library()
    assert acap.unexpected(caught.value).startswith("unexpected KeyError: 'nothing'")


def test_of_libraries_that_call_each_other_all_are_named(plugin: Plugin, tmp_path: Path) -> None:
    inner = "import json\n\ndef fold():\n    json.loads('{')\n"
    outer = "import acap_test_inner\n\ndef fold():\n    acap_test_inner.fold()\n"
    install(tmp_path, "acap-test-inner", "2", "acap_test_inner", inner)
    install(tmp_path, "acap-test-outer", "0.9", "acap_test_outer", outer)
    with pytest.raises(ValueError, match="Expecting") as caught:
        import_module("acap_test_outer").fold()
    chain = re.escape(f"{JSON}, called by acap-test-inner 2, called by acap-test-outer 0.9, called by ")
    assert re.search(rf" \({chain}{HERE}\)$", acap.unexpected(caught.value))
