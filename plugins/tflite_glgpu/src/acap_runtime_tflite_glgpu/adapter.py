"""Finds the GPU that LiteRT uses, or the reason why it finds none.

LiteRT reports both only on stderr, and a driver can crash its process. The trial therefore runs in another process.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from typing import Final

import acap_runtime as acap

SOFTWARE_VARIABLE: Final = "ACAPRUNTIME_ALLOW_SOFTWARE_GPU"
"""``yes`` allows a driver that computes on the CPU, such as SwiftShader, for tests."""

_LOG = logging.getLogger(__name__)
_TRIAL_TIME_S: Final = 15.0
_REMEDY: Final = (
    "install the GPU's Vulkan driver and the loader (on Debian and Ubuntu: libvulkan1, and mesa-vulkan-drivers or the "
    "vendor's), and let this user open /dev/dri/renderD*; without a GPU, -j 2 (cpu-tflite)"
)


def find_adapter() -> None:
    """Run something small on the GPU. Raises `NotReady` with the reason if that fails."""
    command = [sys.executable, "-P", "-m", "acap_runtime_tflite_glgpu.trial"]
    try:
        done = subprocess.run(  # noqa: S603 - the words are this module's own
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TRIAL_TIME_S
        )
    except subprocess.TimeoutExpired:
        raise acap.NotReady(f"the GPU did not answer within {_TRIAL_TIME_S:g} s") from None
    said = done.stderr
    if done.returncode < 0:
        number = -done.returncode
        raise acap.NotReady(
            f"{_adapter(said) or 'the GPU driver'} crashes ({_signal_name(number)}) when it is tried: {_REMEDY}"
        )
    if "No adapters found" in said:
        warnings = [" ".join(line.split()) for line in re.findall(r"^Warning: (.*)$", said, re.MULTILINE)]
        raise acap.NotReady(f"no GPU found{''.join(f'; {warning}' for warning in warnings)}: {_REMEDY}")
    if done.returncode:
        raise acap.NotReady(f"a trial of the GPU failed: {(said.strip().splitlines() or ['no reason given'])[-1]}")
    adapter = _adapter(said)
    if _is_software(said) and os.environ.get(SOFTWARE_VARIABLE) != "yes":
        raise acap.NotReady(
            f"no GPU found, only {adapter}, which computes on the CPU, slower than cpu-tflite does: {_REMEDY}; "
            f"{SOFTWARE_VARIABLE}=yes takes it nevertheless"
        )
    _LOG.info("GPU: %s", adapter or "LiteRT does not say which")


def _adapter(said: str) -> str | None:
    found = re.search(r"Selected adapter: ([^,\n]+)", said)
    return found and found[1]


def _is_software(said: str) -> bool:
    return re.search(r"Selected adapter: .*adapterType=CPU", said) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
