import os
import shutil
from collections.abc import Callable
from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime_tpu import fake

MODELS = Path(os.environ.get("ACAP_TEST_MODELS", Path(__file__).parents[4] / "shared" / "models"))


@pytest.fixture
def models() -> Path:
    if not MODELS.is_dir():
        pytest.skip(f"no test models in {MODELS}: name their directory in ACAP_TEST_MODELS")
    return MODELS


@pytest.fixture
def compiled(models: Path) -> Path:
    """A model that was compiled for the Edge TPU."""
    return models / "mobilenet_v2_1.0_224_quant_edgetpu.tflite"


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build the stand-in for libedgetpu with")
    library = tmp_path_factory.mktemp("fake") / "libedgetpu.so.1"
    fake.build(library)
    return library


@pytest.fixture
def edgetpu(fake_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Make the stand-in the libedgetpu of this process and those it starts; gives the file that it logs to."""

    def be(devices: str = "usb", fault: str = "") -> Path:
        log = tmp_path / "edgetpu.log"
        monkeypatch.setenv("ACAPRUNTIME_LIBEDGETPU", str(fake_library))
        monkeypatch.setenv("FAKE_EDGETPU_DEVICES", devices)
        monkeypatch.setenv("FAKE_EDGETPU_FAULT", fault)
        monkeypatch.setenv("FAKE_EDGETPU_LOG", str(log))
        return log

    return be


@pytest.fixture
def no_edgetpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has, a test begins without it."""
    monkeypatch.setenv("ACAPRUNTIME_LIBEDGETPU", "libedgetpu.so.none")


@pytest.fixture
def larod(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[object, ...]]]:
    """Put a larod in the place of the real one, ready or with a reason why not; gives the list of what it is asked."""

    def be(model: acap.Model | None = None, reason: str = "no larod here") -> list[tuple[object, ...]]:
        asked: list[tuple[object, ...]] = []

        def probe(*arguments: object) -> None:
            asked.append(("probe", *arguments))
            if model is None:
                raise acap.NotReady(reason)

        def load_model(*arguments: object) -> acap.Model | None:
            asked.append(("load_model", *arguments))
            return model

        monkeypatch.setattr("acap_runtime_larod.probe", probe)
        monkeypatch.setattr("acap_runtime_larod.load_model", load_model)
        return asked

    return be
