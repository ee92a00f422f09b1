"""What the documents say of the code is so."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

from acap_runtime.contract import hookspecs
from acap_runtime.plugins.larod_chips import CHIPS
from acap_runtime.settings.reading import read_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def test_the_readmes_table_has_every_chip_with_its_name_and_package() -> None:
    rows = re.findall(r"^\| ?(\d*) \| ([\w-]+) \| .* \| `([\w-]+)` \| .+ \|$", README, re.MULTILINE)
    told = {(int(number) if number else None, name, package) for number, name, package in rows}
    assert told == {(chip.id, chip.name, chip.distribution) for chip in CHIPS}


def test_the_readme_and_the_classifiers_name_the_systems_on_which_everything_was_run() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    build = import_module("build_tables")
    assert build.systems(README) == README, "run: python docs/build_tables.py"
    pythons = {"3." + each["python"].split(".")[1] for each in json.loads(build.MACHINES.read_text())}
    assert pythons, "run: python3 dev.py fresh debian13 --record"
    wanted = sorted(f"Programming Language :: Python :: {python}" for python in pythons)
    for path in [ROOT / "core" / "pyproject.toml", *(ROOT / "plugins").glob("*/pyproject.toml")]:
        classifiers = tomllib.loads(path.read_text())["project"]["classifiers"]
        named = [each for each in classifiers if each.startswith("Programming Language :: Python :: 3.")]
        assert named == wanted, path


def test_every_package_of_the_readme_is_in_this_repository() -> None:
    projects = {path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")}
    named = {name.replace("-", "_") for name in re.findall(r"`acap-runtime-([a-z0-9-]+)`", README)}
    assert named <= projects


def test_every_hook_is_documented_with_its_signature() -> None:
    page = (ROOT / "docs" / "writing-a-plugin.md").read_text()
    hooks = [value for name, value in vars(hookspecs).items() if name.startswith("acap_runtime_")]
    assert hooks
    for hook in hooks:
        signature = str(inspect.signature(hook)).replace("'", "")
        assert f"| `{hook.__name__}{signature}` | {hook.__doc__} |" in page


def test_links_between_documents_lead_somewhere() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("README.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
    for page in pages:
        for target in LINK.findall(page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_settings_are_documented_as_they_are_defined() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    build = import_module("build_settings")
    page = build.OPERATIONS.read_text()
    assert page == build.written(page), "run: python docs/build_settings.py"


def test_the_configuration_file_of_the_documents_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    path = tmp_path / "runtime.toml"
    path.write_text(text)
    settings = read_settings({"config": str(path)}, {})
    assert [model.name for model in settings.models] == ["digits", "faces"]
    assert settings.cameras[0].name == "door"
