"""``acapruntime predict``: pictures in, what a model makes of them out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acap_runtime.answers.detections import Box, detections_in
from acap_runtime.answers.labels import read_labels
from acap_runtime.contract.backend import Array
from acap_runtime.errors import InvalidRequest
from PIL import Image

COMMAND = Path(sys.executable).with_name("acapruntime")
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
PICTURES = EXAMPLE / "pictures"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

FINDER = """
    import acap_runtime as acap
    import numpy as np

    POST = "TFLite_Detection_PostProcess"
    FLOAT = np.dtype("float32")

    class Model(acap.Model):
        inputs = (acap.TensorSpec("image", np.dtype("uint8"), (1, 64, 64, 3)),)
        outputs = (
            acap.TensorSpec(POST, FLOAT, (1, 3, 4)), acap.TensorSpec(POST + ":1", FLOAT, (1, 3)),
            acap.TensorSpec(POST + ":2", FLOAT, (1, 3)), acap.TensorSpec(POST + ":3", FLOAT, (1,)),
        )

        def run(self, inputs):
            # The brightest column, and beside it what is less sure.
            left = inputs["image"].mean(axis=(0, 1, 3)).argmax() / 64
            boxes = [[0.25, left, 0.75, left + 0.25], [-0.5, 0, 1.5, 1], [0, 0, 0, 0]]
            return dict(zip(
                [spec.name for spec in self.outputs],
                [np.array(each, "float32") for each in ([boxes], [[1, 0, 7]], [[0.9, 0.3, 0.2]], [2])],
            ))

    class Finder(acap.InferenceBackend):
        chip_id, name = None, "finder"

        def probe(self):
            pass

        def load(self, path, options):
            return Model()

    @acap.hookimpl
    def acap_runtime_backends():
        return [Finder()]
"""


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    return start_shared_server("-j", "2", "-m", f"digits={EXAMPLE / 'digits.tflite'}")


@pytest.fixture(scope="module")
def finder(start_shared_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One with a chip that finds a bright column, as a plugin that is installed."""
    folder = tmp_path_factory.mktemp("finder")
    (folder / "finder.py").write_text(textwrap.dedent(FINDER))
    metadata = folder / "finder-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: finder\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[acap_runtime]\nfinder = finder\n")
    (folder / "model.tflite").touch()
    words = ["-j", "finder", "-m", f"find={folder / 'model.tflite'}"]
    return start_shared_server(*words, environment={"PYTHONPATH": str(folder)})


