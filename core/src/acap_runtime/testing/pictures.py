"""Pictures to convert."""

from __future__ import annotations

import numpy as np

import acap_runtime as acap
from acap_runtime.testing.reference import Reference


def waves(image: acap.Image, period: float) -> acap.Array:
    """Draw waves of colour, `period` pixels long: red along x, green along y, blue across.

    The picture is smooth, so every good scaler gives nearly the same result. No two places or colours can be confused.
    """
    turn = 2 * np.pi / period
    x, y = np.meshgrid(turn * np.arange(image.width), turn * np.arange(image.height))
    return _picture(128 + 90 * np.stack([np.sin(x), np.cos(y), np.sin((x + y) / 2)], axis=-1), image)


def flat(image: acap.Image, colour: tuple[int, int, int]) -> acap.Array:
    """Fill a picture with one colour, R, G, B."""
    return _picture(np.broadcast_to(np.array(colour), (image.height, image.width, 3)), image)


def noise(image: acap.Image) -> acap.Array:
    """Give every pixel its own colour."""
    generator = np.random.default_rng(0)
    return _picture(generator.integers(0, 256, (image.height, image.width, 3)), image)


def checkers(image: acap.Image, square: int) -> acap.Array:
    """Draw black and white squares of `square` pixels: nothing is harder to scale."""
    x, y = np.meshgrid(np.arange(image.width) // square, np.arange(image.height) // square)
    return _picture(np.repeat((x + y)[..., None] % 2 * 255, 3, axis=-1), image)


def _picture(pixels: acap.Array, image: acap.Image) -> acap.Array:
    interleaved = acap.Image("rgb-interleaved", image.width, image.height)
    return Reference()(np.rint(pixels).astype(np.uint8)[None], acap.Conversion(interleaved, image))
