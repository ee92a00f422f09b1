"""Every width up to twice what one instruction takes: libyuv does what is left over in another way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import acap_runtime as acap
import pytest
from acap_runtime.testing.pictures import noise
from acap_runtime.testing.processing import Tolerance
from acap_runtime.testing.reference import Reference
from acap_runtime_libyuv import LibyuvBackend
from acap_runtime_libyuv.chroma import Chroma

WIDTHS = range(1, 131)
FORMATS = list(product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS))


def even(*sizes: int) -> bool:
    return not any(size % 2 for size in sizes)


def check(conversion: acap.Conversion, chroma: Chroma, tolerance: Tolerance) -> None:
    picture = noise(conversion.input)
    model = LibyuvBackend(chroma).prepare(conversion)
    result = model.run({"input": picture})["output"]
    wanted = Reference("halved" if chroma == "larod" else "full", "corners")(picture, conversion)
    try:
        tolerance.check(result, wanted)
    except AssertionError as error:
        raise AssertionError(f"{conversion}: {error}") from None
    model.close()


def unscaled(came: acap.ImageFormat, wanted: acap.ImageFormat) -> Iterator[acap.Conversion]:
    for width, height in product(WIDTHS, (1, 2, 5)):
        if "nv12" not in (came, wanted) or even(width, height):
            target = acap.Image(wanted, width, height)
            yield acap.Conversion(acap.Image(came, width, height), target)
            yield acap.Conversion(acap.Image(came, width + 4, height + 2), target, acap.Crop(2, 2, width, height))


@pytest.mark.parametrize(("came", "wanted"), FORMATS)
def test_every_width_is_right(came: acap.ImageFormat, wanted: acap.ImageFormat) -> None:
    moves = (came == "nv12") == (wanted == "nv12")
    for conversion in unscaled(came, wanted):
        check(conversion, "larod", Tolerance(mean=0, peak=0) if moves else Tolerance(mean=0.5, peak=3))


@pytest.mark.parametrize("chroma", ["larod", "full"])
@pytest.mark.parametrize(("came", "wanted"), FORMATS)
def test_every_width_is_scaled_right(came: acap.ImageFormat, wanted: acap.ImageFormat, chroma: Chroma) -> None:
    # An image of one or two pixels has a colour of one: libyuv takes the nearest row of that.
    for width, (new_width, new_height) in product(WIDTHS[2:], ((5 / 7, 6), (9 / 7, 14))):
        step = 2 if "nv12" in (came, wanted) else 1
        if width % step == 0:
            target = acap.Image(wanted, round(width * new_width / step) * step, new_height)
            check(acap.Conversion(acap.Image(came, width, 10), target), chroma, Tolerance(mean=2.5, peak=8))
