from __future__ import annotations

import re

import acap_runtime as acap
import acap_runtime_larod as larod_plugin
import numpy as np
import pytest
from acap_runtime.testing.pictures import noise
from acap_runtime.testing.reference import Reference
from acap_runtime_larod.conversions import LIMITS, load_parameters

ACE, VPROC, OPENCL, LIBYUV = ["axis-a8-ace-proc"], ["ambarella-cvflow-proc"], ["axis-a8-gpu-proc"], ["cpu-proc"]


def conversion(source, target, crop=None):
    (came, *size), (wanted, *new_size) = source, target
    return acap.Conversion(acap.Image(came, *size), acap.Image(wanted, *new_size), crop and acap.Crop(*crop))


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [
        (ACE, conversion(("nv12", 64, 48), ("rgb-interleaved", 64, 48))),
        (ACE, conversion(("nv12", 8, 4), ("rgb-interleaved", 8, 4), (0, 0, 8, 4))),
        (VPROC, conversion(("nv12", 70, 50), ("rgb-planar", 33, 21), (10, 4, 40, 30))),
        (VPROC, conversion(("rgb-planar", 63, 47), ("rgb-planar", 31, 23))),
        (VPROC, conversion(("nv12", 66, 40), ("nv12", 34, 20))),
        (VPROC, conversion(("rgb-planar", 512, 2), ("rgb-planar", 2, 2))),
        (OPENCL, conversion(("nv12", 64, 48), ("rgb-interleaved", 30, 20), (2, 4, 40, 40))),
        (LIBYUV, conversion(("rgb-interleaved", 64, 48), ("nv12", 30, 20))),
        (LIBYUV, conversion(("rgb-planar", 64, 48), ("rgb-interleaved", 64, 48))),
    ],
    ids=str,
)
def test_a_device_converts_within_its_limits(devices, wanted):
    picture = noise(wanted.input)
    model = larod_plugin.prepare_conversion(devices, wanted)
    assert (model.inputs, model.outputs) == (wanted.inputs, wanted.outputs)
    for _ in range(2):
        result = model.run({"input": picture})["output"]
        assert result.flags.c_contiguous
        np.testing.assert_allclose(result.astype(int), Reference()(picture, wanted), atol=1)
    model.close()


@pytest.mark.parametrize(
    ("devices", "wanted", "problem"),
    [
        (ACE, conversion(("rgb-planar", 64, 48), ("rgb-interleaved", 64, 48)), "these formats cannot be converted"),
        (ACE, conversion(("nv12", 64, 48), ("rgb-interleaved", 32, 48)), "64x48 cannot be scaled to 32x48"),
        (ACE, conversion(("nv12", 64, 48), ("rgb-interleaved", 32, 32), (0, 0, 32, 32)), "a part of the image cannot"),
        (ACE, conversion(("nv12", 68, 48), ("rgb-interleaved", 68, 48)), "the width 68 is no multiple of 8"),
        (ACE, conversion(("nv12", 64, 2), ("rgb-interleaved", 64, 2)), "the height 2 is less than 4"),
        (ACE, conversion(("nv12", 2048, 2048), ("rgb-interleaved", 2048, 2048)), "the image has 4194304 pixels"),
        (VPROC, conversion(("nv12", 64, 48), ("rgb-interleaved", 64, 48)), "these formats cannot be converted"),
        (VPROC, conversion(("rgb-planar", 514, 2), ("rgb-planar", 2, 2)), "514 pixels cannot become 2"),
        (VPROC, conversion(("rgb-planar", 2, 2), ("rgb-planar", 2, 514)), "2 pixels cannot become 514"),
        (OPENCL, conversion(("nv12", 64, 48), ("rgb-planar", 64, 48)), "these formats cannot be converted"),
        (LIBYUV, conversion(("rgb-planar", 63, 48), ("rgb-planar", 64, 48)), "a width or height is odd"),
        (LIBYUV, conversion(("rgb-planar", 64, 48), ("rgb-interleaved", 32, 48)), "64x48 cannot be scaled to 32x48"),
    ],
    ids=str,
)
def test_a_conversion_outside_of_the_limits_is_refused_with_what_the_chip_can_do(devices, wanted, problem):
    does = LIMITS[devices[0]].does
    with pytest.raises(acap.InvalidRequest, match=f"{problem}.*; {devices[0]} {re.escape(does)}"):
        larod_plugin.prepare_conversion(devices, wanted)


def test_rows_are_padded_where_the_device_needs_it():
    wanted = conversion(("nv12", 70, 50), ("rgb-planar", 33, 21))
    assert load_parameters(VPROC[0], wanted) == {
        "image.input.format": "nv12",
        "image.input.size": (70, 50),
        "image.input.row-pitch": 96,
        "image.output.format": "rgb-planar",
        "image.output.size": (33, 21),
        "image.output.row-pitch": 64,
    }
    assert "image.input.row-pitch" not in load_parameters(OPENCL[0], wanted_of_opencl())


def wanted_of_opencl():
    return conversion(("nv12", 70, 50), ("rgb-interleaved", 33, 21))


def test_the_limits_are_those_of_the_device_that_was_found(larod):
    wanted = conversion(("nv12", 64, 48), ("rgb-interleaved", 30, 20))
    larod.tell("devices", "a9-gpu-proc")
    larod_plugin.prepare_conversion([*ACE, "a9-gpu-proc"], wanted).close()


def test_what_larod_refuses_beyond_the_known_limits_is_told_in_its_words(larod):
    with pytest.raises(acap.InvalidRequest, match="cannot be loaded on cpu-tflite: Unknown parameter"):
        larod_plugin.prepare_conversion(["cpu-tflite"], conversion(("nv12", 64, 48), ("nv12", 32, 24)))


def test_a_conversion_goes_on_after_the_connection_was_lost(larod):
    wanted = conversion(("nv12", 64, 48), ("rgb-planar", 30, 20), (4, 4, 40, 40))
    picture = noise(wanted.input)
    model = larod_plugin.prepare_conversion(VPROC, wanted)
    before = model.run({"input": picture})["output"].copy()
    larod.tell("job-errors", -6)
    with pytest.raises(acap.Unavailable, match="nv12 64x48 to rgb-planar 30x20"):
        model.run({"input": picture})
    np.testing.assert_array_equal(model.run({"input": picture})["output"], before)
    model.close()
