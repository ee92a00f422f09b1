"""``acapruntime verify``: a model on one chip against another, and chips that give garbage without an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acap_runtime.cli.verify.recording import Recording, read, save
from acap_runtime.cli.verify.verification import Limits, Outputs, compare, flaws
from acap_runtime.contract.backend import Array, Quantisation, TensorSpec
from acap_runtime.contract.example_inputs import dequantised
from acap_runtime.errors import InvalidRequest
from acap_runtime.trials.samples import Scaling, inputs_from, random_inputs
from surprises import surprises

COMMAND = Path(sys.executable).with_name("acapruntime")
LIMITS = Limits()


def outputs(where: str, *runs: Any, dtype: str = "float32", quantisation: Quantisation | None = None) -> Outputs:
    arrays = [np.array(run, dtype) for run in runs]
    spec = TensorSpec("scores", np.dtype(dtype), arrays[0].shape, quantisation)
    return Outputs(where, (spec,), tuple({"scores": array} for array in arrays))


class TestComparison:
    def test_equal_outputs_are_equal(self) -> None:
        one = outputs("a", [[1, 2, 3]], [[3, 2, 1]])
        (found,) = compare(one, one, LIMITS)
        assert (found.max_difference, found.mean_difference, found.top1, found.problems) == (0, 0, 1, ())
        assert found.cosine == pytest.approx(1)

    def test_differences_are_over_all_runs_and_the_worst_cosine_counts(self) -> None:
        one, other = outputs("a", [[1, 0]], [[2, 0]]), outputs("b", [[1, 0]], [[0, 2]])
        (found,) = compare(one, other, LIMITS)
        assert (found.max_difference, found.mean_difference) == (2, 1)
        assert (found.cosine, found.worst_cosine, found.top1) == (0.5, 0, 0.5)
        assert found.problems == ("cosine 0.0000 is below 0.99", "top-1 agreement 0.50 is below 0.9")

    def test_quantised_outputs_are_compared_in_real_numbers(self) -> None:
        fine = outputs("a", [[10, 20, 30]], dtype="uint8", quantisation=Quantisation((0.1,), (10,)))
        real = outputs("b", [[0, 1, 2]])
        (found,) = compare(fine, real, LIMITS)
        assert found.max_difference == pytest.approx(0)
        assert not found.problems

    def test_quantisation_may_be_by_slices(self) -> None:
        spec = TensorSpec("x", np.dtype("int8"), (1, 2), Quantisation((0.5, 2.0), (0, 1), axis=1))
        assert dequantised(np.array([[4, 4]], np.int8), spec).tolist() == [[2, 6]]

    def test_the_difference_has_a_limit_where_one_is_given(self) -> None:
        one, other = outputs("a", [[100, 1]]), outputs("b", [[101, 1]])
        assert not compare(one, other, LIMITS)[0].problems
        (problem,) = compare(one, other, Limits(difference=0.5))[0].problems
        assert problem == "difference 1 is above 0.5"

    @pytest.mark.parametrize(("best", "agreed"), [([[5, 5, 1]], 1), ([[1, 5, 5]], 1), ([[1, 2, 5]], 0)])
    def test_equal_bests_agree_with_each_of_them(self, best: Any, agreed: float) -> None:
        assert compare(outputs("a", [[1, 9, 3]]), outputs("b", best), LIMITS)[0].top1 == agreed

    @pytest.mark.parametrize("run", [[[[1, 2], [3, 4]]], [5], [[7]]])
    def test_only_a_list_of_classes_has_a_best(self, run: Any) -> None:
        assert compare(outputs("a", run), outputs("b", run), LIMITS)[0].top1 is None

    @pytest.mark.parametrize(
        ("garbage", "said"),
        [
            ([[[0, 0, 0]], [[0, 0, 0]]], "b: gives nothing but zeros"),
            ([[[4, 4, 4]], [[5, 5, 5]]], "b: gives one number for all elements"),
            ([[[4, 5, 6]], [[4, 5, 6]]], "b: gives the same whatever the inputs"),
            ([[[4, 5, np.nan]], [[4, 5, 6]]], "b: gives numbers that are not finite"),
            ([[[4, 5, np.inf]], [[4, 5, 6]]], "b: gives numbers that are not finite"),
        ],
    )
    @pytest.mark.parametrize("first", [True, False])
    def test_garbage_of_one_chip_is_said(self, garbage: Sequence[Any], said: str, first: bool) -> None:
        right, wrong = outputs("a", [[1, 2, 3]], [[9, 2, 1]]), outputs("b", *garbage)
        pair = (wrong, right) if first else (right, wrong)
        assert said in compare(*pair, Limits(cosine=-1, top1=0))[0].problems

    def test_what_is_constant_on_both_is_the_models(self) -> None:
        one = outputs("a", [[0, 0, 0]], [[0, 0, 0]])
        (found,) = compare(one, outputs("b", [[0, 0, 0]], [[0, 0, 0]]), LIMITS)
        assert (found.problems, found.cosine) == ((), 1)

    def test_what_is_not_finite_on_both_is_equal_to_nothing(self) -> None:
        one = outputs("a", [[np.nan, 1]])
        assert compare(one, one, LIMITS)[0].problems

    def test_other_names_and_shapes_are_said(self) -> None:
        one, named = outputs("a", [[1, 2]]), outputs("b", [[1, 2]])
        renamed = Outputs("b", (TensorSpec("other", np.dtype("f4"), (1, 2)),), ({"other": named.runs[0]["scores"]},))
        with pytest.raises(InvalidRequest, match="a gives scores; b gives other"):
            compare(one, renamed, LIMITS)
        with pytest.raises(InvalidRequest, match=r"'scores' of run 0 .* a gives shape \[1, 2\], b \[1, 3\]"):
            compare(one, outputs("b", [[1, 2, 3]]), LIMITS)

    def test_complex_and_bool_outputs_can_be_compared(self) -> None:
        for dtype in ("complex64", "bool"):
            one = outputs("a", [[1, 0, 1]], dtype=dtype)
            assert not compare(one, one, LIMITS)[0].problems

    def test_one_run_that_is_constant_in_itself_is_no_constant_output(self) -> None:
        assert flaws([np.array([1.0, 2.0])]) == []
        assert flaws([np.array([3.0])]) == []


class TestRecordings:
    def test_what_is_saved_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "r.npz"
        spec = TensorSpec("a/b:0", np.dtype("int8"), (1, -1), Quantisation((0.5,), (3,)))
        runs = tuple({"a/b:0": np.arange(n, dtype="int8")[None]} for n in (2, 5))
        inputs: tuple[Mapping[str, Array], ...] = ({"x": np.zeros(3, "f4")}, {"x": np.ones(3, "f4")})
        save(path, Recording("somewhere", inputs, Outputs("chip", (spec,), runs)))
        found = read(path)
        assert (found.source, found.outputs.where, found.outputs.specs) == ("somewhere", "chip (recorded)", (spec,))
        for wanted, got in ((inputs, found.inputs), (runs, found.outputs.runs)):
            for one, other in zip(wanted, got, strict=True):
                assert one.keys() == other.keys()
                for name, array in one.items():
                    np.testing.assert_array_equal(array, other[name], strict=True)

    @pytest.mark.parametrize("content", ["nothing", "text", "zip", "array", "other"])
    def test_what_is_no_recording_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "r.npz"
        match content:
            case "nothing":
                path.touch()
            case "text":
                path.write_text("no archive")
            case "zip":
                path.write_bytes(b"PK\3\4" + bytes(50))
            case "array":
                with path.open("wb") as file:
                    np.save(file, np.zeros(3))
            case "other":
                np.savez(path, scores=np.zeros(3))
        with pytest.raises(InvalidRequest, match="expected a file that acapruntime verify --record wrote"):
            read(path)


class TestInputs:
    def test_random_ones_are_those_of_their_seed_and_use_all_values_of_bytes(self) -> None:
        specs = [TensorSpec("a", np.dtype("uint8"), (1, 100, -1, 3)), TensorSpec("b", np.dtype("float16"), (1, 2))]
        one, other, third = random_inputs(specs, 2, 0), random_inputs(specs, 2, 0), random_inputs(specs, 2, 1)
        assert one[0]["a"].shape == (1, 100, 1, 3)
        assert np.array_equal(one[1]["a"], other[1]["a"])
        assert not np.array_equal(one[0]["a"], one[1]["a"])
        assert not np.array_equal(one[0]["a"], third[0]["a"])
        assert one[0]["a"].min() < 9
        assert one[0]["a"].max() > 246
        assert one[0]["b"].dtype == np.float16

    @pytest.mark.parametrize(("dtype", "highest"), [("int32", 1), ("bool", 1), ("int64", 1)])
    def test_integers_that_may_be_indices_stay_small(self, dtype: str, highest: int) -> None:
        (inputs,) = random_inputs([TensorSpec("a", np.dtype(dtype), (50,))], 1, 0)
        assert set(np.unique(inputs["a"])) == {0, highest}

    def test_pictures_become_what_the_input_takes(self, tmp_path: Path) -> None:
        from PIL import Image

        Image.new("RGB", (20, 10), (255, 0, 51)).save(tmp_path / "a.ppm")
        for dtype, shape, first in (
            ("uint8", (1, 4, 6, 3), [255, 0, 51]),
            ("int8", (1, 4, 6, 3), [127, -128, -77]),
            ("float32", (1, 4, 6, 3), [1.0, 0.0, 0.2]),
        ):
            spec = TensorSpec("x", np.dtype(dtype), shape)
            (inputs,), said = inputs_from(tmp_path, [spec], Scaling())
            assert inputs["x"].shape == shape
            assert inputs["x"][0, 0, 0].tolist() == pytest.approx(first)
            assert said == f"1 files of {tmp_path}"
        planar = TensorSpec("x", np.dtype("float32"), (1, 3, 4, 6))
        (inputs,), _ = inputs_from(tmp_path, [planar], Scaling(127.5, 127.5))
        assert inputs["x"][0, :, 0, 0].tolist() == pytest.approx([1, -1, -0.6])

    def test_arrays_are_taken_as_they_are_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        for name, value in (("b", 2), ("a", 1)):
            np.save(tmp_path / f"{name}.npy", np.full((2,), value, np.int32))
        inputs, _ = inputs_from(tmp_path, [TensorSpec("x", np.dtype("int32"), (1, 2))], Scaling())
        assert [each["x"].tolist() for each in inputs] == [[[1, 1]], [[2, 2]]]

    @pytest.mark.parametrize(
        ("files", "specs", "said"),
        [
            ([], [TensorSpec("x", np.dtype("u1"), (1, 4, 4, 3))], "found none"),
            (["a.png"], [TensorSpec("x", np.dtype("u1"), (1, 4, 4, 3))], "expected a picture"),
            (["a.npy"], [TensorSpec("x", np.dtype("u1"), (1, 4, 4, 3))], "expected an array"),
            (
                ["a.png"],
                [TensorSpec("x", np.dtype("u1"), (1, 7))],
                r"expected a model that takes a picture.*uint8 \[1, 7\]",
            ),
            (["a.png"], [TensorSpec("x", np.dtype("u1"), (1, -1, -1, 3))], "pictures of one size"),
            (["a.png"], [], "a model with one input, this has 0"),
        ],
    )
    def test_what_does_not_fit_is_said(
        self, tmp_path: Path, files: Sequence[str], specs: Sequence[TensorSpec], said: str
    ) -> None:
        for name in files:
            (tmp_path / name).write_text("neither")
        with pytest.raises(InvalidRequest, match=said):
            inputs_from(tmp_path, specs, Scaling())

    def test_an_array_of_another_shape_is_said(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros(5, np.uint8))
        with pytest.raises(InvalidRequest, match=r"expected uint8 \[1, 7\] for input 'x', got uint8 \[5\]"):
            inputs_from(tmp_path, [TensorSpec("x", np.dtype("u1"), (1, 7))], Scaling())


CHIP = """
import acap_runtime as acap
import numpy as np

