"""Faulty functions of libyuv are found before they are used. They are built here, around the libyuv of this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeAlias

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_libyuv import LibyuvBackend
from acap_runtime_libyuv.conversion import MOVES
from acap_runtime_libyuv.faults import find_faults
from acap_runtime_libyuv.library import library_file, open_library
from acap_runtime_libyuv.trials import trials

Build: TypeAlias = Callable[..., Path]

HEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
"""
SPLIT = """
void SplitRGBPlane(const uint8_t *rgb, int stride, uint8_t *r, int stride_r, uint8_t *g, int stride_g,
                   uint8_t *b, int stride_b, int width, int height) {
    if (width % 8)
        abort();
    REAL(SplitRGBPlane)(rgb, stride, r, stride_r, g, stride_g, b, stride_b, width, height);
}
"""
MERGE = """
void MergeRGBPlane(const uint8_t *r, int stride_r, const uint8_t *g, int stride_g, const uint8_t *b, int stride_b,
                   uint8_t *rgb, int stride, int width, int height) {
    REAL(MergeRGBPlane)(r, stride_r, g, stride_g, b, stride_b, rgb, stride, width, height);
    rgb[stride * height] = 0;
}
"""
TO_RAW = """
int ARGBToRAW(const uint8_t *argb, int stride_argb, uint8_t *raw, int stride, int width, int height) {
    if (width > 32)
        *(volatile char *)8 = 0;
    return REAL(ARGBToRAW)(argb, stride_argb, raw, stride, width, height);
}
"""
NV12_TO_I420 = """
int NV12ToI420(const uint8_t *y, int stride_y, const uint8_t *uv, int stride_uv, uint8_t *to_y, int stride_to_y,
               uint8_t *u, int stride_u, uint8_t *v, int stride_v, int width, int height) {
    return REAL(NV12ToI420)(y, stride_y, uv, stride_uv, to_y, stride_to_y, v, stride_v, u, stride_u, width, height);
}
"""
NV12_TO_RAW = """
int NV12ToRAW(const uint8_t *y, int stride_y, const uint8_t *uv, int stride_uv, uint8_t *raw, int stride,
              int width, int height) {
    int failed = REAL(NV12ToRAW)(y, stride_y, uv, stride_uv, raw, stride, width, height);
    raw[stride * height - 1] ^= 64;
    return failed;
}
"""
SCALE = "void ARGBScale(void) { exit(0); }"

# In a process of its own: the linker finds a libyuv again that this one has opened.
CONVERT = """
import logging, runpy, sys
import acap_runtime as acap
from acap_runtime_libyuv import LibyuvBackend

logging.basicConfig(format="%(message)s")
try:
    LibyuvBackend().probe()
except acap.NotReady as reason:
    sys.exit(f"not ready: {reason}")
print(runpy.run_path(sys.argv[1])["digest_of_conversions"]())
"""


def digest_of_conversions() -> str:
    digest = hashlib.sha256()
    sizes = ((36, 22), (36, 22)), ((36, 22), (26, 30)), ((33, 21), (33, 21)), ((33, 21), (25, 31))
    pairs = product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS)
    for (came, wanted), (source, target), chroma in product(pairs, sizes, ("larod", "full")):
        if "nv12" in (came, wanted) and source[0] % 2:
            continue
        conversion = acap.Conversion(acap.Image(came, *source), acap.Image(wanted, *target))
        picture = np.random.default_rng(0).integers(0, 256, conversion.input.shape, np.uint8)
        digest.update(LibyuvBackend(chroma).prepare(conversion).run({"input": picture})["output"].tobytes())
    return digest.hexdigest()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Make a libyuv 0.0.4242 that is the real one, but for functions written in C, and without the one it `lacks`."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build a faulty libyuv with")

    def make(code: str, lacks: str = "nothing") -> Path:
        # The real one gets another name, by which it can be the other's dependency.
        real = library_file().read_bytes().replace(b"libyuv.so.0\0", b"libyuv.so.1\0")
        (tmp_path / "libyuv.so.1").write_bytes(real.replace(f"\0{lacks}\0".encode(), f"\0{lacks[:-1]}_\0".encode()))
        library = tmp_path / "libyuv.so.0.0.4242"
        command = ["cc", "-shared", "-fPIC", "-Wl,--no-as-needed", "-Wl,-soname,libyuv.so.0", f"-Wl,-rpath,{tmp_path}"]
        sources = ["-x", "c", "-", "-x", "none", str(tmp_path / "libyuv.so.1")]
        subprocess.run([*command, *sources, "-o", str(library)], input=HEAD + code, text=True, check=True)
        (tmp_path / "libyuv.so.0").symlink_to(library.name)
        return library

    return make


