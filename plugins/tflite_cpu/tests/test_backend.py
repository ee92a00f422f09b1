import os
import re
import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tflite_cpu import TfliteCpuBackend
from acap_runtime_tflite_cpu.model_file import LARGEST_FILE
from acap_runtime_tflite_cpu.runtime import remedy
from packaging.requirements import Requirement

A_FILE_CUT_SHORT = """
import sys
from pathlib import Path
import acap_runtime as acap
from acap_runtime_tflite_cpu import TfliteCpuBackend

whole, bad = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for step in range(8, 256):
    bad.write_bytes(whole[: len(whole) * step // 256])
    try:
        TfliteCpuBackend().load(bad, {}).close()
    except acap.InvalidRequest:
        pass
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(content: bytes | Path, **options: str) -> acap.Model:
        path = content if isinstance(content, Path) else tmp_path / "model.tflite"
        if isinstance(content, bytes):
            path.write_bytes(content)
        return TfliteCpuBackend().load(path, options)

    return write_and_load


@pytest.mark.parametrize(
    "content",
    [b"", b"TFL3", b"\x1c\0\0\0TFL", b"\x1c\0\0\0TFL2" + bytes(100), b"inputs = []\n", b"\x7fELF" + bytes(99)],
)
def test_a_file_of_another_kind_is_refused_before_native_code_sees_it(load, content):
    with pytest.raises(acap.InvalidRequest, match="TFL3 at offset 4"):
        load(content)


def test_what_is_no_file_is_refused(load, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(acap.InvalidRequest, match=re.escape(f"{path}: expected a model file")):
            load(path)


def test_a_file_larger_than_a_flatbuffer_can_be_is_refused(load, tmp_path):
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(acap.InvalidRequest, match="less than 2 GiB, got 2147483648 bytes"):
        load(path)


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="tflite-runtime does not verify a file")
def test_a_file_cut_short_anywhere_does_not_end_the_process(models, tmp_path):
    whole = models / "mobilenet_v1_0.25_128_quant.tflite"
    command = [sys.executable, "-c", A_FILE_CUT_SHORT, whole, tmp_path / "bad.tflite"]
    subprocess.run(command, check=True, capture_output=True)


def test_a_model_for_the_edge_tpu_says_which_chip_it_is_for(models, load):
    with pytest.raises(acap.InvalidRequest, match="compiled for the Edge TPU, chip 4"):
        load(models / "mobilenet_v2_1.0_224_quant_edgetpu.tflite")


def test_an_operator_that_the_runtime_lacks_is_named(models, load):
    with pytest.raises(acap.InvalidRequest, match="unresolved custom op: fake-op-double"):
        load(models / "model_invoking_error.tflite")


@pytest.mark.parametrize("threads", ["1", "2", "64"])
def test_threads_are_from_1_to_64(build_model, tensor, load, threads):
    path = build_model("NEG", [tensor("x", "FLOAT32", (2,))], [tensor("y", "FLOAT32", (2,))])
    model = load(path, threads=threads)
    assert model.run({"x": np.ones(2, np.float32)})["y"].tolist() == [-1, -1]
    model.close()


@pytest.mark.parametrize("threads", ["", "0", "65", "-1", "1.0", " 1", "1_0", "two", "٣", "9" * 5000])
def test_other_numbers_of_threads_are_refused(load, threads):
    with pytest.raises(acap.InvalidRequest, match="threads: expected a number from 1 to 64, got"):
        load(b"", threads=threads)


def test_no_runtime_means_not_ready_and_what_to_install(monkeypatch):
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, f"{package}.interpreter", None)
    with pytest.raises(acap.NotReady, match=r"no TensorFlow Lite runtime here .*ai_edge_litert.*: pip install"):
        TfliteCpuBackend().probe()


def test_a_runtime_that_does_not_go_with_another_library_is_told_with_that_ones_version(tmp_path, monkeypatch):
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").touch()
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text("from numpy import nosuch\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    code = "from acap_runtime_tflite_cpu import TfliteCpuBackend as Backend\nBackend().probe()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = rf"unexpected ImportError: .*'nosuch' from 'numpy'.* \(numpy {re.escape(np.__version__)}, called by"
    assert re.search(rf"no TensorFlow Lite runtime here \(ai_edge_litert: {said}", done.stderr), done.stderr


def test_every_machine_gets_the_runtime_that_has_a_wheel_for_it():
    requirements = [Requirement(text) for text in requires("acap-runtime-tflite-cpu")]

    def runtimes(machine: str, python: str) -> list[str]:
        environment = {"platform_machine": machine, "python_version": python, "extra": ""}
        wanted = [each for each in requirements if each.marker and each.marker.evaluate(environment)]
        return sorted(str(each).partition(";")[0].strip() for each in wanted)

    assert runtimes("x86_64", "3.11") == runtimes("aarch64", "3.14") == ["ai-edge-litert>=2.1"]
    assert runtimes("armv7l", "3.11") == ["numpy<2", "tflite-runtime==2.14.0"]
    assert runtimes("armv7l", "3.12") == ["numpy<2"]


@pytest.mark.parametrize(
    ("machine", "python", "said"),
    [
        ("x86_64", (3, 14), "pip install 'ai-edge-litert>=2.1'"),
        ("armv7l", (3, 11), "pip install tflite-runtime==2.14.0 'numpy<2'"),
        (
            "armv7l",
            (3, 13),
            "wheels end at Python 3.11, and this is 3.13; run it with Python 3.11",
        ),
    ],
)
def test_who_has_no_runtime_is_told_what_to_do(machine: str, python: tuple[int, int], said: str) -> None:
    assert said in remedy(machine, python)
