"""A stand-in for ``libedgetpu.so.1``, for tests and for trying the plugin without an Edge TPU.

It is a delegate in C (`edgetpu.c`, which describes its behaviour). It takes ``edgetpu-custom-op`` as the real one does,
and computes something simple and repeatable instead of the model. It needs a C compiler:

    python -m acap_runtime_tpu.fake /tmp/libedgetpu.so.1
    ACAPRUNTIME_LIBEDGETPU=/tmp/libedgetpu.so.1 acapruntime -j 4 -m model_edgetpu.tflite
"""

from __future__ import annotations

import subprocess
from pathlib import Path


def build(library: Path, compiler: str = "cc") -> None:
    """Compile the stand-in into a new file `library`. Raises `OSError` if there is no compiler."""
    source = Path(__file__).with_name("edgetpu.c")
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source], check=True)  # noqa: S603 - the words are this module's own
