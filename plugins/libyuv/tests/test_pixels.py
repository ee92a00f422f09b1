"""Every pixel against the reference, with pictures that are hard to scale wherever those can be held to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal, TypeAlias

import acap_runtime as acap
import pytest
from acap_runtime.testing.pictures import checkers, noise, waves
from acap_runtime.testing.processing import Tolerance
from acap_runtime.testing.reference import Reference
from acap_runtime_libyuv import LibyuvBackend
from acap_runtime_libyuv.chroma import Chroma

Size: TypeAlias = tuple[int, int]

CHROMA: dict[Chroma, Literal["halved", "full"]] = {"larod": "halved", "full": "full"}
TOLERANCE: dict[Chroma, Tolerance] = {"larod": Tolerance(mean=2.5, peak=8), "full": Tolerance(mean=2.5, peak=6)}

SIZES = [
    ((64, 48), (64, 48)),
    ((320, 240), (200, 150)),
    ((640, 480), (300, 300)),
    ((512, 600), (224, 224)),
    ((300, 300), (224, 224)),
    ((64, 48), (32, 24)),
    ((64, 48), (16, 12)),
    ((96, 96), (32, 32)),
    ((66, 34), (22, 34)),
    ((200, 150), (320, 240)),
    ((60, 100), (90, 50)),
    ((1000, 2), (10, 2)),
    ((2, 2), (64, 64)),
    ((63, 47), (31, 23)),
    ((65, 33), (65, 11)),
    ((257, 131), (100, 99)),
    ((64, 1), (32, 9)),
    ((8, 8), (1, 1)),
    ((1, 1), (8, 8)),
    ((1, 1), (1, 1)),
]


def conversions(source: Size, target: Size, crop: acap.Crop | None = None) -> Iterator[acap.Conversion]:
    for came, wanted in product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS):
        try:
            yield acap.Conversion(acap.Image(came, *source), acap.Image(wanted, *target), crop)
        except acap.InvalidRequest:
            assert "nv12" in (came, wanted)


def check(
    chroma: Chroma,
    conversion: acap.Conversion,
    picture: acap.Array,
    tolerance: Tolerance,
    enlarging: Literal["centres", "corners"] = "corners",
) -> None:
    model = LibyuvBackend(chroma).prepare(conversion)
    result = model.run({"input": picture})["output"].copy()
    model.close()
    tolerance.check(result, Reference(CHROMA[chroma], enlarging)(picture, conversion))


def hard_pictures(image: acap.Image) -> tuple[acap.Array, ...]:
    return noise(image), checkers(image, 1), checkers(image, 3)


def smooth_picture(conversion: acap.Conversion) -> acap.Array:
    region, target = conversion.region, conversion.output
    return waves(conversion.input, 24 * max(1, region.width / target.width, region.height / target.height))


@pytest.mark.parametrize("chroma", CHROMA)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_hard_pictures_are_right(chroma: Chroma, source: Size, target: Size) -> None:
    for conversion in conversions(source, target):
        for picture in hard_pictures(conversion.input):
            check(chroma, conversion, picture, TOLERANCE[chroma])


@pytest.mark.parametrize("chroma", CHROMA)
@pytest.mark.parametrize("target", [(90, 60), (50, 30), (100, 70)], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("corner", [(0, 0), (38, 22), (2, 20), (38, 0)])
def test_the_crop_is_taken_where_it_was_asked(chroma: Chroma, target: Size, corner: tuple[int, int]) -> None:
    for conversion in conversions((128, 82), target, acap.Crop(*corner, 90, 60)):
        for picture in hard_pictures(conversion.input):
            check(chroma, conversion, picture, TOLERANCE[chroma])


@pytest.mark.parametrize("chroma", CHROMA)
@pytest.mark.parametrize("target", [(31, 43), (17, 11), (50, 61)], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("corner", [(0, 0), (1, 1), (32, 8), (16, 5)])
def test_an_rgb_crop_may_be_odd(chroma: Chroma, target: Size, corner: tuple[int, int]) -> None:
    for conversion in conversions((63, 51), target, acap.Crop(*corner, 31, 43)):
        for picture in hard_pictures(conversion.input):
            check(chroma, conversion, picture, TOLERANCE[chroma])


@pytest.mark.parametrize("chroma", CHROMA)
@pytest.mark.parametrize("came", ["nv12", "rgb-interleaved"])
def test_a_full_hd_frame_is_right(chroma: Chroma, came: acap.ImageFormat) -> None:
    conversion = acap.Conversion(acap.Image(came, 1920, 1080), acap.Image("rgb-interleaved", 300, 300))
    check(chroma, conversion, noise(conversion.input), TOLERANCE[chroma])


def test_planes_of_exactly_twice_the_size_keep_their_centres() -> None:
    for conversion in conversions((100, 80), (200, 160)):
        for picture in hard_pictures(conversion.input):
            check("larod", conversion, picture, TOLERANCE["larod"], enlarging="centres")


@pytest.mark.parametrize(
    ("source", "target", "smooth", "hard"),
    [
        pytest.param((64, 48), (48, 36), Tolerance(mean=2, peak=8), Tolerance(mean=12, peak=40), id="3:4"),
        pytest.param((64, 48), (24, 18), Tolerance(mean=5, peak=17), None, id="3:8, averages 3, 3 and 2 pixels"),
        pytest.param((31, 23), (62, 46), Tolerance(mean=6.5, peak=24), None, id="odd chroma doubled and cut"),
        pytest.param((31, 23), (63, 47), Tolerance(mean=3, peak=15), None, id="chroma doubled, luma not"),
        pytest.param((1, 64), (9, 32), Tolerance(mean=5, peak=12), None, id="one pixel wide, nearest row"),
    ],
)
def test_the_special_scalers_of_planes_come_close(
    source: Size, target: Size, smooth: Tolerance, hard: Tolerance | None
) -> None:
    for conversion in conversions(source, target):
        check("larod", conversion, smooth_picture(conversion), smooth)
        if hard:
            for picture in hard_pictures(conversion.input):
                check("larod", conversion, picture, hard)


@pytest.mark.parametrize(
    ("source", "target"),
    [((64, 48), (48, 36)), ((64, 48), (24, 18)), ((31, 23), (62, 46)), ((100, 80), (200, 160))],
)
def test_full_chroma_knows_no_special_scalers(source: Size, target: Size) -> None:
    for conversion in conversions(source, target):
        if (conversion.input.format, conversion.output.format) != ("nv12", "nv12"):
            for picture in hard_pictures(conversion.input):
                check("full", conversion, picture, TOLERANCE["full"])
