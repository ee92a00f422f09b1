import acap_runtime as acap
import pytest
from acap_runtime_tpu.delegate_options import delegate_options


@pytest.mark.parametrize("device", ["usb", "pci", ":0", "usb:0", "pci:12"])
def test_a_device_is_passed_on(device):
    assert delegate_options({"device": device}) == {"device": device}


def test_no_option_means_any_device():
    assert delegate_options({}) == {}


@pytest.mark.parametrize("device", ["", ":", "0", "usb:", "usb:-1", "usb:x", "USB", "/dev/apex_0", "usb:٣", "usb:0\n"])
def test_a_device_that_libedgetpu_could_not_find_is_refused(device):
    with pytest.raises(acap.InvalidRequest, match="device: expected usb, pci, :N, usb:N or pci:N"):
        delegate_options({"device": device})


@pytest.mark.parametrize("performance", ["Low", "Medium", "High", "Max"])
def test_a_performance_goes_with_a_numbered_device(performance):
    wanted = delegate_options({"performance": performance, "device": "usb:1"})
    assert wanted == {"device": "usb:1", "Performance": performance}


@pytest.mark.parametrize("device", [{}, {"device": "usb"}, {"device": "pci"}])
def test_a_performance_that_libedgetpu_would_ignore_is_refused(device):
    with pytest.raises(acap.InvalidRequest, match="performance: libedgetpu ignores it unless device has a number"):
        delegate_options({"performance": "Low", **device})


@pytest.mark.parametrize("performance", ["", "low", "Maximum"])
def test_other_performances_are_refused(performance):
    with pytest.raises(acap.InvalidRequest, match="performance: expected Low, Medium, High, Max, got"):
        delegate_options({"performance": performance, "device": ":0"})
