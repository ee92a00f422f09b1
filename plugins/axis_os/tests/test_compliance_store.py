from __future__ import annotations

from pathlib import Path

import pytest
from acap_runtime.testing.store import ParameterStoreContract
from acap_runtime_axis_os import AxParameterStore


class TestOfTheDevicesStore(ParameterStoreContract):
    tested_on = "a stand-in for libaxparameter"

    @pytest.fixture
    def store(self, fake_libraries: Path) -> AxParameterStore:
        return AxParameterStore()

    @pytest.fixture
    def known_key(self) -> str:
        return "root.Brand.Brand"
