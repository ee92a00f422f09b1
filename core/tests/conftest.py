"""What tests of the compliance kit share."""

from __future__ import annotations

import pytest


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit does not wait long for what a test never gives back."""
    monkeypatch.setattr("acap_runtime.testing.held._SETTLING_S", 0.1)
