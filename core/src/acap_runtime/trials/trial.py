"""A model on a chip without a server: loaded in a worker process of its own, run on arrays, and unloaded again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import numpy as np

from acap_runtime.chips.calls import inputs_of
from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.supervisor import Worker, WorkerLimits
from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.errors import InvalidRequest
from acap_runtime.plugins.installed import InstalledChip
from acap_runtime.settings.model_source import ModelSource


@dataclass(frozen=True, slots=True)
class Trial:
    """A model that a chip has loaded."""

    chip: InstalledChip
    model: RemoteModel
    limits: WorkerLimits

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.model.outputs

    async def run(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
        """Return every output by its name, and the seconds that the chip took. Raises as `RemoteModel.run` does."""
        answer = await self.model.run(inputs_of(inputs), (), time.monotonic() + self.limits.run_timeout_s)
        outputs: dict[str, Array] = {
            output.name: np.frombuffer(output.content, output.dtype).reshape(output.shape) for output in answer.outputs
        }
        return outputs, answer.run_s


@contextlib.asynccontextmanager
async def loaded(chip: InstalledChip, source: ModelSource, limits: WorkerLimits) -> AsyncIterator[Trial]:
    """Start a chip's process and load a model in it, until the context ends.

    Raises the errors of the chip's probe and of its plugin, `InvalidRequest` for an option that the chip does not have
    or a file that does not exist.
    """
    if unknown := sorted(set(source.options) - set(chip.backend.options)):
        known = ", ".join(sorted(chip.backend.options)) or "none"
        raise InvalidRequest(f"{chip} has no option {unknown[0]}; expected one of: {known}")
    if not source.path.is_file():
        raise InvalidRequest(f"{source.path}: expected a model file, found none")
    worker = Worker(chip, limits)
    try:
        await worker.start()
        model = RemoteModel(source.name, source.path, source.options, 1, CallQueue(1))
        await worker.load(model)
        yield Trial(chip, model, limits)
    finally:
        await worker.stop()
