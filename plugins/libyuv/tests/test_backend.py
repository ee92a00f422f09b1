from __future__ import annotations

import threading
import time

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_libyuv import LibyuvBackend
from acap_runtime_libyuv.chroma import Chroma
from acap_runtime_libyuv.library import check, open_library

CONVERSION = acap.Conversion(acap.Image("rgb-interleaved", 64, 48), acap.Image("rgb-planar", 32, 30))


def converted(backend: LibyuvBackend) -> acap.Array:
    picture = np.random.default_rng(0).integers(0, 256, CONVERSION.input.shape, np.uint8)
    return backend.prepare(CONVERSION).run({"input": picture})["output"]


def test_a_missing_library_says_what_to_install() -> None:
    with pytest.raises(acap.NotReady, match=r"libyuv-of-nobody\.so.*apt install libyuv0"):
        open_library("libyuv-of-nobody.so")


def test_a_library_that_lacks_functions_names_them() -> None:
    with pytest.raises(acap.NotReady, match=r"libc\.so\.6 lacks ARGBScale.*SplitRGBPlane; install"):
        open_library("libc.so.6")


def test_a_failing_call_names_the_function() -> None:
    check("I420Scale", 0)
    check("CopyPlane", None)
    with pytest.raises(acap.DeviceError, match="I420Scale failed with 1"):
        check("I420Scale", 1)


def test_chroma_is_scaled_as_larod_does_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACAPRUNTIME_LIBYUV_CHROMA", raising=False)
    np.testing.assert_array_equal(converted(LibyuvBackend()), converted(LibyuvBackend("larod")))
    assert not np.array_equal(converted(LibyuvBackend()), converted(LibyuvBackend("full")))


def test_the_environment_chooses_chroma_where_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACAPRUNTIME_LIBYUV_CHROMA", "full")
    np.testing.assert_array_equal(converted(LibyuvBackend()), converted(LibyuvBackend("full")))
    assert not np.array_equal(converted(LibyuvBackend("larod")), converted(LibyuvBackend("full")))


def test_an_unknown_choice_of_chroma_is_refused_and_names_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACAPRUNTIME_LIBYUV_CHROMA", "best")
    message = "'best': expected ACAPRUNTIME_LIBYUV_CHROMA to be one of larod, full"
    with pytest.raises(acap.NotReady, match=message):
        LibyuvBackend().probe()
    with pytest.raises(acap.NotReady, match=message):
        LibyuvBackend().prepare(CONVERSION)


@pytest.mark.parametrize("size", [(16385, 1), (1, 16385)])
def test_a_side_that_libyuv_cannot_count_is_refused(size: tuple[int, int]) -> None:
    large, small = acap.Image("rgb-planar", *size), acap.Image("rgb-planar", 8, 8)
    for conversion in (acap.Conversion(large, small), acap.Conversion(small, large)):
        with pytest.raises(acap.InvalidRequest, match="at most 16384 pixels a side"):
            LibyuvBackend().prepare(conversion)


@pytest.mark.parametrize("chroma", ["larod", "full"])
@pytest.mark.parametrize(
    ("source", "target"),
    [((16384, 2), (1, 1)), ((2, 16384), (3, 1)), ((1, 3), (16384, 2)), ((2, 1), (2, 16384))],
)
def test_the_longest_sides_can_be_scaled(chroma: Chroma, source: tuple[int, int], target: tuple[int, int]) -> None:
    conversion = acap.Conversion(acap.Image("rgb-interleaved", *source), acap.Image("rgb-interleaved", *target))
    model = LibyuvBackend(chroma).prepare(conversion)
    result = model.run({"input": np.full(conversion.input.shape, 200, np.uint8)})["output"]
    assert (abs(result.astype(int) - 200) <= 3).all()


def test_other_threads_run_meanwhile() -> None:
    conversion = acap.Conversion(acap.Image("rgb-planar", 4096, 4096), acap.Image("nv12", 4096, 4094))
    model = LibyuvBackend().prepare(conversion)
    picture = np.zeros(conversion.input.shape, np.uint8)
    run = threading.Thread(target=model.run, args=({"input": picture},))
    ticks = 0
    run.start()
    while run.is_alive():
        time.sleep(0.001)
        ticks += 1
    assert ticks >= 3
