"""What a model runs before it counts as loaded, so that no client has to wait for a first run's preparations."""

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
    """A call for each picture or array (.npy); of zeros where `files` is None.

    What it returns raises `InvalidRequest` for a file that does not fit the model, `NotReady` for pictures without
    Pillow.
    """

    async def calls(specs: Sequence[TensorSpec]) -> list[Sequence[Input]]:
        if files is None:
            return [inputs_of(zeros(specs))]
        try:
            return [inputs_of(await asyncio.to_thread(input_from, path, specs, Scaling())) for path in files]
        except AcapError as error:
            raise type(error)(f"warm_up: {error}") from None

    return calls
