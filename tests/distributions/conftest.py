"""A bare Debian 13, in which what was built is installed."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator

import debian_root
import pytest

NAME = "debian13"
KEPT = debian_root.CACHE / f"{NAME}-with-libyuv"


@pytest.fixture(scope="module")
def root() -> Iterator[debian_root.Root]:
    """A Debian 13 with libyuv, kept from run to run."""
    if problem := debian_root.missing():
        pytest.skip(f"no fresh machine can be made: {problem}")
    debian_root.CACHE.mkdir(parents=True, exist_ok=True)
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not KEPT.exists():
            partial = KEPT.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            debian_root.apt_install(debian_root.unpack(NAME, partial), ["libyuv0"])
            partial.rename(KEPT)
        yield debian_root.Root(KEPT)
