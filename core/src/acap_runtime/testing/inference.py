"""The rules that every inference backend must follow."""

from __future__ import annotations

import mmap
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import acap_runtime as acap
from acap_runtime.testing.backend import BackendContract
from acap_runtime.testing.contract import Kind
from acap_runtime.testing.serving import ServedModel

_LOAD_A_BAD_FILE = """
import json, sys
from importlib.metadata import entry_points
from pathlib import Path

import acap_runtime as acap
from acap_runtime.contract.hookspecs import PROJECT
from acap_runtime.plugins.installed import load_plugin

package, name, path, options = sys.argv[1:]
points = [point for point in entry_points(group=PROJECT) if point.module.partition(".")[0] == package]
backends = [backend for point in points for backend in load_plugin(point.value).backends]
backend = next(backend for backend in backends if backend.name == name)
try:
    backend.load(Path(path), json.loads(options)).close()
except (acap.InvalidRequest, acap.DeviceError) as error:
    print("refused:", error)
else:
    print("loaded")
"""


class InferenceContract(BackendContract):
    """Checks of a chip that runs models from files.

        class TestDoubler(InferenceContract):
            @pytest.fixture
            def backend(self):
                return Doubler()

            @pytest.fixture
            def model_path(self):
                return Path(__file__).with_name("small.model")

    A subclass declares with a capability what its chip cannot do. It overrides `sample_inputs` if random numbers make
    no sense to the model.
    """

    kind: ClassVar[Kind] = "inference"
    capabilities: ClassVar[tuple[str, ...]] = ("survives_bad_models", "needs_whole_files")
    tolerance: ClassVar[float] = 0.0
    """The largest difference of two answers to the same inputs. With 0 they must be the same bytes."""
    survives_bad_models: ClassVar[bool] = True
    """False for a driver that crashes on some files that are not models."""
    needs_whole_files: ClassVar[bool] = True
    """False if an empty file or the first half of a model can be a model too."""
    free_text_options: ClassVar[frozenset[str]] = frozenset()
    """Options for which every text is a value."""
    reload_rounds: ClassVar[int] = 1000
    """The number of times a model is loaded, run and closed for the check that everything is given back."""
    reload_growth: ClassVar[int] = 16 * 2**20
    """Bytes of memory that all loads together may keep, or all runs."""
    _model_is_closed = False

    def shows(self, check: str, arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        del arguments
        if check == "test_a_file_that_is_no_model_is_refused":
            yield from (("capabilities", name) for name in self.capabilities if getattr(self, name))

    @pytest.fixture
    def backend(self) -> acap.InferenceBackend:
        """Override this: return a new backend."""
        raise NotImplementedError("give the subclass a `backend` fixture")

    @pytest.fixture
    def model_path(self) -> Path:
        """Override this: return a small model that takes zeros, and either any numbers or `sample_inputs`."""
        raise NotImplementedError("give the subclass a `model_path` fixture")

    @pytest.fixture
    def bad_model_path(self) -> Path | None:
        """Return a file that looks like a model and is none, in addition to those that the checks make."""
        return None

    @pytest.fixture
    def options(self) -> Mapping[str, str]:
        """Return load options for `model_path`."""
        return {}

    @pytest.fixture
    def model(
        self, backend: acap.InferenceBackend, model_path: Path, options: Mapping[str, str], ready: None
    ) -> Iterator[acap.Model]:
        del ready
        model = backend.load(model_path, options)
        yield model
        if not self._model_is_closed:
            model.close()

    @pytest.fixture
    def sample_inputs(self, model: acap.Model) -> Mapping[str, acap.Array]:
        """Return inputs with some content."""
        return {spec.name: _random(spec, seed) for seed, spec in enumerate(model.inputs)}

    @pytest.fixture
    def expected(self) -> Mapping[str, acap.Array] | None:
        """Return the model's outputs for `sample_inputs`, exact to `tolerance`."""
        return None

    def test_its_tensors_are_well_described(self, model: acap.Model) -> None:
        for side, specs in (("inputs", model.inputs), ("outputs", model.outputs)):
            assert isinstance(specs, tuple), f"{side} {specs!r}: expected a tuple"
            assert specs, f"{side}: expected at least one"
            names = [spec.name for spec in specs]
            assert all(isinstance(name, str) and name for name in names), f"names of {side} {names}: one is empty"
            assert len(set(names)) == len(names), f"names of {side} {names}: one is given twice"
            for spec in specs:
                assert isinstance(spec.dtype, np.dtype), f"{spec.name}: dtype {spec.dtype!r}: expected a numpy.dtype"
                assert spec.dtype.kind in "biufc", f"{spec.name}: dtype {spec.dtype}: expected numbers"
                assert all(type(size) is int for size in spec.shape), f"{spec.name}: shape {spec.shape}: expected ints"
                assert all(size >= -1 for size in spec.shape), f"{spec.name}: shape {spec.shape}: expected -1 or a size"
                _check_quantisation(spec)

    def test_zeros_give_the_declared_outputs(self, model: acap.Model) -> None:
        _check_declared(model, model.run(_zeros(model)))

    def test_numbers_give_the_declared_outputs(
        self, model: acap.Model, sample_inputs: Mapping[str, acap.Array]
    ) -> None:
        _check_declared(model, model.run(_read_only(sample_inputs)))

    def test_the_sample_gives_what_is_expected(
        self,
        model: acap.Model,
        sample_inputs: Mapping[str, acap.Array],
        expected: Mapping[str, acap.Array] | None,
    ) -> None:
        if expected is None:
            pytest.skip("the subclass has no `expected` fixture")
        self._check_same(model.run(_read_only(sample_inputs)), expected)

    def test_inputs_are_left_as_they_are(self, model: acap.Model, sample_inputs: Mapping[str, acap.Array]) -> None:
        inputs = _read_only(sample_inputs)
        model.run(inputs)
        for name, array in inputs.items():
            assert array.tobytes() == sample_inputs[name].tobytes(), f"input {name} was changed"

    def test_the_same_inputs_give_the_same_answer(
        self, model: acap.Model, sample_inputs: Mapping[str, acap.Array]
    ) -> None:
        first = _copy(model.run(_read_only(sample_inputs)))
        model.run(_zeros(model))
        self._check_same(model.run(_read_only(sample_inputs)), first)

    def test_the_memory_of_inputs_can_be_taken_away_after_a_run(
        self, model: acap.Model, sample_inputs: Mapping[str, acap.Array]
    ) -> None:
        memories = {name: mmap.mmap(-1, max(1, array.nbytes)) for name, array in sample_inputs.items()}
        inputs = {}
        for name, array in sample_inputs.items():
            memories[name][: array.nbytes] = array.tobytes()
            # Not numpy.ndarray(buffer=…), which lets the memory be closed while an array of it is still held.
            content = np.frombuffer(memories[name], np.uint8)[: array.nbytes]
            content.flags.writeable = False
            inputs[name] = content.view(array.dtype).reshape(array.shape)
        answer = _copy(model.run(inputs))
        del content
        inputs.clear()
        for name, memory in memories.items():
            try:
                memory.close()
            except BufferError:
                pytest.fail(f"input {name} was kept after run")
        self._check_same(model.run(_read_only(sample_inputs)), answer)

    def test_two_models_in_two_threads_answer_as_one_alone_does(
        self,
        backend: acap.InferenceBackend,
        model: acap.Model,
        model_path: Path,
        options: Mapping[str, str],
        sample_inputs: Mapping[str, acap.Array],
    ) -> None:
        alternatives = (_read_only(sample_inputs), _zeros(model))
        alone = [_copy(model.run(inputs)) for inputs in alternatives]
        together = threading.Barrier(2, timeout=60)
        problems: list[BaseException] = []

        def answer_ten_times(mine: int) -> None:
            try:
                other = backend.load(model_path, options)
                try:
                    together.wait()
                    for _ in range(10):
                        self._check_same(other.run(alternatives[mine]), alone[mine])
                finally:
                    other.close()
            except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
                problems.append(error)
                together.abort()

        threads = [threading.Thread(target=answer_ten_times, args=(mine,)) for mine in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    @pytest.mark.usefixtures("ready")
    @pytest.mark.parametrize("content", ["nothing", "text", "random bytes", "half a model", "the bad model"])
    def test_a_file_that_is_no_model_is_refused(
        self,
        backend: acap.InferenceBackend,
        content: str,
        model_path: Path,
        bad_model_path: Path | None,
        tmp_path: Path,
    ) -> None:
        bad = tmp_path / model_path.name
        match content:
            case "nothing":
                bad.write_bytes(b"")
            case "text":
                bad.write_text("This file is no model.\n")
            case "random bytes":
                bad.write_bytes(random.Random(1).randbytes(20_000))  # noqa: S311  # the same on every run
            case "half a model":
                bad.write_bytes(model_path.read_bytes()[: model_path.stat().st_size // 2])
            case _ if bad_model_path is None:
                pytest.skip("the subclass has no `bad_model_path` fixture")
            case _:
                bad = bad_model_path
        package = type(backend).__module__.partition(".")[0]
        command = [sys.executable, "-c", _LOAD_A_BAD_FILE, package, backend.name, str(bad), "{}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode < 0:
            crash = f"{backend.name} ends with {signal.Signals(-done.returncode).name} on a file with {content}"
            if not self.survives_bad_models:
                pytest.xfail(crash)
            pytest.fail(f"{crash}: if the driver cannot be kept from it, say survives_bad_models = False")
        assert done.returncode == 0, f"expected InvalidRequest or DeviceError:\n{done.stderr}"
        may_be_a_model = not self.needs_whole_files and content in ("nothing", "half a model")
        assert done.stdout.startswith("refused:") or may_be_a_model, f"a file with {content} was loaded as a model"

    @pytest.mark.usefixtures("ready")
    def test_a_value_that_does_not_parse_is_refused_for_each_option(
        self, backend: acap.InferenceBackend, model_path: Path, options: Mapping[str, str]
    ) -> None:
        for option in backend.options.keys() - self.free_text_options:
            for value in ("", "no such value", "-1e999"):
                refusal = _refusal(backend, model_path, {**options, option: value})
                assert refusal, f"option {option}={value!r} was taken: name it in free_text_options if every text is"
                assert option in refusal, f"the message does not name option {option}: {refusal}"

    @pytest.mark.usefixtures("ready")
    def test_closing_gives_everything_back(
        self,
        backend: acap.InferenceBackend,
        model_path: Path,
        options: Mapping[str, str],
        sample_inputs: Mapping[str, acap.Array],
    ) -> None:
        inputs = _read_only(sample_inputs)

        def load_run_and_close() -> None:
            model = backend.load(model_path, options)
            model.run(inputs)
            model.close()

        self._check_given_back(load_run_and_close, "loads", self.reload_rounds)

    def test_running_gives_everything_back(self, model: acap.Model, sample_inputs: Mapping[str, acap.Array]) -> None:
        inputs = _read_only(sample_inputs)

        def run() -> None:
            model.run(inputs)

        self._check_given_back(run, "runs", self.run_rounds)

    def test_predict_over_a_socket_gives_what_a_direct_run_does(
        self,
        backend: acap.InferenceBackend,
        model: acap.Model,
        model_path: Path,
        options: Mapping[str, str],
        sample_inputs: Mapping[str, acap.Array],
    ) -> None:
        direct = _copy(model.run(_read_only(sample_inputs)))
        # Only one process at a time can open some devices.
        self._model_is_closed = True
        model.close()
        served = ServedModel("served", model_path, sample_inputs, options)
        self._check_same(self._predict_over_a_socket(backend, [served])["served"], direct)

    def _check_same(
        self, got: Mapping[str, acap.Array], expected: Mapping[str, acap.Array], tolerance: float | None = None
    ) -> None:
        allowed = self.tolerance if tolerance is None else tolerance
        assert got.keys() == expected.keys(), f"outputs {sorted(got)}: expected {sorted(expected)}"
        for name, array in expected.items():
            assert got[name].dtype == array.dtype, f"output {name}: {got[name].dtype}, expected {array.dtype}"
            assert got[name].shape == array.shape, f"output {name}: {got[name].shape}, expected {array.shape}"
            if allowed:
                np.testing.assert_allclose(got[name], array, rtol=0, atol=allowed, err_msg=f"output {name}")
            else:
                np.testing.assert_array_equal(got[name], array, err_msg=f"output {name}")


def _refusal(backend: acap.InferenceBackend, path: Path, options: Mapping[str, str]) -> str | None:
    try:
        backend.load(path, options).close()
    except acap.InvalidRequest as refusal:
        return str(refusal)
    return None


def _check_quantisation(spec: acap.TensorSpec) -> None:
    if spec.quantisation is None:
        return
    scales, zero_points = spec.quantisation.scales, spec.quantisation.zero_points
    assert len(scales) == len(zero_points) > 0, f"{spec.name}: {len(scales)} scales and {len(zero_points)} zero points"
    if len(scales) > 1:
        assert spec.quantisation.axis in range(len(spec.shape)), f"{spec.name}: no axis {spec.quantisation.axis}"
        slices = spec.shape[spec.quantisation.axis]
        assert slices in (-1, len(scales)), f"{spec.name}: {len(scales)} scales for {slices} slices"


def _check_declared(model: acap.Model, outputs: Mapping[str, acap.Array]) -> None:
    declared = {spec.name: spec for spec in model.outputs}
    assert outputs.keys() == declared.keys(), f"outputs {sorted(outputs)}: expected {sorted(declared)}"
    for name, spec in declared.items():
        array = outputs[name]
        assert isinstance(array, np.ndarray), f"output {name}: expected an array, got {type(array)}"
        assert array.dtype == spec.dtype, f"output {name}: {array.dtype}, declared as {spec}"
        assert spec.accepts(array.shape), f"output {name}: shape {array.shape}, declared as {spec}"


def _zeros(model: acap.Model) -> dict[str, acap.Array]:
    return _read_only({spec.name: np.zeros(_shape(spec, 1), spec.dtype) for spec in model.inputs})


def _random(spec: acap.TensorSpec, seed: int) -> acap.Array:
    generator = np.random.default_rng(seed)
    shape = _shape(spec, 2)
    if spec.dtype.kind in "fc":
        return generator.random(shape).astype(spec.dtype)
    highest = np.iinfo(spec.dtype).max if spec.dtype.itemsize == 1 and spec.dtype.kind != "b" else 1
    return generator.integers(0, highest, shape, endpoint=True).astype(spec.dtype)


def _shape(spec: acap.TensorSpec, open_size: int) -> tuple[int, ...]:
    return tuple(open_size if size == -1 else size for size in spec.shape)


def _copy(arrays: Mapping[str, acap.Array]) -> dict[str, acap.Array]:
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def _read_only(arrays: Mapping[str, acap.Array]) -> dict[str, acap.Array]:
    return _read_only_views(_copy(arrays))


def _read_only_views(arrays: Mapping[str, acap.Array]) -> dict[str, acap.Array]:
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
