from __future__ import annotations

from collections.abc import Callable

import acap_runtime as acap
import pytest
from acap_runtime_axis_os import VdoCamera
from acap_runtime_axis_os.vdo import settings_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

NV12 = acap.StreamSettings("nv12", 64, 48, 20)


def test_it_is_the_devices_own_camera() -> None:
    assert (VdoCamera.name, VdoCamera.own_source) == ("vdo", "vdo")


@pytest.mark.parametrize("source", ["vdo", "vdo:0", "vdo:2"])
def test_a_source_is_vdo_and_perhaps_a_channel(source: str) -> None:
    camera = VdoCamera()
    assert camera.claims(source)
    camera.probe(source)
    camera.open(source, NV12).close()


@pytest.mark.parametrize("source", ["vdo:", "vdo:one", "vdo:-1", "vdo:1:2", "vdo:٣", "vdo:1\n"])
def test_another_text_is_refused(source: str) -> None:
    for ask in (VdoCamera().probe, lambda source: VdoCamera().open(source, NV12)):
        with pytest.raises(acap.InvalidRequest, match="expected vdo, or vdo:CHANNEL"):
            ask(source)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("channels=1", r"vdo:2: vdo_stream_new: channel 2 does not exist \(code 1\)"),
        ("new=10", r"vdo:2: vdo_stream_new: the fake was told to fail in new \(code 10\)"),
        ("new=5,foreign=1", "told to fail in new"),
        ("new=16", "down for maintenance, and will be back: .*told to fail"),
        ("new=5", "told to fail in new"),
        ("silent=1", "vdo_stream_new failed and does not say why"),
    ],
)
def test_a_source_without_video_is_not_ready_and_says_why(
    told: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", told)
    with pytest.raises(acap.NotReady, match=reason):
        VdoCamera().probe("vdo:2")


def test_a_probe_starts_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "start=9")
    VdoCamera().probe("vdo")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, acap.NotReady),
        (3, acap.InvalidRequest),
        (4, acap.NotReady),
        (5, acap.InvalidRequest),
        (7, acap.Unavailable),
        (9, acap.DeviceError),
        (10, acap.Unavailable),
        (17, acap.Unavailable),
        (18, acap.DeviceError),
        (99, acap.Unavailable),
    ],
)
@pytest.mark.parametrize("function", ["new", "info", "fd", "start"])
def test_whatever_fails_while_a_stream_is_opened_is_told_in_vdos_words(
    function: str, code: int, error: type[acap.AcapError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", f"{function}={code}")
    with pytest.raises(error, match=rf"vdo, nv12 64x48 at 20 fps: .* told to fail in {function} \(code {code}\)"):
        VdoCamera().open("vdo", NV12)


@pytest.mark.parametrize("code", [3, 9])
def test_a_code_of_another_domain_means_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", f"new={code},foreign=1")
    with pytest.raises(acap.Unavailable, match="told to fail"):
        VdoCamera().open("vdo", NV12)


@pytest.mark.parametrize("function", ["new", "start"])
def test_maintenance_is_told(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", f"{function}=16")
    with pytest.raises(acap.Unavailable, match="VDO is down for maintenance, and will be back"):
        VdoCamera().open("vdo", NV12)


@pytest.mark.parametrize(("format_", "number"), [("rgb-interleaved", 8), ("rgb-planar", 9), ("h265", 1)])
def test_a_format_that_the_device_lacks_is_refused(
    format_: acap.StreamFormat, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", f"lacks={number}")
    with pytest.raises(acap.InvalidRequest, match=f"vdo, {format_} .* is not supported"):
        VdoCamera().open("vdo", acap.StreamSettings(format_, 64, 48, 20))


@pytest.mark.parametrize("format_", ["nv12", "h264", "jpeg"])
def test_a_size_that_vdo_replaces_is_refused(format_: acap.StreamFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "width=640")
    with pytest.raises(acap.InvalidRequest, match="VDO gives 640x48 instead"):
        VdoCamera().open("vdo", acap.StreamSettings(format_, 64, 48, 20))


def test_a_subformat_that_vdo_replaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "y800=1")
    with pytest.raises(acap.InvalidRequest, match="expected subformat NV12 of VDO, got Y800"):
        VdoCamera().open("vdo", NV12)


def test_a_pitch_that_is_too_small_is_an_error_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "pitch=63")
    with pytest.raises(acap.DeviceError, match="rows are 63 bytes apart: expected at least the 64"):
        VdoCamera().open("vdo", NV12)


def test_a_frame_rate_that_vdo_lowers_is_taken_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_VDO", "rate=10")
    VdoCamera().open("vdo", NV12).close()
    assert "VDO gives 10 frames per second" in caplog.text


@pytest.mark.parametrize("format_", acap.STREAM_FORMATS)
def test_vdo_makes_a_buffer_for_every_frame_and_nothing_waits_for_one(format_: acap.StreamFormat) -> None:
    settings = {name: value for _, name, value in settings_of(acap.StreamSettings(format_, 64, 48, 20), None)}
    assert (settings["buffer.strategy"], settings["socket.blocking"]) == (4, False)
    assert "channel" not in settings
    assert settings.get("buffer.count") == (3 if format_ in acap.IMAGE_FORMATS else None)
    assert settings.get("subformat") == (b"NV12" if format_ == "nv12" else None)


def test_a_stream_is_stopped_and_given_back(live: Callable[[str], int]) -> None:
    stream = VdoCamera().open("vdo", NV12)
    assert (live("streams"), live("started streams"), live("maps")) == (1, 1, 0)
    stream.close()
    assert (live("streams"), live("started streams")) == (0, 0)
