"""The contract passes a chip only if it is right: each fault here must make one of its checks fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.backend import require
from acap_runtime.testing.processing import ProcessingContract
from acap_runtime.testing.reference import Reference
from acap_runtime_libyuv import LibyuvBackend

INTERLEAVED = acap.Conversion(acap.Image("rgb-interleaved", 64, 48), acap.Image("rgb-interleaved", 50, 40))
MOVED = acap.Conversion(acap.Image("rgb-interleaved", 64, 48), acap.Image("rgb-interleaved", 64, 48))


Fault: TypeAlias = Callable[[acap.Array, acap.Array], Any]
"""What becomes of an output, given the input."""


class Contract(ProcessingContract):
    reference = Reference(chroma="halved", enlarging="corners")
    conversions = (INTERLEAVED, MOVED)
    rounds = 100


class Faulty(acap.Model):
    """A right model, and what goes wrong after it."""

    def __init__(self, conversion: acap.Conversion, fault: Fault) -> None:
        self.model = LibyuvBackend("larod").prepare(conversion)
        self.inputs, self.outputs = conversion.inputs, conversion.outputs
        self.fault = fault

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        return {"output": self.fault(inputs["input"], self.model.run(inputs)["output"])}

    def close(self) -> None:
        self.model.close()


class FaultyBackend(LibyuvBackend):
    def __init__(self, fault: Fault) -> None:
        super().__init__("larod")
        self.fault = fault

    def prepare(self, conversion: acap.Conversion) -> acap.Model:
        return Faulty(conversion, self.fault)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda _, output: output[..., ::-1], id="red and blue swapped"),
        pytest.param(lambda _, output: np.roll(output, 1, axis=1), id="a pixel too low"),
        pytest.param(lambda _, output: np.roll(output, -1, axis=2), id="a pixel too far left"),
        pytest.param(lambda _, output: output[:, ::-1], id="upside down"),
        pytest.param(lambda _, output: output // 2 * 2 + 9, id="too bright"),
        pytest.param(lambda _, output: (output / 255 * 219 + 16).astype(np.uint8), id="limited range"),
    ],
)
def test_a_wrong_picture(fault: Fault) -> None:
    with pytest.raises(AssertionError, match="differs by"):
        Contract().test_the_picture_is_right(Faulty(INTERLEAVED, fault), INTERLEAVED)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda _, output: output.astype(np.int16), "dtype int16"),
        (lambda _, output: output[0], r"output \(40, 50, 3\)"),
        (lambda _, output: np.asfortranarray(output), "not C-contiguous"),
        (lambda _, output: output.tolist(), "expected a numpy array"),
    ],
)
def test_a_wrong_form(fault: Fault, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_the_result_has_the_form_of_its_spec(Faulty(INTERLEAVED, fault), INTERLEAVED)


def test_a_channel_swap_of_flat_pictures() -> None:
    with pytest.raises(AssertionError, match="colour"):
        Contract().test_a_flat_picture_keeps_its_colour(Faulty(MOVED, lambda _, output: output[..., ::-1]), MOVED)


def test_one_level_of_one_byte_where_bytes_only_move() -> None:
    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        output[0, -1, -1, -1] ^= 1
        return output

    with pytest.raises(AssertionError, match="Mismatched elements: 1 "):
        Contract().test_bytes_that_are_only_moved_stay_what_they_are(FaultyBackend(fault))


def test_an_input_that_is_written_to() -> None:
    def fault(picture: acap.Array, output: acap.Array) -> acap.Array:
        picture[...] = 0
        return output

    with pytest.raises(ValueError, match="read-only"):
        Contract().test_the_input_may_be_read_only_and_stays_as_it_is(Faulty(MOVED, fault), MOVED)


def test_a_result_that_depends_on_the_last() -> None:
    seen: list[acap.Array] = []

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        seen.append(output)
        return output + np.uint8(len(seen))

    with pytest.raises(AssertionError):
        Contract().test_a_run_leaves_nothing_behind_for_the_next(Faulty(MOVED, fault), MOVED)


def test_a_buffer_that_models_share() -> None:
    shared = np.empty(INTERLEAVED.output.shape, np.uint8)

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        shared[...] = output
        return shared

    with pytest.raises(AssertionError, match="not equal"):
        Contract().test_a_result_lives_on_while_other_models_run(FaultyBackend(fault))


def test_threads_that_disturb_each_other() -> None:
    running: list[int] = []

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        running.append(id(output))
        time.sleep(0.001)
        disturbed = len(running) > 1
        running.remove(id(output))
        return output + np.uint8(disturbed)

    with pytest.raises(AssertionError, match="not equal"):
        Contract().test_models_run_side_by_side(FaultyBackend(fault))


def test_memory_that_is_never_freed() -> None:
    kept: list[acap.Array] = []

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        kept.append(np.ones(2**17, np.uint8))
        return output

    with pytest.raises(AssertionError, match="loads grew the process by"):
        Contract().test_close_gives_everything_back(FaultyBackend(fault))


def test_memory_that_a_run_keeps() -> None:
    kept: list[acap.Array] = []

    class Forgetful(Contract):
        run_rounds = 100

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        kept.append(np.ones(2**17, np.uint8))
        return output

    with pytest.raises(AssertionError, match="100 runs grew the process by"):
        Forgetful().test_running_gives_everything_back(FaultyBackend(fault))


def test_a_file_that_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acap_runtime.testing.held._SETTLING_S", 0.1)
    kept: list[TextIO] = []

    def fault(_: acap.Array, output: acap.Array) -> acap.Array:
        kept.append((tmp_path / "leak").open("w"))
        return output

    with pytest.raises(AssertionError, match=r"loads leave \d+ files open"):
        Contract().test_close_gives_everything_back(FaultyBackend(fault))
    for file in kept:
        file.close()


def test_a_picture_that_is_another_one_when_it_is_served(tmp_path: Path) -> None:
    # The server has the plugin's own backend, without the fault.
    with pytest.raises(AssertionError, match="model0 over a socket"):
        Contract().test_predict_over_a_socket_gives_what_a_direct_run_does(
            FaultyBackend(lambda _, output: output + np.uint8(1)), tmp_path
        )


def test_a_conversion_that_is_not_claimed_but_done() -> None:
    class Modest(Contract):
        scales = False

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Modest().test_what_the_chip_cannot_do_is_refused(LibyuvBackend("larod"))


class AbsentBackend(LibyuvBackend):
    def probe(self) -> None:
        raise acap.NotReady("no such chip here")


def test_a_chip_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACAPRUNTIME_REQUIRE_HARDWARE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="cpu-proc: no such chip here"):
        require(AbsentBackend())
    monkeypatch.setenv("ACAPRUNTIME_REQUIRE_HARDWARE", "1")
    with pytest.raises(pytest.fail.Exception, match="cpu-proc: no such chip here"):
        require(AbsentBackend())


class Uninstalled(LibyuvBackend):
    __module__ = "numpy"


def test_a_plugin_without_an_entry_point() -> None:
    with pytest.raises(AssertionError, match="Is the plugin installed"):
        Contract().test_its_plugin_is_found_by_an_entry_point(Uninstalled())
