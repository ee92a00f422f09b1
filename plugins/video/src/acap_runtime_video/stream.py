"""A stream: the newest frame of a source, at the pace and in the form that were asked for."""

from __future__ import annotations

from contextlib import ExitStack

import acap_runtime as acap

from acap_runtime_video.encoder import Encoder
from acap_runtime_video.pace import Ticks
from acap_runtime_video.picture import Converter
from acap_runtime_video.sharing import Borrowed


class VideoStream(acap.Stream):
    """Frames of a decoder that other streams read as well. Closing the stream returns `borrowed`."""

    def __init__(self, borrowed: Borrowed, settings: acap.StreamSettings) -> None:
        with ExitStack() as stack:
            self._encoder = Encoder(settings) if settings.encoded else None
            self._decoder = stack.enter_context(borrowed)
            self._converter = Converter(settings.picture)
            self._captured = self._decoder.newest()
            self._converted = self._converter.convert(self._captured.frame)
            self._given_ns = 0
            self._ticks = Ticks(settings.framerate, self._captured.captured_ns)
            self._resources = stack.pop_all()

    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        self._ticks.wait()
        captured = self._decoder.newest()
        # Times increase from frame to frame. For a repeated picture the increase is as small as possible.
        self._given_ns = max(captured.captured_ns, self._given_ns + 1)
        if captured is not self._captured:
            self._captured, self._converted = captured, self._converter.convert(captured.frame)
        self._converter.write(self._converted, picture)
        if self._encoder is None:
            return acap.Frame(self._given_ns)
        encoded, is_keyframe = self._encoder.encode(self._converted, keyframe=keyframe)
        return acap.Frame(self._given_ns, encoded, is_keyframe)

    def close(self) -> None:
        self._resources.close()
        del self._encoder, self._captured, self._converted
