"""Finds the conversion that turns an incoming image into the one that a model takes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from acap_runtime.contract.backend import IMAGE_FORMATS, Conversion, Crop, Image, TensorSpec
from acap_runtime.errors import InvalidRequest

IMAGE_RANK: Final = 4
IMAGE_CHANNELS: Final = 3
_LARGEST_FILE: Final = 65536


def image_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Image | None:
    """Return the form of a tensor's image: uint8 (1, h, w, 3) or (1, 3, h, w); None for any other tensor."""
    if dtype != np.uint8 or len(shape) != IMAGE_RANK or shape[0] != 1 or min(shape) < 1:
        return None
    if shape[3] == IMAGE_CHANNELS:
        return Image("rgb-interleaved", shape[2], shape[1])
    if shape[1] == IMAGE_CHANNELS:
        return Image("rgb-planar", shape[3], shape[2])
    return None


def conversion_for(wanted: TensorSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Conversion | None:
    """Return the conversion from an incoming tensor to the image of `wanted`; None if either is no image."""
    target, source = image_of(wanted.dtype, wanted.shape), image_of(dtype, shape)
    return Conversion(source, target) if source and target else None


def read_conversion(path: Path) -> Conversion:
    """Read a model of a processing chip: a TOML file of larod's parameters.

    ``image.input.format``, ``image.input.size`` = [width, height], ``image.output.format`` and ``image.output.size``
    are mandatory. ``image.input.crop`` = [x, y, width, height] is optional (larod's preprocessing page). ``row-pitch``
    is allowed only if it describes rows without padding. Raises `InvalidRequest`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise InvalidRequest(
                f"{path}: expected a TOML file of larod parameters, got more than {_LARGEST_FILE} bytes"
            )
        parameters = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{path}: expected a TOML file of larod parameters: {error}") from None
    found = dict(_flatten("", parameters))
    try:
        sides = [_take_image(found, side) for side in ("image.input", "image.output")]
        crop = _take_integers(found, "image.input.crop", 4) if "image.input.crop" in found else None
        if found:
            raise InvalidRequest(f"{', '.join(sorted(found))}: no such parameter")
        return Conversion(sides[0], sides[1], Crop(*crop) if crop else None)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from None


def _flatten(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in table.items()
        for pair in (_flatten(f"{prefix}{key}.", value) if isinstance(value, dict) else [(f"{prefix}{key}", value)])
    ]


def _take_image(found: dict[str, Any], side: str) -> Image:
    format_ = found.pop(f"{side}.format", None)
    if format_ not in IMAGE_FORMATS:
        raise InvalidRequest(f"{side}.format: expected one of {', '.join(IMAGE_FORMATS)}, got {format_!r}")
    image = Image(format_, *_take_integers(found, f"{side}.size", 2))
    pitch = image.width * IMAGE_CHANNELS if format_ == "rgb-interleaved" else image.width
    if (given := found.pop(f"{side}.row-pitch", pitch)) != pitch:
        raise InvalidRequest(f"{side}.row-pitch: expected {pitch}, rows without padding, got {given!r}")
    return image


def _take_integers(found: dict[str, Any], key: str, count: int) -> list[int]:
    value = found.pop(key, None)
    if not isinstance(value, list) or len(value) != count or not all(type(each) is int for each in value):
        raise InvalidRequest(f"{key}: expected {count} integers, got {value!r}")
    return value
