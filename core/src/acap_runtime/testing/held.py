"""What a process holds on to, and whether it gives that back."""

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
"""The share of the rounds that go before the first look: what is made at the first use is there then."""
_LEAST_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Held:
    """Open files, running threads, resident bytes, and the names in /dev/shm, where other programs have theirs too."""

    files: int
    threads: int
    shared: frozenset[str]
    memory: int

    @classmethod
    def now(cls) -> Held:
        """What this process holds, once Python and the C library have freed what they can."""
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps what was freed, and a leak would hide in it
            libc.malloc_trim(0)
        files, threads = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
        shared = frozenset(path.name for path in _SHARED.iterdir()) if _SHARED.is_dir() else frozenset[str]()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(files, threads, shared, pages * os.sysconf("SC_PAGE_SIZE"))

    def check_given_back(self, what: str, rounds: int, growth: int | None = None) -> None:
        """Fail where more is held than this, after so many rounds of `what`; `growth` is how many bytes of memory all
        of them together may keep.

        It waits up to two seconds for it: the kernel takes its time to end a thread that was joined.
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
        # Fewer may be what another program has made in the meantime.
        if len(left) > max(_OTHERS_NAMES, rounds // 2):
            problems.append(f"{what} leave {len(left)} names in {_SHARED}, such as {left[0]}")
        return problems


def check_repeated(action: Callable[[], None], what: str, *, most: int, least: int, seconds: float, growth: int) -> int:
    """Do something `most` times, or as often as `seconds` allow but `least` times, and fail where it leaves anything
    behind. Gives how often it was done; `what` names it in messages.
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
