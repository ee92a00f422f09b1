"""A smoke test of a chip: one small task that it should be able to do, run in the chip's own process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from acap_runtime.chips.supervisor import WorkerLimits
from acap_runtime.contract.backend import Array, Conversion, Image, ImageFormat
from acap_runtime.contract.example_inputs import zeros
from acap_runtime.errors import DeviceError, InvalidRequest
from acap_runtime.plugins.installed import InstalledChip
from acap_runtime.settings.model_source import ModelSource
from acap_runtime.trials.trial import loaded

_LIMITS: Final = WorkerLimits(run_timeout_s=20.0, load_timeout_s=60.0)
_WIDTH: Final = 320
_HEIGHT: Final = 240
_FORMATS: Final[tuple[ImageFormat, ...]] = ("rgb-interleaved", "rgb-planar")
"""The target formats for nv12. The test uses the first one that the chip supports."""
_FARTHEST: Final = 48
"""The largest allowed error of a colour, in levels of 255. This finds broken chips; the compliance kit finds inexact
ones.
"""
_COLOURS: Final[Mapping[tuple[int, int, int], tuple[int, int, int]]] = MappingProxyType(
    {(81, 90, 240): (255, 0, 0), (145, 54, 34): (0, 255, 0), (41, 240, 110): (0, 0, 255), (126, 128, 128): (128,) * 3}
)
"""Y, U and V of the picture's quarters, and the R, G and B that they stand for (BT.601, limited range)."""
_TOML: Final = """image.input.format = "nv12"
image.input.size = [{width}, {height}]
image.output.format = "{format}"
image.output.size = [{width}, {height}]
"""


async def smoke_conversion(chip: InstalledChip) -> str:
    """Convert a small picture of four colours, and return a description of the conversion.

    Raises `InvalidRequest` if the chip does no conversion that this test knows, `DeviceError` for a wrong picture, and
    any other error of the chip's process.
    """
    refusals = []
    with tempfile.TemporaryDirectory() as folder:
        for wanted in _FORMATS:
            path = Path(folder) / f"{wanted}.toml"
            path.write_text(_TOML.format(width=_WIDTH, height=_HEIGHT, format=wanted))
            try:
                return await _convert(chip, path, Conversion(_image("nv12"), _image(wanted)))
            except InvalidRequest as refusal:
                refusals.append(f"{wanted}: {refusal}")
    raise InvalidRequest(f"the chip does none of the conversions that are tried: {'; '.join(refusals)}")


async def _convert(chip: InstalledChip, path: Path, conversion: Conversion) -> str:
    async with loaded(chip, ModelSource(path.name, path), _LIMITS) as trial:
        outputs, seconds = await trial.run({trial.inputs[0].name: _quarters()})
    picture = outputs[trial.outputs[0].name][0].astype(int)
    if conversion.output.format == "rgb-planar":
        picture = np.moveaxis(picture, 0, 2)
    centres = [(_HEIGHT // 4 * y, _WIDTH // 4 * x) for y in (1, 3) for x in (1, 3)]
    for (y, x), expected in zip(centres, _COLOURS.values(), strict=True):
        found = tuple(int(level) for level in picture[y, x])
        if max(abs(one - other) for one, other in zip(found, expected, strict=True)) > _FARTHEST:
            raise DeviceError(
                f"{conversion} gives a wrong picture: expected about {expected} at pixel ({x}, {y}), got {found}"
            )
    return f"{conversion} is right, in {seconds * 1000:.1f} ms"


def _image(name: ImageFormat) -> Image:
    return Image(name, _WIDTH, _HEIGHT)


def _quarters() -> Array:
    """Return a picture of four colours as nv12: the first two above, the others below."""
    y, u, v = (np.array([colour[plane] for colour in _COLOURS], np.uint8).reshape(2, 2) for plane in range(3))
    luma = y.repeat(_HEIGHT // 2, axis=0).repeat(_WIDTH // 2, axis=1)
    chroma = np.stack([plane.repeat(_HEIGHT // 4, axis=0).repeat(_WIDTH // 4, axis=1) for plane in (u, v)], axis=-1)
    picture: Array = np.concatenate([luma, chroma.reshape(_HEIGHT // 2, _WIDTH)])[None]
    return picture


async def smoke_inference(chip: InstalledChip, source: ModelSource) -> str:
    """Run a model once on zeros, and return a description of its outputs. Raises the errors of the chip's process."""
    async with loaded(chip, source, _LIMITS) as trial:
        outputs, seconds = await trial.run(zeros(trial.inputs))
    for name, array in outputs.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise DeviceError(f"output {name!r} of {source.path} on zeros is not finite: expected numbers")
    what = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in outputs.items())
    return f"{source.path.name} ran on zeros in {seconds * 1000:.1f} ms and gave {what}"
