"""Finding plugins: what is used, what is set aside and why, and which one drives the chip that was asked for."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from acap_runtime import InferenceBackend, InvalidRequest, NotReady, StreamSettings
from acap_runtime.contract import backend as contract
from acap_runtime.contract import camera as camera_contract
from acap_runtime.plugins.installed import Plugin, Plugins, chosen_chips, discover, load_plugin
from acap_runtime.plugins.larod_chips import CHIPS

InstallPlugin = Callable[..., None]

CHIP = """
import acap_runtime as acap

class {kind}(acap.{kind}Backend):
    chip_id, name, aliases = {chip_id}, {chip!r}, {aliases!r}

    def probe(self):
        raise SystemExit("discovery does not probe")

    def {method}(self, *arguments):
        raise SystemExit("discovery does not load")

@acap.hookimpl
def acap_runtime_backends():
    return [{kind}()]
"""


def chip(chip_id: int | None, name: str, *aliases: str, kind: str = "Inference") -> str:
    """A plugin's code that brings one chip."""
    method = "load" if kind == "Inference" else "prepare"
    return CHIP.format(kind=kind, chip_id=chip_id, chip=name, aliases=aliases, method=method)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallPlugin:
    """Makes a distribution with one module and one entry point, as pip would; they go with the test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        name: str, code: str, *, distribution: str | None = None, address: str | None = None, requires: str = ""
    ) -> None:
        module = f"acap_test_{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(code)
        project = distribution or f"acap-test-{name}"
        info = tmp_path / f"{project.replace('-', '_')}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {project}", "Version: 1.5"]
        (info / "METADATA").write_text("\n".join([*lines, *([f"Requires-Dist: {requires}"] if requires else [])]))
        points = info / "entry_points.txt"
        before = points.read_text() if points.exists() else "[acap_runtime]\n"
        points.write_text(f"{before}{name} = {address or module}\n")

    return make


@pytest.fixture(autouse=True)
def no_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test installs counts: whoever runs this may have any plugins."""
    monkeypatch.setattr(
        "acap_runtime.plugins.installed.entry_points",
        lambda **group: [point for point in _entry_points(**group) if point.value.startswith("acap_test_")],
    )


def _entry_points(**group: str):
    from importlib.metadata import entry_points

    return entry_points(**group)


def row(name: str, plugins: Plugins) -> Plugin:
    (found,) = [each for each in plugins.rows if each.name == name]
    return found


def test_a_plugin_is_found_with_its_distribution_version_address_and_chips(install: InstallPlugin) -> None:
    install("good", chip(77, "test-chip", "TEST_CHIP"))
    plugin = row("good", discover())
    assert (plugin.distribution, plugin.version, plugin.address) == ("acap-test-good", "1.5", "acap_test_good")
    assert [(backend.chip_id, backend.name) for backend in plugin.brings.backends] == [(77, "test-chip")]
    assert plugin.problem is None


def test_nothing_installed_is_no_error() -> None:
    assert discover().rows == ()
    assert discover().chips == ()


