from collections.abc import Iterator
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
    yield fake
    assert fake.leaks() == {}
