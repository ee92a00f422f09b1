"""One decoder for all streams of a source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from acap_runtime_video.source import Source

if TYPE_CHECKING:
    from acap_runtime_video.decoder import Decoder

Borrowed: TypeAlias = "AbstractContextManager[Decoder]"

_PATIENCE_S: Final = 1.0
"""The longest time that a source's last stream waits for its decoder to end, since a read may block for ever."""


class SharedDecoders:
    """The decoders at work, by the names of their sources."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoders: dict[str, Decoder] = {}
        self._users: dict[Decoder, int] = {}

    @contextmanager
    def borrowed(self, source: Source) -> Iterator[Decoder]:
        """Yield the source's decoder with a frame ready. It starts for its first user and ends after its last one.

        Raises `NotReady` or `Unavailable` with the reason if there is no frame.
        """
        decoder = self._acquire(source)
        try:
            decoder.newest()
            yield decoder
        finally:
            self._release(decoder)

    def _acquire(self, source: Source) -> Decoder:
        from acap_runtime_video.decoder import Decoder  # noqa: PLC0415  # brings av

        with self._lock:
            decoder = self._decoders.get(source.text)
            if decoder is None or decoder.over:
                decoder = self._decoders[source.text] = Decoder(source, predecessor=decoder)
            self._users[decoder] = self._users.get(decoder, 0) + 1
            return decoder

    def _release(self, decoder: Decoder) -> None:
        with self._lock:
            self._users[decoder] -= 1
            if self._users[decoder]:
                return
            del self._users[decoder]
            decoder.stop()
        if decoder.ended_within(_PATIENCE_S):
            with self._lock:
                if self._decoders.get(decoder.source.text) is decoder:
                    del self._decoders[decoder.source.text]
