from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from acap_runtime_axis_os.fake import build_fakes
from acap_runtime_axis_os.library import LIBRARIES_VARIABLE
from acap_runtime_axis_os.vdo import open_vdo
from cffi import FFI

Live = Callable[[str], int]

KINDS = ("maps", "streams", "started streams", "buffers", "errors")


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment in which the plugin finds the fakes."""
    return build_fakes(tmp_path_factory.mktemp("fakes"))


@pytest.fixture
def fake_libraries(fakes: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the fakes, which are what the plugin finds; they are told nothing."""
    for name in ("FAKE_VDO", "FAKE_AXPARAMETER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in fakes.items():
        monkeypatch.setenv(name, value)
    return Path(os.environ[LIBRARIES_VARIABLE])


@pytest.fixture
def live(fake_libraries: Path) -> Live:
    """How much of a kind is alive in the fake VDO."""
    ffi = FFI()
    ffi.cdef("int fake_vdo_live(const char *kind);")
    library = ffi.dlopen(str(fake_libraries / "libvdostream.so.1"))
    return lambda kind: library.fake_vdo_live(kind.encode())


@pytest.fixture
def nothing_leaks(live: Live) -> Iterator[None]:
    """Whatever a test does, VDO has everything back in the end."""
    open_vdo()
    yield
    assert {kind: live(kind) for kind in KINDS} == dict.fromkeys(KINDS, 0)
