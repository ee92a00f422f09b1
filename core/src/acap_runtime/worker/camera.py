"""A camera in the worker: a thread for each capture writes frames into the capture's ring."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from acap_runtime.contract.backend import Array
from acap_runtime.contract.camera import Camera, Frame, Stream, StreamSettings
from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.errors import AcapError, DeviceError, NotReady
from acap_runtime.link.messages import Channel, pack_error, unpack_settings
from acap_runtime.link.ring import RingLayout, picture_array
from acap_runtime.link.segment import Segment
from acap_runtime.plugins.installed import load_plugin

_LOG = logging.getLogger(__name__)


def open_camera(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Channel], None]:
    """Find the camera, and probe it if requested. Returns the function that serves a capture. Raises any error that the
    plugin raises.
    """
    for camera in load_plugin(config["address"]).cameras:
        if camera.name == config["name"]:
            if config["probe"]:
                camera.probe(config["source"])
            return partial(_serve_capture, camera, config["source"])
    raise NotReady(f"plugin {config['address']} no longer brings camera {config['name']}")


def _serve_capture(camera: Camera, source: str, message: Mapping[str, Any], channel: Channel) -> None:
    settings = unpack_settings(message["settings"])
    stream = None
    try:
        stream = _checked_stream(camera.open(source, settings))
        _Capture(stream, RingLayout(settings, message["slots"]), channel).run()
    except ConnectionError as error:
        _LOG.debug("nobody wants %s any more: %s", settings, error)
    except BaseException as error:  # noqa: BLE001 - the front is told, whatever a plugin raises
        if not isinstance(error, AcapError):
            log_unexpected(_LOG, "a stream failed", error)
        with contextlib.suppress(OSError):
            channel.send({"error": pack_error(error)})
        channel.hang_up()
    if stream is not None:
        _close(stream)
    channel.close()


class _Capture:
    """A stream of the camera and the ring that it fills."""

    def __init__(self, stream: Stream, layout: RingLayout, channel: Channel) -> None:
        self._stream = stream
        self._layout = layout
        self._channel = channel
        self._free = set(range(layout.slots))
        self._number = 0
        self._keyframe_wanted = True
        self._scratch: Array | None = None

    def run(self) -> None:
        """Capture until the front closes the channel. Raises any error that the stream raises."""
        segment = Segment.create(self._layout.nbytes)
        try:
            self._channel.send({"opened": True}, segment.descriptor)
        finally:
            segment.close_descriptor()
        self._channel.set_nonblocking()
        while self._hear():
            # The lowest slot: slots that were never written take no memory.
            slot = min(self._free, default=None)
            target = self._spare() if slot is None else picture_array(self._layout, segment.view, slot)
            frame = _checked_frame(self._stream.read(target, keyframe=self._keyframe_wanted), self._layout)
            self._number += 1
            self._keyframe_wanted = not (self._miss() if slot is None else self._show(frame, slot, segment))

    def _hear(self) -> bool:
        """Read the front's messages. Returns False once the front has closed the channel."""
        while True:
            try:
                received = self._channel.receive()
            except BlockingIOError:
                return True
            if received is None:
                return False
            message, _ = received
            self._free.update(message.get("free", ()))
            self._keyframe_wanted |= message.get("keyframe", False)

    def _show(self, frame: Frame, slot: int, segment: Segment) -> bool:
        """Pass a frame to the front. Returns False if the front takes no more messages at the moment."""
        offset = self._layout.encoded_offset(slot)
        segment.view[offset : offset + len(frame.encoded)] = frame.encoded
        message = {
            "frame": [self._number, slot, len(frame.encoded), frame.keyframe, frame.has_picture],
            "times": [frame.captured_ns, time.monotonic_ns()],
        }
        try:
            self._channel.send(message)
        except BlockingIOError:
            return False
        self._free.discard(slot)
        return True

    def _miss(self) -> bool:
        """Tell the front that the camera works, although there is no slot for its frame."""
        with contextlib.suppress(BlockingIOError):
            self._channel.send({"missed": self._number})
        return False

    def _spare(self) -> Array:
        # Every slot is in use: the frame is lost, and the camera continues.
        if self._scratch is None:
            self._scratch = np.empty(self._layout.settings.picture.shape[1:], np.uint8)
        return self._scratch


def _checked_stream(stream: object) -> Stream:
    if not isinstance(stream, Stream):
        raise DeviceError(f"the plugin's open returned {stream!r}; expected a Stream")
    return stream


def _checked_frame(frame: object, layout: RingLayout) -> Frame:
    settings: StreamSettings = layout.settings
    if not isinstance(frame, Frame):
        raise DeviceError(f"the plugin's read returned {type(frame).__name__}; expected a Frame")
    if bool(frame.encoded) != settings.encoded:
        raise DeviceError(
            f"the plugin's frame of {settings} has {len(frame.encoded)} encoded bytes; "
            f"expected {'some' if settings.encoded else 'none, the picture is the frame'}"
        )
    if len(frame.encoded) > layout.encoded_nbytes:
        raise DeviceError(
            f"the plugin's frame of {settings} has {len(frame.encoded)} encoded bytes; "
            f"expected at most {layout.encoded_nbytes}"
        )
    return frame


def _close(stream: Stream) -> None:
    try:
        stream.close()
    except BaseException as error:  # noqa: BLE001 - nobody waits for it, and other streams continue
        log_unexpected(_LOG, "a stream could not be closed", error)
