"""Draws detections into pictures. Needs Pillow, which is an extra of this distribution."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from acap_runtime.answers.detections import Detection
from acap_runtime.errors import InvalidRequest

_COLOURS: Final = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_THINNEST: Final = 2
_SMALLEST_TEXT: Final = 12


def draw_detections(picture: Image.Image, target: Path, captioned: Iterable[tuple[Detection, str]]) -> None:
    """Draw a box and a caption for each detection, and write the picture to a file. Raises `InvalidRequest`."""
    pen = ImageDraw.Draw(picture)
    side = min(picture.size)
    font = ImageFont.load_default(max(_SMALLEST_TEXT, side // 32))
    for detection, caption in captioned:
        colour = _COLOURS[detection.number % len(_COLOURS)]
        left, top, right, bottom = detection.box.within(*picture.size)
        if left < right and top < bottom:
            pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(_THINNEST, side // 150))
            pen.rectangle(pen.textbbox((left, top), caption, font), fill=colour)
            pen.text((left, top), caption, "white", font)
    try:
        picture.save(target)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"--draw {target}: expected the name of a picture that can be written: {error}") from None
