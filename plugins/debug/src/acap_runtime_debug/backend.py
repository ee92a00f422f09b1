"""Chip 1 of larod's table: no real chip, for trying everything around one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import acap_runtime as acap
import numpy as np

from acap_runtime_debug.faults import misbehave
from acap_runtime_debug.knobs import KNOBS, read_knobs
from acap_runtime_debug.model_file import read_model_file


class DebugBackend(acap.InferenceBackend):
    """Echoes its inputs. Its options are the knobs of a model file, and go before what the file says."""

    chip_id = 1
    name = "debug-device"
    aliases = ("LAROD_CHIP_DEBUG",)
    suffixes = (".toml",)
    options = MappingProxyType({name: knob.meaning for name, knob in KNOBS.items()})

    def probe(self) -> None:
        """Always succeed: nothing can be missing."""

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        inputs, knobs = read_model_file(path)
        knobs |= read_knobs(options)
        time.sleep(knobs.get("load_delay", 0.0))
        misbehave(knobs, "load")
        return DebugModel(inputs, knobs)


class DebugModel(acap.Model):
    """Returns every input under its own name."""

    def __init__(self, inputs: tuple[acap.TensorSpec, ...], knobs: Mapping[str, Any]) -> None:
        self._knobs = knobs
        self._big = np.zeros(knobs.get("big_output", 0), np.uint8)
        self.inputs = inputs
        self.outputs = inputs
        if "big_output" in knobs:
            if any(spec.name == "big" for spec in inputs):
                raise acap.InvalidRequest("big_output: expected no input named 'big', which is the output's own name")
            self.outputs = (*inputs, acap.TensorSpec("big", self._big.dtype, self._big.shape))

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        outputs = dict(inputs)
        if "big_output" in self._knobs:
            outputs["big"] = self._big
        if self._triggered(inputs[self.inputs[0].name]):
            time.sleep(self._knobs.get("delay", 0.0))
            misbehave(self._knobs, "run")
            self._spoil(outputs)
        return outputs

    def _triggered(self, first_input: acap.Array) -> bool:
        wanted = self._knobs.get("trigger")
        return wanted is None or first_input.reshape(-1)[:1].tobytes()[:1] == bytes([wanted])

    def _spoil(self, outputs: dict[str, acap.Array]) -> None:
        name = self.outputs[0].name
        match self._knobs.get("wrong_output"):
            case "name":
                outputs[f"not {name}"] = outputs.pop(name)
            case "dtype":
                outputs[name] = outputs[name].astype(np.uint8 if outputs[name].dtype != np.uint8 else np.int16)
            case "shape":
                outputs[name] = outputs[name][np.newaxis]

    def close(self) -> None:
        del self._big
