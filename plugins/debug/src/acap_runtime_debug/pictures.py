"""A camera that shows the pictures of a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import acap_runtime as acap
import numpy as np

from acap_runtime_debug.colour import in_format
from acap_runtime_debug.knobs import PICTURES_KNOBS, read_options
from acap_runtime_debug.pace import Pace
from acap_runtime_debug.pattern import require_raw

_LOG = logging.getLogger(__name__)

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png")
DEFAULT_SECONDS: Final = 1.0


class Pictures(acap.Camera):
    """The PNG, JPEG and BMP pictures of a folder in alphabetical order, again and again, stretched to the stream's
    size.
    """

    name = "pictures"
    sources = "pictures:/FOLDER[,seconds=SECONDS]"

    def probe(self, source: str) -> None:
        folder, _ = _parse(source)
        paths = _pictures_of(folder)
        for path in paths:
            if _load(path, acap.Image("rgb-interleaved", 1, 1)) is not None:
                return
        raise acap.NotReady(f"{folder}: expected a picture that can be read, got {len(paths)} that cannot")

    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        folder, seconds = _parse(source)
        image = require_raw(settings)
        return _PicturesStream(_pictures_of(folder), image, settings.framerate, seconds)


class _PicturesStream(acap.Stream):
    """A stream of pictures. A separate thread prepares the next one, so decoding a large picture delays no frame."""

    def __init__(self, paths: Sequence[Path], image: acap.Image, framerate: int, seconds: float) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # loads a library

        self._paths = paths
        self._image = image
        self._frames_each = framerate * seconds
        self._pace = Pace(framerate)
        self._turn = 0
        self._place = 0
        self._shown = self._next_picture()
        self._thread = ThreadPoolExecutor(1, "pictures")
        self._coming: Future[acap.Array] = self._thread.submit(self._next_picture)

    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        del keyframe  # every raw frame is a keyframe
        number, due_ns = self._pace.wait()
        # A little more, so that rounding does not matter if a picture begins exactly with a frame.
        turn = int(number / self._frames_each + 1e-6)
        if turn > self._turn:
            self._turn = turn
            self._shown = self._coming.result()
            self._coming = self._thread.submit(self._next_picture)
        np.copyto(picture, self._shown)
        return acap.Frame(due_ns)

    def _next_picture(self) -> acap.Array:
        for _ in self._paths:
            path = self._paths[self._place]
            self._place = (self._place + 1) % len(self._paths)
            picture = _load(path, self._image)
            if picture is not None:
                return picture
        raise acap.Unavailable(f"{self._paths[0].parent}: none of {len(self._paths)} pictures can be read any more")

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def _parse(source: str) -> tuple[Path, float]:
    # Options are recognised only at the very end, so that the folder's name may contain commas.
    found = re.fullmatch(r"pictures:(?P<folder>.+?)(?:,(?P<options>seconds=[^,/]*))?", source)
    if not found:
        raise acap.InvalidRequest(f"source {source!r}: expected pictures:/FOLDER or pictures:/FOLDER,seconds=SECONDS")
    options = read_options(found["options"] or "", PICTURES_KNOBS)
    return Path(found["folder"]), options.get("seconds", DEFAULT_SECONDS)


def _pictures_of(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    except (OSError, ValueError) as error:  # a name with a zero byte raises ValueError
        raise acap.NotReady(f"{str(folder)!r}: expected a folder of pictures: {error}") from error
    if not paths:
        raise acap.NotReady(f"{folder}: expected pictures (*{', *'.join(SUFFIXES)}), got none")
    return sorted(paths, key=lambda path: path.name)


def _load(path: Path, image: acap.Image) -> acap.Array | None:
    """Load a picture in the form of `image`. Warns and returns None if it cannot be read."""
    from PIL import Image, ImageOps  # noqa: PLC0415  # loads libraries

    try:
        with Image.open(path) as file:
            pixels = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        _LOG.warning("%s is left out, it cannot be read: %s", path, error)
        return None
    scaled = pixels.resize((image.width, image.height), Image.Resampling.BILINEAR)
    return in_format(np.asarray(scaled), image.format)
