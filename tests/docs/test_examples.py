"""The example clients, as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits" / "digits.tflite"
PICTURES = EXAMPLES / "digits" / "pictures"
MOBILENET = "mobilenet_v2_1.0_224_quant.tflite"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_python(stubs: SimpleNamespace) -> Run:
    return _runner([sys.executable, EXAMPLES / "python" / "predict.py"], {"PYTHONPATH": str(stubs.path)})


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    target = tmp_path_factory.mktemp("node_example")
    shutil.copytree(EXAMPLES / "protos", target / "protos")
    shutil.copytree(EXAMPLES / "node", target / "node", ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=target / "node", check=True)
    return target / "node" / "predict.js"


@pytest.fixture
def run_node(node_client: Path) -> Run:
    return _runner(["node", node_client], {})


@pytest.fixture(params=["run_python", "run_node"])
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.getfixturevalue(request.param)
    return runner


def _runner(command: list[str | Path], environment: dict[str, str]) -> Run:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [*command, *(str(argument) for argument in arguments)]
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
        )

    return run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


def _lines(outcome: subprocess.CompletedProcess[str]) -> list[str]:
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()


def _printed(outcome: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [line.split(maxsplit=2) for line in _lines(outcome)]


@pytest.fixture(scope="module")
def server(start_shared_server) -> Any:
    """A server that can read digits, for clients that ask no more of it."""
    return start_shared_server("-j", "2", "-m", f"digits={DIGITS}")


@pytest.mark.parametrize("picture", ["7-a", "0-b"])
def test_a_digit_is_recognised(run: Run, server, picture: str) -> None:
    lines = _printed(run("digits", PICTURES / f"{picture}.png", "--address", server.address, "--top", 3))
    assert len(lines) == 3
    assert lines[0][0] == picture[0]
    assert int(lines[0][1]) > 128
    assert int(lines[1][1]) <= int(lines[0][1])


@pytest.mark.parametrize("kind", ["BMP", "JPEG"])
def test_a_picture_may_be_in_any_of_three_formats(run: Run, server, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    picture = tmp_path / f"picture.{kind.lower()}"
    with Image.open(PICTURES / "4-b.png") as png:
        png.save(picture, kind)
    assert _printed(run(DIGITS, picture, "--address", server.address, "--top", 1))[0][0] == "4"


def test_a_model_named_by_its_file_recognises_a_uniform(run: Run, server, models: Path) -> None:
    picture, labels = models / "grace_hopper_300x300.bmp", models / "imagenet_labels.txt"
    outcome = run(models / MOBILENET, picture, "--address", server.address, "--labels", labels)
    lines = _printed(outcome)
    assert len(lines) == 5
    assert lines[0][0] == "653"
    assert 200 <= int(lines[0][1]) <= 242
    assert lines[0][2] == "military uniform"


@pytest.mark.parametrize("over", ["shared memory", "TLS on the unix socket", "TCP", "TLS on TCP"])
def test_a_python_client_recognises_a_uniform_over(
    run_python: Run, start_server, models: Path, certificate: tuple[Path, Path], free_port: int, over: str
) -> None:
    chain, key = certificate
    for_server: list[object] = ["-j", "2", "-m", f"mobilenet={models / MOBILENET}"]
    for_client: list[object] = []
    if "TCP" in over:
        for_server += ["-p", free_port, "-a", "127.0.0.1"]
    if "TLS" in over:
        for_server += ["-c", chain, "-k", key]
        for_client += ["--root-certificate", chain]
    if over == "shared memory":
        for_client += ["--shared-memory"]
    server = start_server(*for_server)
    picture = models / "grace_hopper_300x300.bmp"
    outcome = run_python("mobilenet", picture, "--address", server.address, "--top", 1, *for_client)
    assert _printed(outcome)[0][0] == "653"
    assert not list(Path("/dev/shm").glob("acap-example-*"))


@pytest.mark.parametrize("over", ["unix socket", "TCP"])
def test_both_clients_speak_tls(
    run: Run, start_server, certificate: tuple[Path, Path], free_port: int, over: str
) -> None:
    chain, key = certificate
    tcp = ["-p", free_port, "-a", "127.0.0.1"] if over == "TCP" else []
    server = start_server("-j", "2", "-m", f"digits={DIGITS}", "-c", chain, "-k", key, *tcp)
    outcome = run("digits", PICTURES / "7-a.png", "--address", server.address, "--root-certificate", chain)
    assert _printed(outcome)[0][0] == "7"


def test_a_python_client_shows_its_own_certificate(
    run_python: Run, start_server, certificate: tuple[Path, Path]
) -> None:
    chain, key = certificate
    server = start_server("-j", "2", "-m", f"digits={DIGITS}", "-c", chain, "-k", key, "--client-ca", chain)
    common = ["digits", PICTURES / "7-a.png", "--address", server.address, "--root-certificate", chain]
    assert _printed(run_python(*common, "--certificate", chain, "--key", key))[0][0] == "7"
    refused = run_python(*common, "--timeout", 2)
    assert refused.returncode == 1
    assert "nothing answers at" in refused.stderr
    assert "with TLS" in refused.stderr


def test_an_error_is_shown_with_its_status(run: Run, server) -> None:
    outcome = run("figures", PICTURES / "7-a.png", "--address", server.address)
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("NOT_FOUND: ")
    assert "figures" in outcome.stderr
    assert "digits" in outcome.stderr


def test_a_shared_memory_object_goes_whatever_the_answer(run_python: Run, server) -> None:
    outcome = run_python("figures", PICTURES / "7-a.png", "--address", server.address, "--shared-memory")
    assert outcome.returncode == 1
    assert not list(Path("/dev/shm").glob("acap-example-*"))


def test_what_is_no_picture_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    for name, content in (("missing.png", None), ("text.png", b"not a picture")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        outcome = run("digits", tmp_path / name, "--address", f"unix://{tmp_path}/none.sock")
        assert outcome.returncode == 1
        assert len(outcome.stderr.splitlines()) == 1


def test_without_a_server_the_clients_wait_for_the_time_given(run: Run, tmp_path: Path) -> None:
    outcome = run("digits", PICTURES / "7-a.png", "--address", f"unix://{tmp_path}/none.sock", "--timeout", 1)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(f"nothing answers at unix://{tmp_path}/none.sock without TLS")


@pytest.fixture
def example(stubs: SimpleNamespace) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of the Python examples; only one that has stubs of its own is told where they are."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": str(stubs.path)} if name == "grab_frames" else {}
        return _runner([sys.executable, EXAMPLES / "python" / f"{name}.py"], own)(*arguments)

    return run


def test_frames_are_grabbed_with_nothing_of_ours(example: Run, start_server) -> None:
    server = start_server("--camera", "test-pattern")
    lines = [line.split() for line in _lines(example("grab_frames", server.address))]
    assert len(lines) == 10
    assert {tuple(line[1:4]) for line in lines} == {("yuv", "75264", "bytes")}
    times = [int(line[4]) for line in lines]
    assert 0.8 < (times[-1] - times[0]) / 900_000 < 2
    server.wait_for_log("was deleted")


def test_a_stream_is_watched_and_its_frames_kept(example: Run, start_server, tmp_path: Path) -> None:
    from PIL import Image

    server = start_server("-j", "2", "-m", f"digits={DIGITS}", "--camera", f"pictures:{PICTURES},seconds=0.4")
    labels = tmp_path / "labels.txt"
    labels.write_text("nought\none\n")
    options = ["--size", "160x120", "--frames", "6", "--labels", labels, "--save", tmp_path / "frames"]
    outcome = example("watch_stream", "digits", "--address", server.address, *options)
    lines = [line.split() for line in _lines(outcome)]
    assert len(lines) == 6
    assert {(line[1], line[3]) for line in lines} <= {("0", "nought"), ("1", "one")}
    names = {f"{int(reference):06}-{number}.png" for reference, number, *_ in lines}
    assert {path.name for path in (tmp_path / "frames").iterdir()} == names
    with Image.open(tmp_path / "frames" / min(names)) as picture:
        assert picture.size == (160, 120)


def test_parameters_are_printed(example: Run, start_server) -> None:
    server = start_server("--parameters", "debug")
    keys = ("root.Brand.Brand", "root.Nothing")
    assert _lines(example("parameters", *keys, "--address", server.address)) == [
        "root.Brand.Brand=debug",
        "root.Nothing=",
    ]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["grab_frames"], "FAILED_PRECONDITION: this server has no camera"),
        (["watch_stream", "digits", "--address"], "NewStream, FAILED_PRECONDITION: this server has no camera"),
        (
            ["parameters", "root.Brand.Brand", "--address"],
            "GetValues, FAILED_PRECONDITION: this server has no parameter",
        ),
    ],
)
def test_an_example_says_in_a_line_what_is_missing(
    example: Run, start_server, command: list[str], complaint: str
) -> None:
    outcome = example(*command, start_server("--block", "axis_os").address)
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr.startswith(complaint)
    assert len(outcome.stderr.splitlines()) == 1
