"""Fakes of the device's libraries, in C, for tests on machines that are not Axis devices.

They have the functions that this plugin calls, made from the published headers alone. They prove that the plugin keeps
to those headers, and do not show how a device behaves. They do themselves what GLib does for the real libraries.

`FAKE_VDO` and `FAKE_AXPARAMETER` in the environment make them misbehave. The comments at the top of ``vdostream.c`` and
``axparameter.c`` list the accepted values.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from acap_runtime_axis_os.declarations import AXPARAMETER, VDO

_SOURCES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"libvdostream.so.1": ("vdostream.c", VDO), "libaxparameter.so.1": ("axparameter.c", AXPARAMETER)}
)


def build_fakes(folder: Path, compiler: str = "gcc") -> dict[str, str]:
    """Compile the fakes into `folder`, and return the environment in which the plugin uses them.

    They are compiled against this plugin's own declarations: a function that differs from them is an error.
    Raises `RuntimeError` with the compiler's message if compilation fails.
    """
    for library, (source, declarations) in _SOURCES.items():
        header = folder / f"{library}.h"
        header.write_text(f"#include <stddef.h>\n#include <stdint.h>\n{declarations}")
        command = [
            *(compiler, "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            # The process may have a real GLib. The fakes use their own.
            *("-Wl,-Bsymbolic", f"-Wl,-soname,{library}"),
            *("-include", str(header), "-o", str(folder / library), str(Path(__file__).with_name(source)), "-lpthread"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # a compiler
        except FileNotFoundError:
            raise RuntimeError(f"{compiler} is missing; install it, on Debian and Ubuntu: apt install gcc") from None
        if done.returncode:
            raise RuntimeError(f"{source} cannot be compiled:\n{done.stderr}")
    return {"ACAPRUNTIME_AXIS_OS_LIBRARIES": str(folder)}
