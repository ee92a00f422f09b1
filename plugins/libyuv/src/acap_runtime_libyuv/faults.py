"""Finds faulty functions in the installed libyuv.

A function that overruns its stack kills its process. Another process therefore tries all functions before this one
calls any.
"""

from __future__ import annotations

import logging
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

import acap_runtime as acap

from acap_runtime_libyuv.conversion import MOVES
from acap_runtime_libyuv.library import library_file, open_library
from acap_runtime_libyuv.trials import Trial, trials

_LOG = logging.getLogger(__name__)
_CHILD: Final = Path(__file__).with_name("trial_child.py")
_ONE_AT_A_TIME: Final = Lock()


def functions_to_avoid() -> frozenset[str]:
    """Return the names of the functions that are faulty here and that `picture.move` can replace.

    Raises `NotReady` if any other function is faulty, or if there is no libyuv.
    """
    with _ONE_AT_A_TIME:
        return _functions_to_avoid()


@cache
def _functions_to_avoid() -> frozenset[str]:
    open_library()
    file = library_file()
    faults = find_faults(file)
    version = file.name.partition(".so.")[2] or "of unknown version"
    for function, fault in faults.items():
        if function not in MOVES:
            raise acap.NotReady(f"libyuv {version}, {file}: {function} {fault}; install another version of libyuv")
        _LOG.warning("libyuv %s, %s: %s %s; numpy does its work", version, file, function, fault)
    return frozenset(faults)


def find_faults(file: Path) -> dict[str, str]:
    """Try every function of a libyuv. Returns the faulty ones, each with the rest of a sentence about its fault."""
    faults: dict[str, str] = {}
    left: Iterable[Trial] = trials()
    while True:
        tried = _try(file, left)
        for number, (trial, fault) in enumerate(tried):
            if fault is not None:
                faults[trial.function] = fault
                # It may have caused the results of later trials in the same process.
                left = [each for each, _ in tried[number:] if each.function != trial.function]
                break
        else:
            return faults


def _try(file: Path, some: Iterable[Trial]) -> list[tuple[Trial, str | None]]:
    """Run trials in one process. Returns each with its fault, or None."""
    command = [sys.executable, "-I", "-S", str(_CHILD), str(file)]
    try:
        with (
            os.fdopen(os.memfd_create("answers"), "w+b") as answers,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=answers, stderr=subprocess.PIPE) as child,  # noqa: S603
        ):
            some = list(some)  # builds the trials while the process starts
            _, words = child.communicate(marshal.dumps([(each.function, each.before, each.arguments) for each in some]))
            answers.seek(0)
            tried = [(trial, answers.read(len(trial.before))) for trial in some]
    except OSError as error:
        raise acap.NotReady(f"{file} cannot be tried: {error}") from None
    if child.returncode > 0:
        reason = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise acap.NotReady(f"{file} cannot be tried: {reason}")
    end = f"kills its process with {signal.Signals(-child.returncode).name}" if child.returncode else "ends its process"
    return [
        (trial, trial.fault(answer) if len(answer) == len(trial.before) else f"{end} at {trial.size} pixels")
        for trial, answer in tried
    ]