def run(server: Any, *words: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "predict", "--address", server.address, *map(str, words)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def predicted(server: Any, *words: object) -> list[dict[str, Any]]:
    """What the JSON says of each picture, where all are fine."""
    done = run(server, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["pictures"]


class TestClasses:
    @pytest.fixture
    def labels(self, tmp_path: Path) -> Path:
        path = tmp_path / "labels.txt"
        path.write_text("\n".join(NUMBERS) + "\n")
        return path

    def test_a_real_model_recognises_a_real_picture(self, server: Any, models: Path) -> None:
        words = ["--image", models / "grace_hopper.bmp", "--labels", models / "imagenet_labels.txt", "--top", 3]
        done = run(server, models / "mobilenet_v2_1.0_224_quant.tflite", *words)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        head, best, *others = done.stdout.splitlines()
        assert head == str(models / "grace_hopper.bmp")
        score, number, label = best.split(maxsplit=2)
        assert (number, label) == ("653", "military uniform")
        assert 0.78 <= float(score) <= 0.95
        assert len(others) == 2

    def test_programs_get_every_picture_in_its_order(self, server: Any, labels: Path) -> None:
        pictures = [PICTURES / "7-a.png", PICTURES / "3-b.png"]
        found = predicted(server, "digits", "--image", *pictures, "--labels", labels, "--top", 2)
        assert [each["picture"] for each in found] == list(map(str, pictures))
        for each, (number, label) in zip(found, ((7, "seven"), (3, "three")), strict=True):
            (output,) = each["outputs"]
            assert (output["output"], each["error"], each["detections"]) == ("digit", None, None)
            assert len(output["classes"]) == 2
            best = output["classes"][0]
            assert (best["class"], best["label"]) == (number, label)
            assert 0.5 < best["score"] <= 1

    def test_a_bad_picture_does_not_keep_the_others(self, server: Any, tmp_path: Path) -> None:
        bad = tmp_path / "bad.png"
        bad.write_text("no picture")
        words = ["digits", "--image", bad, tmp_path / "none.png", "--image", PICTURES / "3-a.png"]
        done = run(server, *words)
        assert done.returncode == 1
        assert done.stdout.splitlines()[0] == str(PICTURES / "3-a.png")
        assert done.stdout.splitlines()[1].split()[1] == "3"
        first, second = done.stderr.splitlines()
        assert first.startswith(f"acapruntime: {bad}: expected a picture")
        assert second.startswith(f"acapruntime: {tmp_path / 'none.png'}: expected a picture")
        failed, _, good = json.loads(run(server, *words, "--json").stdout)["pictures"]
        assert "expected a picture" in failed["error"]
        assert good["error"] is None

    def test_labels_for_other_numbers_are_told(self, server: Any, labels: Path) -> None:
        words = ["digits", "--image", PICTURES / "3-a.png", "--labels", labels]
        labels.write_text("\n".join(NUMBERS[1:]))
        done = run(server, *words)
        assert done.returncode == 0
        assert "9 labels for 10 classes; --label-offset -1 if class 0 is a background" in done.stderr
        assert predicted(server, *words, "--label-offset", -1)[0]["outputs"][0]["classes"][0]["label"] == "three"

    def test_an_upright_picture_is_what_the_model_sees(self, server: Any, tmp_path: Path) -> None:
        turned = tmp_path / "turned.png"
        exif = Image.Exif()
        exif[0x112] = 6  # to be shown after a quarter turn clockwise
        Image.open(PICTURES / "7-a.png").convert("RGB").transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
        (found,) = predicted(server, "digits", "--image", turned)
        assert found["outputs"][0]["classes"][0]["class"] == 7

    def test_a_model_that_detects_nothing_has_nothing_to_draw(self, server: Any, tmp_path: Path) -> None:
        done = run(server, "digits", "--image", PICTURES / "3-a.png", "--draw", tmp_path)
        assert done.returncode == 1
        assert "--draw: expected a detection model's boxes, classes, scores and count, got digit uint8" in done.stderr

    def test_an_unknown_model_is_told(self, server: Any) -> None:
        done = run(server, "nothing", "--image", PICTURES / "3-a.png")
        assert done.returncode == 1
        assert "model 'nothing' is unknown; expected one of: 'digits'" in done.stderr

    def test_without_pillow_it_says_what_to_install(self, server: Any, tmp_path: Path) -> None:
        (tmp_path / "PIL.py").write_text("raise ModuleNotFoundError(\"No module named 'PIL'\", name='PIL')")
        done = run(server, "digits", "--image", "a.png", environment={"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 1
        assert "pip install 'acap-runtime[images]'" in done.stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["digits"], "--image"),
            (["digits", "--image", "a.png", "--top", "0"], "--top"),
            (["digits", "--image", "a.png", "--std", "0"], "--std"),
            (["digits", "--image", "a.png", "b.png", "--draw", "/nowhere"], "expected a folder that exists"),
            (["digits", "--image", "a/a.png", "b/a.png", "--draw", "/"], "different names"),
            (["digits", "--image", "a.png", "--draw", "a.png"], "another place"),
        ],
    )
    def test_a_command_line_that_makes_no_sense_is_told(self, server: Any, words: list[str], said: str) -> None:
        done = run(server, *words)
        assert done.returncode == 2
        assert said in done.stderr


class TestOtherInputs:
    """Of the debug chip, whose outputs are its inputs."""

    @pytest.fixture
    def made_of(
        self, start_server: Callable[..., Any], write: Callable[..., str], tmp_path: Path
    ) -> Callable[..., Any]:
        """What a model of such an input makes of a picture of one colour."""
        server = start_server("-j", "1", "--block", "libyuv")
        picture = tmp_path / "picture.png"
        Image.new("RGB", (20, 10), (255, 255, 255)).save(picture)

        def make(dtype: str, shape: list[int], *words: object) -> Any:
            model = write(f"{dtype}-{len(shape)}", f'inputs = [{{name = "x", dtype = "{dtype}", shape = {shape}}}]')
            (found,) = predicted(server, model, "--image", picture, *words)
            return found["outputs"][0]

        return make

    def test_floats_are_scaled_here(self, made_of: Callable[..., Any]) -> None:
        shape = [1, 8, 6, 3]
        expected = {"output": "x", "dtype": "float32", "shape": shape}
        assert made_of("float32", shape) == expected | {"min": 1, "max": 1, "mean": 1}
        scaled = made_of("float32", shape, "--mean", 127.5, "--std", 51)
        assert scaled == expected | {"min": 2.5, "max": 2.5, "mean": 2.5}

    def test_signed_bytes_are_shifted_and_planes_are_possible(self, made_of: Callable[..., Any]) -> None:
        assert made_of("int8", [1, 3, 4, 4])["max"] == 127

    def test_a_model_for_no_picture_is_told(self, start_server: Callable[..., Any], write: Callable[..., str]) -> None:
        server = start_server("-j", "1", "--block", "libyuv")
        done = run(server, write("list", 'inputs = [{name = "x", shape = [1, 9]}]'), "--image", PICTURES / "3-a.png")
        assert done.returncode == 1
        assert "expected a model that takes a picture" in done.stderr


class TestDetections:
    @pytest.fixture
    def picture(self, tmp_path: Path) -> Path:
        """128 pixels wide and 64 high, with a bright column from pixel 64."""
        pixels = np.zeros((64, 128, 3), np.uint8)
        pixels[:, 64:66] = 255
        path = tmp_path / "column.png"
        Image.fromarray(pixels).save(path)
        return path

    @pytest.fixture
    def labels(self, tmp_path: Path) -> Path:
        path = tmp_path / "map.pbtxt"
        path.write_text("item {\n  id: 1\n  name: 'car'\n}\nitem {\n  id: 2\n  name: 'lamp'\n}\n")
        return path

    def test_they_are_listed_in_pixels_of_the_picture(self, finder: Any, picture: Path, labels: Path) -> None:
        done = run(finder, "find", "--image", picture, "--labels", labels, "--label-offset", 1)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [str(picture), "  0.9000  1  lamp  (64, 16) to (96, 48)"]
        assert not done.stderr

    def test_programs_get_those_above_the_threshold(self, finder: Any, picture: Path) -> None:
        (found,) = predicted(finder, "find", "--image", picture, "--threshold", 0.1)
        first, second = found["detections"]  # the third is behind the count
        assert first["box"] == {"left": 64, "top": 16, "right": 96, "bottom": 48}
        assert (second["class"], second["label"]) == (0, None)
        assert second["box"] == {"left": 0, "top": 0, "right": 128, "bottom": 64}
        assert found["outputs"] == []
        assert predicted(finder, "find", "--image", picture, "--threshold", 0.95)[0]["detections"] == []
        assert run(finder, "find", "--image", picture, "--threshold", 0.95).stdout.endswith("\n  nothing\n")

    def test_labels_that_begin_at_1_are_told(self, finder: Any, picture: Path, labels: Path) -> None:
        done = run(finder, "find", "--image", picture, "--labels", labels)
        assert "labels begin at 1, and classes of most detection models at 0: --label-offset 1" in done.stderr

    def test_boxes_are_drawn_on_copies(self, finder: Any, picture: Path, tmp_path: Path) -> None:
        before = picture.read_bytes()
        (tmp_path / "drawn").mkdir()
        other = tmp_path / "other.png"
        other.write_bytes(before)
        predicted(finder, "find", "--image", picture, other, "--draw", tmp_path / "drawn")
        assert picture.read_bytes() == before
        for name in ("column.png", "other.png"):
            drawn = np.asarray(Image.open(tmp_path / "drawn" / name))
            assert drawn.shape == (64, 128, 3)
            changed = (drawn != np.asarray(Image.open(picture))).any(axis=2)
            assert changed[47, 70:96].all()  # the box's lower edge
            assert changed[16:48, 95].all()  # and its right one
            assert not changed[50:].any()
            assert not changed[:, :64].any()

    def test_one_picture_is_drawn_into_a_file(self, finder: Any, picture: Path, tmp_path: Path) -> None:
        predicted(finder, "find", "--image", picture, "--draw", tmp_path / "drawn.jpg")
        with Image.open(tmp_path / "drawn.jpg") as drawn:
            assert drawn.size == (128, 64)
        done = run(finder, "find", "--image", picture, "--draw", tmp_path / "drawn.xyz")
        assert done.returncode == 1
        assert "expected the name of a picture that can be written" in done.stderr


BOXES = np.array([[[0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]]])
COUNT = np.array([2.0])


class TestOutputsOfDetectionModels:
    @pytest.mark.parametrize("names", [("detection_classes", "detection_scores"), ("b", "a"), ("a", "b")])
    @pytest.mark.parametrize("swapped", [False, True])
    def test_scores_and_classes_are_told_apart(self, names: tuple[str, str], swapped: bool) -> None:
        lists = [(names[0], np.array([[5.0, 0.0]])), (names[1], np.array([[0.25, 0.75]]))]
        outputs = dict([("x", BOXES), *(reversed(lists) if swapped else lists), ("n", COUNT)])
        found = detections_in(outputs)
        assert found is not None
        assert [(each.number, each.score) for each in found] == [(0, 0.75), (5, 0.25)]
        assert found[0].box == Box(left=0.2, top=0.1, right=0.4, bottom=0.3)

    @pytest.mark.parametrize("count", [-1.0, 0.0, np.nan])
    def test_the_count_may_be_none(self, count: float) -> None:
        lists = {"classes": np.ones((1, 2)), "scores": np.ones((1, 2))}
        assert detections_in({"boxes": BOXES, **lists, "count": np.array([count])}) == []

    @pytest.mark.parametrize(
        "other",
        [
            {"scores": np.ones((1, 10))},
            {"boxes": BOXES, "classes": np.ones((1, 3)), "scores": np.ones((1, 3)), "count": COUNT},
            {"boxes": BOXES, "classes": np.ones((1, 2)), "scores": np.ones((1, 2))},
        ],
    )
    def test_other_models_outputs_are_none(self, other: Mapping[str, Array]) -> None:
        assert detections_in(other) is None


class TestLabels:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("person\ncar\n\nbus\n\n", {0: "person", 1: "car", 2: "", 3: "bus"}),
            ("0 person\n 2  traffic light\n", {0: "person", 2: "traffic light"}),
            ("0: person\n1: car", {0: "person", 1: "car"}),
            ("1,person\n3,car\n", {1: "person", 3: "car"}),
            ("3 wheeler\n3 piece suit\n", {0: "3 wheeler", 1: "3 piece suit"}),
            ("\ufeffpéage\r\ncar\r\n", {0: "péage", 1: "car"}),
            (
                'item {\n name: "/m/01g317"\n id: 1\n display_name: "person"\n}\nitem { id: 3 name: \'car\' }',
                {1: "person", 3: "car"},
            ),
        ],
    )
    def test_every_usual_form_is_read(self, tmp_path: Path, text: str, expected: dict[int, str]) -> None:
        path = tmp_path / "labels"
        path.write_text(text, newline="")
        assert read_labels(path) == expected

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "found none"),
            (b"\xff\xfe", "UTF-8"),
            (b"item { id: 1 }", "an id and a name"),
            (None, "No such file"),
        ],
    )
    def test_what_is_none_is_told(self, tmp_path: Path, content: bytes | None, said: str) -> None:
        path = tmp_path / "labels"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=said):
            read_labels(path)