BROKEN = {
    "no_such_module": ("import a_module_that_is_not_there", "ModuleNotFoundError.*a_module_that_is_not_there"),
    "syntax": ("def broken(:", "SyntaxError"),
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "hook_raises": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends():\n    raise OSError('no driver')",
        "OSError: no driver",
    ),
    "unknown_hook": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backend():\n    return []",
        "acap_runtime_backend",
    ),
    "wrong_arguments": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends(chip):\n    return []",
        "chip",
    ),
    "no_backend": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends():\n    return ['cpu']",
        "expected InferenceBackend or ProcessingBackend objects, got 'cpu'",
    ),
    "not_iterable": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends():\n    return 3",
        "TypeError",
    ),
    "abstract": (
        chip(77, "x").replace("def load", "def not_load"),
        "TypeError.*abstract",
    ),
    "no_name": (chip(77, ""), r"Inference\.name"),
    "wrong_number": (chip(77, "x").replace("77", "'77'"), r"Inference\.chip_id.*'77'"),
    "wrong_aliases": (chip(77, "x").replace("()", "'X'", 1), r"Inference\.aliases.*'X'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_set_aside_with_the_reason_and_others_are_used(install: InstallPlugin, fault: str) -> None:
    code, reason = BROKEN[fault]
    install("aaa", code)
    install("good", chip(77, "test-chip"))
    plugins = discover()
    broken = row("aaa", plugins)
    assert broken.brings.backends == ()
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(broken.problem)
    assert [each.backend.name for each in plugins.chips] == ["test-chip"]
    selected = plugins.select("test-chip")
    assert selected is not None
    assert selected.plugin.name == "good"


def test_an_entry_point_that_names_nothing_is_set_aside(install: InstallPlugin) -> None:
    install("gone", chip(77, "x"), address="acap_test_gone:not_there")
    assert "not_there" in str(row("gone", discover()).problem)


def test_a_plugin_may_be_an_object_in_a_module(install: InstallPlugin) -> None:
    code = chip(77, "x") + "\nclass Hooks:\n    acap_runtime_backends = staticmethod(acap_runtime_backends)\n"
    install("held", code, address="acap_test_held:Hooks")
    assert row("held", discover()).problem is None
    assert len(discover().chips) == 1


def test_two_plugins_of_one_name_both_appear(install: InstallPlugin) -> None:
    install("one", chip(77, "x"))
    install("twin", chip(78, "y"), distribution="acap-test-first")
    install("twin", chip(78, "y"), distribution="acap-test-second")
    twins = [plugin for plugin in discover().rows if plugin.name == "twin"]
    assert [plugin.distribution for plugin in twins] == ["acap-test-first", "acap-test-second"]


@pytest.mark.parametrize("blocked", ["one", "acap-test-one"])
def test_a_blocked_plugin_is_not_even_imported(install: InstallPlugin, blocked: str) -> None:
    install("one", "raise SystemExit('imported')")
    install("two", chip(78, "y"))
    plugins = discover([blocked])
    assert row("one", plugins).blocked
    assert "--block" in str(row("one", plugins).problem)
    assert row("two", plugins).problem is None


def test_a_plugin_for_another_core_is_set_aside_in_words_and_not_imported(install: InstallPlugin) -> None:
    install("newer", "raise SystemExit('imported')", requires="acap-runtime<9.1,>=9")
    install("alone", "raise SystemExit('imported')", requires="acap-runtime-that-is-not-there>=1")
    install("fits", chip(78, "y"), requires="acap-runtime>=0.1.dev0")
    plugins = discover()
    problem = f"needs acap-runtime>=9,<9.1, and {version('acap-runtime')} is installed: "
    assert row("newer", plugins).problem == problem + "pip install --upgrade acap-test-newer"
    problem = "needs acap-runtime-that-is-not-there>=1, which is not installed: "
    assert row("alone", plugins).problem == problem + "pip install --upgrade acap-test-alone"
    assert row("fits", plugins).problem is None


def test_a_chip_whose_plugin_is_for_another_core_says_so(install: InstallPlugin) -> None:
    install("debug", chip(1, "debug-device"), distribution="acap-runtime-debug", requires="acap-runtime>=9")
    with pytest.raises(NotReady, match=r"debug of acap-runtime-debug is not used: needs acap-runtime>=9, and "):
        discover().select("1")


def test_only_the_chip_that_two_plugins_claim_is_refused(install: InstallPlugin) -> None:
    install("one", chip(77, "x"))
    install("two", chip(77, "y"))
    install("three", chip(78, "z"))
    plugins = discover()
    with pytest.raises(NotReady) as raised:
        plugins.select("77")
    for word in ("acap-test-one", "acap-test-two", "--block"):
        assert word in str(raised.value)
    with pytest.raises(NotReady):
        plugins.select("y")
    assert plugins.select("z") is not None
    for blocked in ("one", "acap-test-two"):
        assert discover([blocked]).select("77") is not None


@pytest.mark.parametrize("rival", [("X", ()), ("other", ("x",)), ("other", ("also-x",))])
def test_names_and_aliases_are_claims_too(install: InstallPlugin, rival: tuple[str, tuple[str, ...]]) -> None:
    install("one", chip(None, "x", "ALSO-X"))
    install("two", chip(None, rival[0], *rival[1]))
    with pytest.raises(NotReady, match="more than once"):
        discover().select("x")


def test_chips_without_a_number_do_not_clash_for_that(install: InstallPlugin) -> None:
    install("one", chip(None, "x"))
    install("two", chip(None, "y"))
    assert discover().select("x") is not None


@pytest.mark.parametrize("word", ["77", " 77 ", "test-chip", "TEST-CHIP", "larod_chip_test"])
def test_a_chip_answers_to_its_number_name_and_aliases_in_any_case(install: InstallPlugin, word: str) -> None:
    install("one", chip(77, "test-chip", "LAROD_CHIP_TEST"))
    selected = discover().select(word)
    assert selected is not None
    assert selected.backend.name == "test-chip"


@pytest.mark.parametrize("word", ["0", "LAROD_CHIP_INVALID", " 0"])
def test_no_chip_is_a_choice(word: str) -> None:
    assert discover().select(word) is None


@pytest.mark.parametrize("known", [each for each in CHIPS if each.id], ids=lambda each: str(each.id))
def test_a_chip_without_a_plugin_says_what_to_install(known) -> None:
    for word in (str(known.id), known.name, *known.aliases):
        with pytest.raises(NotReady, match=f"pip install {known.distribution}"):
            discover().select(word)


def test_a_chip_whose_plugin_is_broken_says_how_and_not_what_to_install(install: InstallPlugin) -> None:
    install("debug", "raise RuntimeError('half installed')", distribution="acap-runtime-debug")
    with pytest.raises(NotReady, match="half installed"):
        discover().select("1")


@pytest.mark.parametrize("word", ["99", "", "1x", "-1", "cpu"])
def test_an_unknown_chip_is_refused_with_the_choices(word: str) -> None:
    with pytest.raises(InvalidRequest, match="cpu-tflite") as raised:
        discover().select(word)
    assert repr(word) in str(raised.value)


def test_one_chip_runs_models_and_another_converts_in_any_order(install: InstallPlugin) -> None:
    install("run", chip(77, "runs"))
    install("convert", chip(78, "converts", kind="Processing"))
    for words in (["77", "78"], ["78", "77"]):
        running, converting = chosen_chips(words, discover())
        assert (running and running.backend.name, converting and converting.backend.name) == ("runs", "converts")


def test_a_processing_chip_alone_runs_models(install: InstallPlugin) -> None:
    install("convert", chip(78, "converts", kind="Processing"))
    running, converting = chosen_chips(["78"], discover())
    assert running
    assert running.backend.name == "converts"
    assert converting is None


def test_two_processing_chips_are_one_to_run_and_one_to_convert(install: InstallPlugin) -> None:
    install("one", chip(78, "first", kind="Processing"))
    install("two", chip(79, "second", kind="Processing"))
    running, converting = chosen_chips(["79", "78"], discover())
    assert (running and running.backend.name, converting and converting.backend.name) == ("second", "first")


def test_two_chips_for_inference_are_refused(install: InstallPlugin) -> None:
    install("one", chip(77, "first"))
    install("two", chip(78, "second"))
    with pytest.raises(InvalidRequest, match=r"first.*second"):
        chosen_chips(["77", "78"], discover())


def test_libyuv_is_the_first_choice_for_conversions_and_disputed_chips_are_none(install: InstallPlugin) -> None:
    install("aaa", chip(9, "other", kind="Processing"))
    install("bbb", chip(11, "cpu-proc", kind="Processing"))
    install("ccc", chip(13, "disputed", kind="Processing"))
    install("ddd", chip(13, "disputed", kind="Processing"))
    install("eee", chip(77, "runs"))
    assert [each.backend.name for each in discover().converters()] == ["cpu-proc", "other"]


def test_a_hook_is_called_once_per_load_and_its_result_may_be_any_iterable(install: InstallPlugin) -> None:
    code = chip(77, "x").replace("return [Inference()]", "yield Inference()")
    install("lazy", code)
    assert [backend.name for backend in load_plugin("acap_test_lazy").backends] == ["x"]


def test_the_contracts_own_example_is_a_plugin_as_it_stands(install: InstallPlugin) -> None:
    lines = (contract.__doc__ or "").splitlines()
    install("example", textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line)))
    (doubler,) = load_plugin("acap_test_example").backends
    assert isinstance(doubler, InferenceBackend)
    with pytest.raises(NotReady, match="/dev/doubler does not exist"):
        doubler.probe()
    model = doubler.load(Path("any"), {})
    doubled = model.run({"data": np.array([[1, 200]], np.uint8)})["doubled"]
    (spec,) = model.outputs
    assert (doubled.tolist(), doubled.dtype, spec.accepts(doubled.shape)) == ([[2, 400]], spec.dtype, True)
    model.close()


