"""The worker's side: one process for one plugin's chip, camera or parameter store.

The first message on the control channel names the object that the process serves. Every other message brings a channel
and its purpose: a model, a stream, or questions to a store. Each channel has a thread of its own. A closed control
channel ends the process.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from acap_runtime.contract.unexpected import log_traceback
from acap_runtime.link.malloc import keep_large_buffers
from acap_runtime.link.messages import Channel, pack_error
from acap_runtime.worker.camera import open_camera
from acap_runtime.worker.chip import open_chip
from acap_runtime.worker.store import open_store

_LOG = logging.getLogger(__name__)
_UNLOAD_TIME_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Callable[[Mapping[str, Any], Channel], None]]]] = (
    MappingProxyType({"chip": open_chip, "camera": open_camera, "store": open_store})
)
"""The purposes that a process may have. Each function finds its object, raises if that is not ready, and returns the
function that serves one channel.
"""


def main(control_descriptor: int) -> NoReturn:
    """Serve until the front closes the control channel, then end the process."""
    _prepare_process()
    control = Channel(socket.socket(fileno=control_descriptor))
    received = control.receive()
    if received is None:
        os._exit(0)
    config, _ = received
    _configure_logging(config["name"], config["verbose"])
    try:
        serve = _KINDS[config["kind"]](config)
    except BaseException as error:  # noqa: BLE001 - any error of a plugin is the reason why it is not ready
        log_traceback(_LOG, "it is not ready", error)
        _say(control, {"error": pack_error(error)})
        os._exit(0)
    _say(control, {"ready": True})
    threads: list[threading.Thread] = []
    while (received := control.receive()) is not None:
        message, descriptors = received
        channel = Channel(socket.socket(fileno=descriptors[0]))
        thread = threading.Thread(target=serve, args=(message, channel), daemon=True)
        thread.start()
        threads = [*(each for each in threads if each.is_alive()), thread]
    _leave(threads)


def _say(control: Channel, word: Mapping[str, Any]) -> None:
    try:
        control.send(word)
    except OSError:
        os._exit(0)  # the front stopped before it received this


def _prepare_process() -> None:
    # The worker must die with its front, even if a driver hangs with the interpreter's lock held and reads no channel.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The front handles Ctrl-C and the signals that a service manager sends to the whole service.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    keep_large_buffers()


def _configure_logging(name: str, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format=f"%(asctime)s %(levelname)s worker {name}: %(message)s",
        stream=sys.stderr,
    )


def _leave(threads: list[threading.Thread]) -> NoReturn:
    # The front has also closed every other channel. A model that does not close in time ends with the process.
    end = time.monotonic() + _UNLOAD_TIME_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    os._exit(0)
