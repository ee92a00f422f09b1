"""Every pixel against the reference, with pictures that are hard to scale."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TypeAlias

import acap_runtime as acap
import pytest
from acap_runtime.testing.backend import require
from acap_runtime.testing.pictures import checkers, noise
from acap_runtime.testing.processing import Tolerance
from acap_runtime.testing.reference import Reference
from acap_runtime_opencl import OpenClBackend

Size: TypeAlias = tuple[int, int]

ONE_LEVEL = Tolerance(mean=1, peak=1)
"""A half is rounded up, and in the reference to even: where a picture is halved, that may be every pixel."""

SIZES = [
    ((64, 48), (64, 48)),
    ((320, 240), (200, 150)),
    ((640, 480), (300, 300)),
    ((512, 600), (224, 224)),
    ((64, 48), (48, 36)),
    ((64, 48), (32, 24)),
    ((64, 48), (24, 18)),
    ((66, 34), (22, 34)),
    ((200, 150), (320, 240)),
    ((60, 100), (90, 50)),
    ((1000, 2), (10, 2)),
    ((2, 2), (64, 64)),
    ((2, 2), (2, 2)),
    ((126, 130), (130, 126)),
    ((63, 47), (31, 23)),
    ((31, 23), (63, 47)),
    ((65, 33), (65, 11)),
    ((257, 131), (100, 99)),
    ((64, 1), (32, 9)),
    ((1, 64), (9, 32)),
    ((8, 8), (1, 1)),
    ((1, 1), (8, 8)),
    ((1, 1), (1, 1)),
]


@pytest.fixture(scope="module")
def backend() -> OpenClBackend:
    backend = OpenClBackend()
    require(backend)
    return backend


def conversions(source: Size, target: Size, crop: acap.Crop | None = None) -> Iterator[acap.Conversion]:
    for came, wanted in product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS):
        try:
            yield acap.Conversion(acap.Image(came, *source), acap.Image(wanted, *target), crop)
        except acap.InvalidRequest:
            assert "nv12" in (came, wanted)


def check(backend: OpenClBackend, conversion: acap.Conversion) -> None:
    model = backend.prepare(conversion)
    for picture in (noise(conversion.input), checkers(conversion.input, 1), checkers(conversion.input, 3)):
        ONE_LEVEL.check(model.run({"input": picture})["output"], Reference()(picture, conversion))
    model.close()


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_hard_pictures_are_right(backend: OpenClBackend, source: Size, target: Size) -> None:
    for conversion in conversions(source, target):
        check(backend, conversion)


@pytest.mark.parametrize("target", [(90, 60), (50, 30), (100, 70)], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("corner", [(0, 0), (38, 22), (2, 20), (38, 0)])
def test_the_crop_is_taken_where_it_was_asked(backend: OpenClBackend, target: Size, corner: Size) -> None:
    for conversion in conversions((128, 82), target, acap.Crop(*corner, 90, 60)):
        check(backend, conversion)


@pytest.mark.parametrize("target", [(31, 43), (17, 11), (50, 61)], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("corner", [(0, 0), (1, 1), (32, 8), (16, 5)])
def test_an_rgb_crop_may_be_odd(backend: OpenClBackend, target: Size, corner: Size) -> None:
    for conversion in conversions((63, 51), target, acap.Crop(*corner, 31, 43)):
        check(backend, conversion)


@pytest.mark.parametrize("came", acap.IMAGE_FORMATS)
def test_a_full_hd_frame_is_right(backend: OpenClBackend, came: acap.ImageFormat) -> None:
    check(backend, acap.Conversion(acap.Image(came, 1920, 1080), acap.Image("rgb-interleaved", 300, 300)))


@pytest.mark.parametrize(
    ("source", "target"),
    [((16384, 2), (2, 2)), ((2, 16384), (4, 2)), ((2, 4), (16384, 2)), ((2, 2), (2, 16384)), ((16384, 2), (16000, 2))],
)
def test_the_longest_sides_are_right(backend: OpenClBackend, source: Size, target: Size) -> None:
    for conversion in conversions(source, target):
        check(backend, conversion)
