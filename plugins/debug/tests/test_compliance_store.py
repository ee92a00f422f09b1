from __future__ import annotations

import pytest
from acap_runtime.testing.store import ParameterStoreContract
from acap_runtime_debug import DebugStore


class TestOfTheStore(ParameterStoreContract):
    @pytest.fixture
    def store(self) -> DebugStore:
        return DebugStore()

    @pytest.fixture
    def known_key(self) -> str:
        return "root.Brand.Brand"
