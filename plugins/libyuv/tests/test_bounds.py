"""Reading one byte past an input kills the process where the shared memory ends there: the tests put it there."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from math import prod

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_libyuv import LibyuvBackend
from acap_runtime_libyuv.chroma import Chroma

PAGE = mmap.PAGESIZE


def between_closed_pages(nbytes: int, *, at_end: bool) -> acap.Array:
    pages = -(-nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for closed in (start, start + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(closed), ctypes.c_size_t(PAGE), 0) == 0
    offset = (pages + 1) * PAGE - nbytes if at_end else PAGE
    return np.frombuffer(memory, np.uint8, nbytes, offset)


def convert_at_the_edge(chroma: Chroma) -> None:
    generator = np.random.default_rng(0)
    backend = LibyuvBackend(chroma)
    for _ in range(400):
        came, wanted = (acap.IMAGE_FORMATS[index] for index in generator.integers(0, 3, 2))
        sizes = generator.integers(1, generator.choice([8, 100, 300]), 4)
        if "nv12" in (came, wanted):
            sizes += sizes % 2
        width, height, new_width, new_height = sizes.tolist()
        conversion = acap.Conversion(acap.Image(came, width, height), acap.Image(wanted, new_width, new_height))
        picture = between_closed_pages(prod(conversion.input.shape), at_end=bool(generator.integers(2)))
        sys.stdout.write(f"{conversion}\n")
        sys.stdout.flush()
        backend.prepare(conversion).run({"input": picture.reshape(conversion.input.shape)})


@pytest.mark.parametrize("chroma", ["larod", "full"])
def test_an_input_is_read_to_its_last_byte_and_no_further(chroma: Chroma) -> None:
    command = [sys.executable, __file__, chroma]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"died with {done.returncode} at {done.stdout.splitlines()[-1:]}: {done.stderr}"


if __name__ == "__main__":
    convert_at_the_edge("full" if sys.argv[1] == "full" else "larod")
