"""What tests of several services do with calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

SOON_S = 5.0


def code_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """The status of a call that has to fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


def soon(condition: Callable[[], object], within_s: float = SOON_S) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
