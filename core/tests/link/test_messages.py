"""Messages between front and worker: whole, with their descriptors, and everything back as it was packed."""

from __future__ import annotations

import json
import os
import resource
import threading
from typing import Any

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.link.messages import (
    Channel,
    pack_conversion,
    pack_error,
    pack_spec,
    unpack_conversion,
    unpack_error,
    unpack_spec,
)

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
LEAVES = [
    *(acap.InvalidRequest, acap.NotFound, acap.NotReady, acap.Unavailable),
    *(acap.Busy, acap.DeviceError, acap.Forbidden),
]


class DriverGone(acap.DeviceError):
    """A plugin's own kind of error."""


class OutOfTiles(acap.AcapError):
    """A plugin's own kind of error, with none of the core's in between."""


def through_json(packed: Any) -> Any:
    """What the other side unpacks."""
    return json.loads(json.dumps(packed))


@pytest.fixture
def channels():
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_of_the_contract_comes_back_as_itself(kind: type[acap.AcapError]) -> None:
    back = unpack_error(through_json(pack_error(kind("input 'x': expected 3, got 4 — “ü”"))))
    assert type(back) is kind
    assert str(back) == "input 'x': expected 3, got 4 — “ü”"


@pytest.mark.parametrize("kind", [DriverGone, OutOfTiles])
def test_a_plugins_own_error_comes_back_as_a_device_error_with_its_message(kind: type[acap.AcapError]) -> None:
    back = unpack_error(through_json(pack_error(kind("no tile is free"))))
    assert type(back) is acap.DeviceError
    assert str(back) == "no tile is free"


def test_a_plugins_own_subclass_keeps_the_meaning_of_what_it_is_derived_from() -> None:
    class NoLicence(acap.NotReady):
        """Its status is NotReady's: the table is looked up along the class's bases."""

    back = unpack_error(through_json(pack_error(NoLicence("the licence has ended"))))
    assert isinstance(back, acap.NotReady)
    assert str(back) == "the licence has ended"


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_what_a_plugin_did_not_mean_to_raise_is_a_device_error_that_names_it(error: BaseException) -> None:
    back = unpack_error(through_json(pack_error(error)))
    assert type(back) is acap.DeviceError
    assert type(error).__name__ in str(back)


@pytest.mark.parametrize("name", ["annotations", "quoted", "Self", "__builtins__", "Exception", "", "BaseException"])
def test_only_the_contracts_errors_are_ever_made(name: str) -> None:
    assert type(unpack_error([name, "text"])) is acap.DeviceError


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_spec_of_every_dtype_comes_back_equal(dtype: str) -> None:
    spec = acap.TensorSpec("serving_default_x:0 “ü”\n", np.dtype(dtype), (1, -1, 3))
    assert unpack_spec(through_json(pack_spec(spec))) == spec


@pytest.mark.parametrize(
    "quantisation",
    [None, acap.Quantisation((0.0078125,), (128,)), acap.Quantisation((0.1, 1e-30, 3.0), (0, -128, 2**31), 3)],
)
def test_a_specs_quantisation_comes_back_equal(quantisation: acap.Quantisation | None) -> None:
    spec = acap.TensorSpec("", np.dtype("int8"), (), quantisation)
    assert unpack_spec(through_json(pack_spec(spec))) == spec


@pytest.mark.parametrize("crop", [None, acap.Crop(0, 0, 2, 2), acap.Crop(10, 20, 100, 50)])
def test_a_conversion_comes_back_equal(crop: acap.Crop | None) -> None:
    conversion = acap.Conversion(acap.Image("nv12", 640, 480), acap.Image("rgb-planar", 33, 17), crop)
    assert unpack_conversion(through_json(pack_conversion(conversion))) == conversion


def test_messages_arrive_whole_and_in_order(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    messages = [{"text": "x" * length, "number": length} for length in (0, 1, 1000, 60_000)]
    for message in messages:
        ours.send(message)
    assert [theirs.receive() for _ in messages] == [(message, []) for message in messages]


def test_a_descriptor_rides_along_and_is_not_inherited_by_others(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    readable, writable = os.pipe()
    ours.send({"a": 1}, writable)
    os.close(writable)
    received = theirs.receive()
    assert received is not None
    message, (descriptor,) = received
    assert message == {"a": 1}
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"through")
    os.close(descriptor)
    assert os.read(readable, 100) == b"through"
    os.close(readable)


def test_a_closed_end_is_seen_by_everyone_who_waits_at_the_other(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    ended: list[object] = []
    threads = [threading.Thread(target=lambda: ended.append(theirs.receive())) for _ in range(4)]
    for thread in threads:
        thread.start()
    ours.close()
    for thread in threads:
        thread.join(10)
    assert ended == [None] * 4
    with pytest.raises(BrokenPipeError):
        theirs.send({})


def test_hanging_up_ends_both_ends(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    ours.hang_up()
    ours.hang_up()
    assert ours.receive() is None
    assert theirs.receive() is None


def test_each_message_reaches_exactly_one_of_those_who_wait(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    got: list[int] = []

    def take() -> None:
        while (received := theirs.receive()) is not None:
            got.append(received[0]["number"])

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(500):
        ours.send({"number": number})
    ours.close()
    for thread in threads:
        thread.join(10)
    assert sorted(got) == list(range(500))


def test_a_message_too_large_for_the_channel_is_refused_with_its_size(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    with pytest.raises(acap.DeviceError, match=r"message of \d+ bytes"):
        ours.send({"text": "x" * 200_000})
    ours.send({"after": True})
    assert theirs.receive() == ({"after": True}, [])


def test_the_largest_message_that_may_be_sent_is_also_received(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    message = {"text": "x" * (128 * 1024 - len('{"text":""}'))}
    ours.send(message)
    assert theirs.receive() == (message, [])


def test_a_message_whose_descriptor_cannot_be_received_is_an_error(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    ours.send({"a": 1}, ours.fileno())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(ours.fileno())
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            theirs.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    ours.send({"a": 2})
    assert theirs.receive() == ({"a": 2}, [])
