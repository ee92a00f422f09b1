"""Makes the calls that warm a model up before it counts as loaded, so that no client waits for a slow first run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from acap_runtime.chips.calls import Input, inputs_of
from acap_runtime.chips.remote_model import WarmUp
from acap_runtime.contract.backend import TensorSpec
from acap_runtime.contract.example_inputs import zeros
from acap_runtime.errors import AcapError
from acap_runtime.trials.samples import Scaling, input_from


def warm_up_with(files: Sequence[Path] | None) -> WarmUp:
    """Return a function that makes a call for each picture or array (.npy), or one call of zeros if `files` is None.

    The function raises `InvalidRequest` for a file that does not fit the model, `NotReady` for a picture if Pillow is
    not installed.
    """

    async def calls(specs: Sequence[TensorSpec]) -> list[Sequence[Input]]:
        if files is None:
            return [inputs_of(zeros(specs))]
        try:
            return [inputs_of(await asyncio.to_thread(input_from, path, specs, Scaling())) for path in files]
        except AcapError as error:
            raise type(error)(f"warm_up: {error}") from None

    return calls