def test_the_example_of_the_contract_for_cameras_is_a_plugin_as_it_stands(install: InstallPlugin) -> None:
    lines = (camera_contract.__doc__ or "").splitlines()
    install("grey", textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line)))
    (camera,) = load_plugin("acap_test_grey").cameras
    assert camera.claims("grey")
    assert not camera.claims("gray")
    stream = camera.open("grey", StreamSettings("nv12", 4, 4, 100))
    picture = np.zeros((6, 4), np.uint8)
    first, second = (stream.read(picture) for _ in range(2))
    assert (picture == 128).all()
    assert second.captured_ns - first.captured_ns == 10_000_000
    with pytest.raises(InvalidRequest, match="expected a raw format"):
        camera.open("grey", StreamSettings("jpeg", 4, 4, 100))
    stream.close()


CAMERA = """
import acap_runtime as acap

class Nameless(acap.Camera):
    sources = "grey"
    def probe(self, source): pass
    def open(self, source, settings): raise acap.NotReady("closed")

class Grey(Nameless):
    name = "grey"

@acap.hookimpl
def acap_runtime_cameras():
    return [Grey()]
"""


def test_a_camera_is_found_by_its_source_and_refused_if_two_claim_it(install: InstallPlugin) -> None:
    install("one", CAMERA)
    assert discover().camera("door", "grey:1").camera.name == "grey"
    with pytest.raises(NotReady, match=r"camera door: no plugin here opens 'rtsp://\*\*\*@host/'; it has: grey"):
        discover().camera("door", "rtsp://user:secret@host/")
    install("two", CAMERA)
    with pytest.raises(NotReady, match=r"claimed more than once: by acap-test-one .* and acap-test-two .*--block"):
        discover().camera("door", "grey")
    assert discover(["two"]).camera("door", "grey").plugin.name == "one"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("return [1]", "hook acap_runtime_cameras: expected Camera objects, got 1"),
        ("return [Nameless()]", "Nameless.name: expected a name, got None"),
    ],
)
def test_what_is_no_camera_sets_its_plugin_aside(install: InstallPlugin, code: str, problem: str) -> None:
    install("wrong", CAMERA.replace("return [Grey()]", code))
    (plugin,) = discover().rows
    assert plugin.problem == problem
    assert plugin.brings.cameras == ()
