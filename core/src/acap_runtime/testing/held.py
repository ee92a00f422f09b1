"""Measures what a process holds, and checks that it is given back."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SHARED = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_SETTLING_S = 2.0
_POLL_S = 0.02
_OTHERS_NAMES = 9
_WARM_UP = 10
"""One in so many rounds runs before the first measurement, which then includes what is made at the first use."""
_LEAST_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Held:
    """Open files, running threads, resident bytes and the names in /dev/shm, including those of other programs."""

    files: int
    threads: int
    shared: frozenset[str]
    memory: int

    @classmethod
    def now(cls) -> Held:
        """Measure what this process holds, after Python and the C library have freed what they can."""
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory, which would hide a leak
            libc.malloc_trim(0)
        files, threads = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
        shared = frozenset(path.name for path in _SHARED.iterdir()) if _SHARED.is_dir() else frozenset[str]()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(files, threads, shared, pages * os.sysconf("SC_PAGE_SIZE"))

    def check_given_back(self, what: str, rounds: int, growth: int | None = None) -> None:
        """Fail if the process holds more than this after `rounds` rounds of `what`.

        `growth` is the number of bytes of memory that all rounds together may keep. The check waits up to two seconds
        for the rest to be given back: the kernel may end a thread some time after it was joined.
        """
        until = time.monotonic() + _SETTLING_S
        while problems := self._kept(now := self.now(), what, rounds):
            assert time.monotonic() < until, "; ".join(problems)
            time.sleep(_POLL_S)
        if growth is not None:
            grown, allowed = (each / 2**20 for each in (now.memory - self.memory, growth))
            assert grown <= allowed, f"{what} grew the process by {grown:.1f} MiB: expected at most {allowed:.0f}"

    def _kept(self, now: Held, what: str, rounds: int) -> list[str]:
        problems = []
        if now.files > self.files:
            problems.append(f"{what} leave {now.files - self.files} files open")
        if now.threads > self.threads:
            problems.append(f"{what} leave {now.threads - self.threads} threads running")
        left = sorted(now.shared - self.shared)
        # A few new names may belong to another program.
        if len(left) > max(_OTHERS_NAMES, rounds // 2):
            problems.append(f"{what} leave {len(left)} names in {_SHARED}, such as {left[0]}")
        return problems


def check_repeated(action: Callable[[], None], what: str, *, most: int, least: int, seconds: float, growth: int) -> int:
    """Repeat an action and fail if it leaves anything behind. Returns the number of repetitions.

    The action runs `most` times, or as often as `seconds` allow, but at least `least` times. `what` names it in
    messages.
    """
    _repeat(action, most // _WARM_UP, _LEAST_WARM_UP, seconds / _WARM_UP)
    before = Held.now()
    done = _repeat(action, most, least, seconds)
    before.check_given_back(f"{done} {what}", done, growth)
    return done


def _repeat(action: Callable[[], None], most: int, least: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    done = 0
    while done < least or (done < most and time.monotonic() < until):
        action()
        done += 1
    return done
