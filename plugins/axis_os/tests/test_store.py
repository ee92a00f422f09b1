from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime_axis_os import AxParameterStore
from acap_runtime_axis_os.store import open_axparameter
from cffi import FFI

Live = Callable[[str], int]


@pytest.fixture
def live(fake_libraries: Path) -> Live:
    """How much of a kind is alive in the fake axparameter."""
    ffi = FFI()
    ffi.cdef("int fake_axparameter_live(const char *kind);")
    library = ffi.dlopen(str(fake_libraries / "libaxparameter.so.1"))
    return lambda kind: library.fake_axparameter_live(kind.encode())


@pytest.fixture
def store(live: Live) -> Iterator[AxParameterStore]:
    open_axparameter()
    store = AxParameterStore()
    yield store
    del store
    assert (live("strings"), live("errors")) == (0, 0)


def test_it_is_the_devices_own_store() -> None:
    assert (AxParameterStore.name, AxParameterStore.own) == ("axparameter", True)


def test_parameters_are_read_by_their_full_path(store: AxParameterStore) -> None:
    store.probe()
    assert store.get("root.Brand.Brand") == "AXIS"
    assert store.get("root.Brand.ProdFullName") == "AXIS Q1656 Kämera"


def test_an_empty_value_is_a_value(store: AxParameterStore) -> None:
    assert store.get("root.Fake.Empty") == ""


def test_a_key_without_a_group_is_the_applications_own(store: AxParameterStore) -> None:
    assert store.get("Verbose") == store.get("root.Acapruntime.Verbose") == "yes"


@pytest.mark.parametrize("code", [12, 10, 9])
def test_an_unknown_parameter_is_none(store: AxParameterStore, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_AXPARAMETER", f"unknown={code}")
    assert store.get("root.Brand.Nothing") is None
    assert store.get("root.Brand.Brand") == "AXIS"


@pytest.mark.parametrize("told", ["get=16", "get=0", "get=12,foreign=1", "silent=1"])
def test_a_failure_is_no_unknown_parameter(store: AxParameterStore, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_AXPARAMETER", told)
    with pytest.raises(acap.Unavailable, match=r"parameter root\.Brand\.Brand cannot be read: ax_parameter_get"):
        store.get("root.Brand.Brand")
    monkeypatch.delenv("FAKE_AXPARAMETER")
    assert store.get("root.Brand.Brand") == "AXIS"


def test_a_service_that_is_not_there_is_not_ready_and_may_come(
    store: AxParameterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AXPARAMETER", "new=16")
    with pytest.raises(acap.NotReady, match=r"the device's parameters cannot be reached: .*told not to create"):
        store.probe()
    with pytest.raises(acap.Unavailable, match="cannot be reached"):
        store.get("root.Brand.Brand")
    monkeypatch.delenv("FAKE_AXPARAMETER")
    store.probe()
    assert store.get("root.Brand.Brand") == "AXIS"


def test_there_is_one_axparameter_and_it_is_freed_with_the_store(live: Live) -> None:
    gc.collect()
    before = live("parameters")
    store = AxParameterStore()
    for _ in range(100):
        store.probe()
        store.get("root.Brand.Brand")
        store.get("root.Brand.Nothing")
    assert live("parameters") == before + 1
    del store
    gc.collect()
    assert live("parameters") == before
    assert live("most parameters") == 1
    assert (live("strings"), live("errors")) == (0, 0)
