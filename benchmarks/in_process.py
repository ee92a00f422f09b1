"""Measures the chip's own rate: threads call the interpreter in turn, without any server."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from functools import cache, partial
from pathlib import Path
from typing import Any

from acap_runtime.link.malloc import keep_large_buffers
from acap_runtime.proto import PredictRequest
from commands import answer_commands
from interpreter import LockedInterpreter
from timing import measure


def main() -> None:
    keep_large_buffers()
    answer_commands(_run)


_interpreter = cache(LockedInterpreter)


def _run(command: dict[str, Any]) -> dict[str, Any]:
    model = _interpreter(Path(command["model"]))
    request = PredictRequest.FromString(Path(command["request"]).read_bytes())
    (tensor,) = request.inputs.values()
    call = partial(model.run, tensor.tensor_content)
    answer = hashlib.sha256(call().tobytes()).hexdigest()[:16]
    sample = measure([call] * command["clients"], command["seconds"], [os.getpid()], command["interval_s"])
    return {**dataclasses.asdict(sample), "answer": answer}


if __name__ == "__main__":
    main()