class Model(acap.Model):
    def __init__(self, width, names, fault):
        self.inputs = (acap.TensorSpec("data", np.dtype("float32"), (1, width)),)
        self.outputs = tuple(acap.TensorSpec(name, np.dtype("float32"), (1, width)) for name in names)
        self.fault, self.runs = fault, 0

    def run(self, inputs):
        self.runs += 1
        scores = self.fault(inputs["data"] * np.arange(inputs["data"].size, dtype="float32"), self.runs)
        return {spec.name: scores.astype("float32") for spec in self.outputs}

class Fake(acap.InferenceBackend):
    def __init__(self, name, fault, width=8, names=("scores",), ready=True):
        type(self).chip_id = None
        self.name, self.args, self.ready = name, (width, names, fault), ready

    def probe(self):
        if not self.ready:
            raise acap.NotReady("/dev/absent does not exist")

    def load(self, path, options):
        if path.read_bytes() == b"bad":
            raise acap.InvalidRequest(f"{path}: no model for this chip")
        return Model(*self.args)

def crash(scores, runs):
    import ctypes
    ctypes.string_at(0)

@acap.hookimpl
def acap_runtime_backends():
    return [
        Fake("right", lambda scores, runs: scores),
        Fake("inexact", lambda scores, runs: scores * 1.001),
        Fake("noisy", lambda scores, runs: scores + np.random.default_rng(runs).normal(0, 9, scores.shape)),
        Fake("garbage", lambda scores, runs: np.full_like(scores, 0.125)),
        Fake("nan", lambda scores, runs: scores * np.nan),
        Fake("stale", lambda scores, runs: np.arange(8.0)[None]),
        Fake("crash", crash),
        Fake("wide", lambda scores, runs: scores, width=9),
        Fake("renamed", lambda scores, runs: scores, names=("other",)),
        Fake("absent", lambda scores, runs: scores, ready=False),
    ]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin with chips that are right, and wrong in every way."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "fake_chips.py").write_text(CHIP)
    metadata = folder / "fake_chips-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-chips\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[acap_runtime]\nfake = fake_chips\n")
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    (tmp_path / "model").touch()

    def start(*words: object) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
        return subprocess.run(
            [COMMAND, "verify", *map(str, words)],
            env={**clean, "PYTHONPATH": str(site)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return start


class TestCommand:
    def test_chips_that_agree_end_it_with_0(self, run: Run) -> None:
        done = run("model", "--chips", "right,inexact", "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["ok"], said["inputs"], said["reference"]) == (True, "10 random inputs, seed 0", "chip right")
        (output,) = said["outputs"]
        assert (output["output"], output["chip"], output["top1"], output["problems"]) == (
            "scores",
            "chip inexact",
            1,
            [],
        )
        assert 0 < output["mean_difference"] < output["max_difference"] < 0.01
        assert "chip inexact: 10 runs" in done.stderr

    @pytest.mark.parametrize(
        ("chip", "said"),
        [
            ("noisy", "is below 0.99"),
            ("garbage", "chip garbage: gives one number for all elements"),
            ("nan", "chip nan: gives numbers that are not finite"),
            ("stale", "chip stale: gives the same whatever the inputs"),
        ],
    )
    def test_garbage_ends_it_with_1_and_what_is_wrong(self, run: Run, chip: str, said: str) -> None:
        done = run("model", "--chips", f"right,{chip}")
        assert done.returncode == 1
        assert done.stdout.splitlines()[0].split()[:3] == ["OUTPUT", "CHIP", "REFERENCE"]
        assert f"chip {chip}" in done.stdout
        assert said in done.stdout
        assert "NOT within the limits" in done.stderr

    def test_json_has_null_where_there_is_no_number(self, run: Run) -> None:
        done = run("model", "--chips", "right,nan", "--json")
        assert done.returncode == 1
        (output,) = json.loads(done.stdout, parse_constant=pytest.fail)["outputs"]
        assert output["worst_cosine"] is None

    def test_limits_are_the_operators(self, run: Run) -> None:
        assert run("model", "--chips", "right,noisy", "--min-cosine", "-1", "--min-top1", "0").returncode == 0
        assert run("model", "--chips", "right,inexact", "--max-difference", "1e-9").returncode == 1

    def test_what_one_chip_gave_is_compared_with_what_another_gives_later(self, run: Run, tmp_path: Path) -> None:
        done = run("model", "--chips", "right", "--record", "kept.npz", "--runs", "3", "--seed", "7")
        assert done.returncode == 0, done.stderr
        assert "recorded in kept.npz" in done.stderr
        same = run("model", "--chips", "inexact", "--against", "kept.npz", "--json")
        assert same.returncode == 0, same.stderr
        said = json.loads(same.stdout)
        assert (said["reference"], said["inputs"]) == ("chip right (recorded)", "3 random inputs, seed 7")
        assert run("model", "--chips", "garbage", "--against", "kept.npz").returncode == 1

    def test_garbage_that_is_recorded_is_said(self, run: Run) -> None:
        done = run("model", "--chips", "nan", "--record", "kept.npz")
        assert done.returncode == 1
        assert "not finite" in done.stdout

    def test_a_chip_may_have_a_file_of_its_own(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "bad").write_text("bad")
        assert run("bad", "--chips", "right,inexact", "--on", "right=model", "--on", "inexact=model").returncode == 0
        done = run("model", "--chips", "right,inexact", "--on", "inexact=bad")
        assert done.returncode == 1
        assert "chip inexact: " in done.stderr
        assert "no model for this chip" in done.stderr

    def test_arrays_of_a_folder_are_the_inputs(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "arrays").mkdir()
        np.save(tmp_path / "arrays" / "one.npy", np.ones((1, 8), np.float32))
        done = run("model", "--chips", "right,inexact", "--images", "arrays", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["inputs"] == "1 files of arrays"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["model", "--chips", "right,absent"], "chip absent is not ready: /dev/absent does not exist"),
            (["model", "--chips", "right,nobody"], "'nobody' is unknown"),
            (["model", "--chips", "right,6"], "liblarod.so.1"),
            (["model", "--chips", "right,0"], "0 is no chip"),
            (["model", "--chips", "right,RIGHT"], "each chip once, got chip right again"),
            (["none", "--chips", "right,inexact"], "expected a model file, found none"),
            (["model,speed=9", "--chips", "right,inexact"], "chip right has no option speed"),
            (["model", "--chips", "right,crash"], "chip crash was killed by SIGSEGV"),
            (
                ["model", "--chips", "right,wide"],
                "chip wide takes other inputs than chip right: expected data float32 [1, 9]",
            ),
            (["model", "--chips", "right,renamed"], "chip right gives scores; chip renamed gives other"),
            (["model", "--chips", "right", "--against", "model"], "that acapruntime verify --record wrote"),
            (["model", "--chips", "right,inexact", "--images", "nowhere"], "--images nowhere: No such file"),
        ],
    )
    def test_what_cannot_be_compared_ends_it_with_1_and_why(self, run: Run, words: list[str], said: str) -> None:
        done = run(*words)
        assert done.returncode == 1
        assert said in done.stderr
        assert not surprises(done.stderr)
        assert done.stdout == ""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--chips", "right"], "expected at least two, such as 2,4, or --record or --against"),
            (["--chips", "right,inexact", "--runs", "0"], "expected a number from 1"),
            (["--chips", "right,inexact", "--on", "other=x"], "expected CHIP=PATH with a chip of --chips"),
            (["--chips", "right", "--record", "a", "--against", "b"], "not allowed with"),
            (["--chips", "right", "--against", "b", "--images", "c"], "leave out --images"),
            (["--chips", "right", "--record", "no/such/folder/a"], "expected a file in a folder that exists"),
        ],
    )
    def test_a_line_that_makes_no_sense_ends_it_with_2(self, run: Run, words: list[str], said: str) -> None:
        done = run("model", *words)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_real_model_is_equal_to_itself_on_pictures(models: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "hopper.bmp").write_bytes((models / "grace_hopper.bmp").read_bytes())
    model = models / "mobilenet_v2_1.0_224_quant.tflite"
    done = run(model, "--chips", "2", "--images", "pictures", "--record", "kept.npz")
    assert done.returncode == 0, done.stderr
    done = run(f"{model},threads=1", "--chips", "2", "--against", "kept.npz", "--json")
    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["outputs"]
    assert output["top1"] == 1
