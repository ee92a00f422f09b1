"""Draws digits as pictures that a client sends: one colour on another, of any size, seldom exactly centred."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INPUT_SIZE = (32, 32)  # of the model

Colour = tuple[int, int, int]
Size = tuple[int, int]
Shrinking = Literal["smooth", "box", "sparse"]


@dataclass(frozen=True)
class Look:
    """A digit's appearance. Sizes are (width, height) in pixels, the box is (left, top, right, bottom) from 0 to 1."""

    size: Size
    ink: Colour
    background: Colour
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    angle: float = 0.0
    soft: bool = True
    shades: int = 256  # from background to ink; few make a small file


GALLERY = (
    Look((96, 96), ink=(235, 235, 235), background=(24, 24, 24), shades=20),
    Look((128, 96), ink=(40, 40, 48), background=(236, 232, 222), box=(0.12, 0.0, 0.88, 1.0), shades=20),
    Look((96, 128), ink=(255, 214, 120), background=(20, 36, 60), box=(0.0, 0.1, 1.0, 0.9), shades=20),
    Look((160, 120), ink=(30, 60, 140), background=(250, 250, 246), box=(0.15, 0.05, 0.85, 0.95), shades=20),
    Look((120, 96), ink=(190, 190, 190), background=(50, 64, 54), box=(0.1, 0.0, 0.9, 1.0), shades=20),
    Look((96, 96), ink=(120, 40, 36), background=(214, 214, 208), box=(0.05, 0.05, 1.0, 1.0), shades=20),
)


def render(stroke: NDArray[np.float32], look: Look) -> Image.Image:
    width, height = look.size
    left, top, right, bottom = look.box
    drawn = Image.fromarray(np.pad(stroke, 1)).rotate(look.angle, Image.Resampling.BILINEAR)
    box_size = (max(1, round((right - left) * width)), max(1, round((bottom - top) * height)))
    drawn = drawn.resize(box_size, Image.Resampling.BICUBIC if look.soft else Image.Resampling.BILINEAR)
    ink_share = Image.new("F", look.size)
    ink_share.paste(drawn, (round(left * width), round(top * height)))
    shades = np.rint(np.clip(np.asarray(ink_share), 0, 1) * (look.shades - 1))
    mask = Image.fromarray(np.rint(shades * (255 / (look.shades - 1))).astype(np.uint8))
    return Image.composite(Image.new("RGB", look.size, look.ink), Image.new("RGB", look.size, look.background), mask)


def random_look(rng: np.random.Generator) -> Look:
    width = round(np.exp(rng.uniform(np.log(64), np.log(480))))
    height = round(float(np.clip(width / rng.uniform(0.75, 1.6), 64, 320)))
    dark = rng.uniform(0, 110)
    light = rng.uniform(dark + 90, 255)
    colours = [_tinted(brightness, rng) for brightness in (dark, light)]
    if rng.integers(2):
        colours.reverse()
    left, top, right, bottom = rng.uniform(0, 0.16, 4)
    return Look(
        size=(width, height),
        ink=colours[0],
        background=colours[1],
        box=(left, top, 1 - right, 1 - bottom),
        angle=rng.normal(0, 4),
        soft=bool(rng.integers(3)),
    )


def noisy(picture: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture, np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, deviation, pixels.shape), 0, 255).astype(np.uint8))


def chroma_subsampled(picture: Image.Image) -> Image.Image:
    """Halve the resolution of colour, as a 4:2:0 format does."""
    luma, *chroma = picture.convert("YCbCr").split()
    halved = [plane.reduce(2).resize(picture.size, Image.Resampling.NEAREST) for plane in chroma]
    return Image.merge("YCbCr", (luma, *halved)).convert("RGB")


def shrink(picture: Image.Image, how: Shrinking = "smooth", size: Size = INPUT_SIZE) -> Image.Image:
    """Resize as scalers do: 'smooth' is PIL's bilinear, 'box' is an average, 'sparse' uses only four pixels."""
    if how == "smooth":
        return picture.resize(size, Image.Resampling.BILINEAR)
    if how == "box":
        return picture.resize(size, Image.Resampling.BOX)
    steps = picture.width / size[0], picture.height / size[1]
    return picture.transform(size, Image.Transform.AFFINE, (steps[0], 0, 0, 0, steps[1], 0), Image.Resampling.BILINEAR)


def exam(strokes: NDArray[np.float32], *, through_video: bool) -> NDArray[np.uint8]:
    """Draw each digit twice, always the same way, and return the model's inputs, [2n, 32, 32, 3].

    With `through_video`, the picture is halved, its chroma subsampled, and the last scaler is sparse.
    """
    rng = np.random.default_rng(2)
    seen = []
    for stroke in np.repeat(strokes, 2, axis=0):
        picture = render(stroke, random_look(rng))
        if through_video:
            halved = shrink(picture, size=(picture.width // 2, picture.height // 2))
            seen.append(shrink(chroma_subsampled(halved), "sparse"))
        else:
            seen.append(shrink(picture))
    return np.stack([np.asarray(picture) for picture in seen])


def gallery(strokes: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[tuple[str, Image.Image]]:
    """Yield file names and pictures: the first two of each digit, in order, each with a different look."""
    for label in range(10):
        for which, letter in enumerate("ab"):
            stroke = strokes[np.flatnonzero(labels == label)[which]]
            yield f"{label}-{letter}.png", render(stroke, GALLERY[(2 * label + which) % len(GALLERY)])


def _tinted(brightness: float, rng: np.random.Generator) -> Colour:
    red, green, blue = (round(float(np.clip(brightness + tint, 0, 255))) for tint in rng.uniform(-25, 25, 3))
    return red, green, blue
