import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime_larod.fake import FakeLarod, build_fake


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_fake(tmp_path_factory.mktemp("larod"))
    except acap.NotReady as reason:
        pytest.skip(str(reason))


@pytest.fixture(autouse=True)
def larod(fake_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLarod]:
    """The stand-in in place of larod; a test that leaves anything behind in it fails."""
    fake = FakeLarod(tmp_path, fake_library)
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    files = open_files()
    yield fake
    assert fake.leaks() == {}
    gc.collect()  # arrays that a test kept
    assert open_files() <= files


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model file of the stand-in, a line per tensor."""
    return lambda *tensors: FakeLarod.write_model(tmp_path / "model", tensors)