def convert_with(library: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    command = [sys.executable, "-P", "-c", CONVERT, __file__]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_every_function_that_is_used_is_tried() -> None:
    assert {trial.function for trial in trials()} == set(dir(open_library()))


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (SPLIT, "SplitRGBPlane kills its process with SIGABRT at 1x3 pixels"),
        (TO_RAW, "ARGBToRAW kills its process with SIGSEGV at 33x3 pixels"),
        (SCALE, "ARGBScale ends its process at 7x8 to 3x4 pixels"),
        (MERGE, "MergeRGBPlane writes outside of its target at 1x3 pixels"),
        (NV12_TO_I420, "NV12ToI420 is off by [0-9]+ of 255 at 2x4 pixels, where 0 are allowed"),
        (NV12_TO_RAW, "NV12ToRAW is off by [0-9]+ of 255 at 2x4 pixels, where 8 are allowed"),
    ],
)
def test_a_faulty_function_is_found_and_the_others_are_not_blamed(build: Build, code: str, fault: str) -> None:
    function, _, words = fault.partition(" ")
    found, own = find_faults(build(code)), find_faults(library_file())
    assert found.keys() == {function, *own}
    assert re.fullmatch(words, found[function]), found


def test_functions_that_only_move_bytes_are_gone_around_and_named_once(build: Build) -> None:
    library = build("".join(f"void {function}(void) {{ abort(); }}" for function in MOVES))
    done = convert_with(library)
    assert done.stdout.strip() == digest_of_conversions(), done.stderr
    lines = done.stderr.splitlines()
    start, end = f"libyuv 0.0.4242, {library}: ", "; numpy does its work"
    assert sorted(line.removeprefix(start).partition(" ")[0] for line in lines) == sorted(MOVES)
    assert all(line.startswith(start) and line.endswith(end) for line in lines), done.stderr


def test_a_function_that_fails_at_some_widths_is_gone_around(build: Build) -> None:
    done = convert_with(build(SPLIT + MERGE))
    assert done.stdout.strip() == digest_of_conversions(), done.stderr
    assert [line.split()[3] for line in done.stderr.splitlines()] == ["SplitRGBPlane", "MergeRGBPlane"]


def test_without_a_way_around_the_chip_is_not_ready_and_names_the_version(build: Build) -> None:
    library = build(NV12_TO_RAW)
    reason = convert_with(library).stderr.strip()
    assert reason.startswith(f"not ready: libyuv 0.0.4242, {library}: NV12ToRAW is off by "), reason
    assert reason.endswith(" of 255 at 2x4 pixels, where 8 are allowed; install another version of libyuv"), reason


def test_a_function_that_is_missing_is_named(build: Build) -> None:
    done = convert_with(build("", lacks="SplitRGBPlane"))
    assert "not ready: libyuv.so.0 lacks SplitRGBPlane; install" in done.stderr


def test_a_library_that_cannot_be_tried_says_why(tmp_path: Path) -> None:
    with pytest.raises(acap.NotReady, match=r"none\.so cannot be tried: OSError: .*cannot open shared object file"):
        find_faults(tmp_path / "none.so")
