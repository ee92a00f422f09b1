"""A release: what is in it, that it can be made again byte by byte, and that what it has can be installed from it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import debian_root
import environments
import pytest
from packaging.utils import canonicalize_name
from release import BUILD_TOOLS

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
OUTSIDE = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PIP_", "GIT_"))}
COMMIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_DATE": "1700000001 +0000",
    "GIT_COMMITTER_DATE": "1700000001 +0000",
}
PLUGIN = "acap-runtime-debug"
TRIAL = "acap_runtime_tflite_glgpu/trial.tflite"
"""The one model that a plugin has, of 416 bytes: with it, it looks whether a GPU can be used."""
VERSION: str = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text())["project"]["version"]
MAJOR, MINOR, MICRO = map(int, VERSION.split("."))
NEXT_MICRO = f"{MAJOR}.{MINOR}.{MICRO + 1}"
NEXT_MINOR = f"{MAJOR}.{MINOR + 1}.0"


def run(
    *words: object, code: int = 0, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What a command prints that ends with the expected exit code."""
    command = [str(word) for word in words]
    environment = {**OUTSIDE, **(environment or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


def commit(checkout: Path) -> None:
    run("git", "-C", checkout, "add", "--all", environment=COMMIT)
    user = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    run("git", "-C", checkout, *user, "commit", "--quiet", "--message=test", environment=COMMIT)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only commit is this checkout as it is, changes included."""
    target = tmp_path_factory.mktemp("checkout") / "origin"
    wanted = ["core", "plugins", "packaging/release.py", "LICENSE", ".gitignore"]
    listed = run(
        "git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted
    ).stdout
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    run("git", "init", "--quiet", target, environment=COMMIT)
    commit(target)
    return target


@pytest.fixture
def few(checkout: Path, tmp_path: Path) -> Path:
    """A repository of the core and one plugin, for one test, which may change it."""
    return of_few(checkout, tmp_path / "few")


def of_few(checkout: Path, target: Path) -> Path:
    run("git", "clone", "--quiet", checkout, target)
    for path in (target / "plugins").iterdir():
        if path.name != "debug":
            shutil.rmtree(path)
    commit(target)
    return target


def release(checkout: Path, *words: object, code: int = 0, **options: Any) -> str:
    """What the command says: on stdout, or on stderr if it is expected to fail."""
    done = run(sys.executable, checkout / "packaging" / "release.py", *words, code=code, **options)
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def made(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A release, and what the command said of it."""
    output = tmp_path_factory.mktemp("made") / "release"
    return output, json.loads(release(checkout, "--output", output, "--json"))


@pytest.fixture(scope="module")
def folder(made: tuple[Path, dict[str, Any]]) -> Path:
    return made[0]


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_distribution_is_there_as_a_wheel_and_an_sdist(made: tuple[Path, dict[str, Any]]) -> None:
    folder, said = made
    assert said["output"] == str(folder)
    assert said["commit"]["changed"] == []
    projects = [tomllib.loads((path / "pyproject.toml").read_text())["project"] for path in environments.DISTRIBUTIONS]
    assert {each["name"]: each["version"] for each in said["distributions"]} == {
        project["name"]: project["version"] for project in projects
    }
    archives = [each[kind] for each in said["distributions"] for kind in ("wheel", "sdist")]
    assert {path.name for path in folder.iterdir() if path.suffix in (".whl", ".gz")} == {
        archive["name"] for archive in archives
    }
    for archive in archives:
        path = folder / archive["name"]
        assert (archive["sha256"], archive["size"]) == (sha256(path), path.stat().st_size)
        assert archive["files"] == {name: len(data) for name, data in contents(path).items()}


def contents(archive: Path) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        return {member.name: sdist.extractfile(member).read() for member in sdist if member.isfile()}  # type: ignore[union-attr]


def test_the_list_of_contents_names_every_file_of_every_archive(folder: Path) -> None:
    first, *lines = (folder / "CONTENTS.txt").read_text().splitlines()
    assert first.startswith("Made of commit ")
    assert first.endswith(" of 2023-11-14 22:13:21+00:00. Sizes are in bytes.")
    archives = {path: contents(path) for path in folder.iterdir() if path.suffix in (".whl", ".gz")}
    expected = [(path.stat().st_size, path.name) for path in archives]
    expected += [(len(data), name) for files in archives.values() for name, data in files.items()]
    assert sorted(line.split() for line in lines if line) == sorted([str(size), name] for size, name in expected)


def test_the_sums_are_of_everything_and_right(folder: Path) -> None:
    run("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=folder)
    listed = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(digests(folder))


def test_wheels_hold_their_packages_and_the_licence_and_nothing_else(folder: Path) -> None:
    for path in folder.glob("*.whl"):
        files = contents(path)
        name = path.name.split("-")[0]
        metadata = f"{'-'.join(path.name.split('-')[:2])}.dist-info"
        assert {file.split("/")[0] for file in files} <= {name, metadata, "acap_runtime_pytest"}
        assert not [
            file for file in files if "/tests/" in file or (file.endswith((".pyc", ".tflite")) and file != TRIAL)
        ]
        assert files[f"{metadata}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
        said = BytesParser().parsebytes(files[f"{metadata}/METADATA"])
        assert (said["License-Expression"], said["License-File"]) == ("Apache-2.0", "LICENSE")


def test_sdists_hold_sources_tests_and_the_licence(folder: Path) -> None:
    for path in folder.glob("*.tar.gz"):
        files, top = contents(path), path.name.removesuffix(".tar.gz")
        assert files[f"{top}/LICENSE"] == (ROOT / "LICENSE").read_bytes()
        assert any(re.fullmatch(rf"{re.escape(top)}/tests/(\w+/)?test_\w+\.py", name) for name in files)
        assert any(name.startswith(f"{top}/src/") for name in files)


class Links(HTMLParser):
    """The links of a page: their attributes and texts."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "a" and data.strip():
            self.found[-1] = (self.found[-1][0], data)


def test_the_index_is_as_the_standard_has_it(folder: Path) -> None:
    top = Links(folder / "simple" / "index.html").found
    assert len(top) == len(environments.DISTRIBUTIONS)
    linked = set()
    for attributes, name in top:
        assert attributes["href"] == f"{name}/"
        assert name == canonicalize_name(name)
        page = folder / "simple" / name / "index.html"
        files = Links(page).found
        assert len(files) == 2
        for file, text in files:
            url, digest = urldefrag(str(file["href"]))
            path = (page.parent / url).resolve()
            linked.add(path)
            assert (path.name, digest) == (text, f"sha256={sha256(path)}")
            assert file["data-requires-python"] == ">=3.11"
            if path.suffix == ".whl":
                metadata = path.with_name(f"{path.name}.metadata")
                assert file["data-core-metadata"] == f"sha256={sha256(metadata)}"
                (inside,) = (data for name, data in contents(path).items() if name.endswith(".dist-info/METADATA"))
                assert metadata.read_bytes() == inside
    assert linked == {*folder.glob("*.whl"), *folder.glob("*.tar.gz")}


def test_another_clone_in_another_folder_by_another_user_at_another_time_gives_the_same_bytes(
    checkout: Path, folder: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone of another"
    run("git", "clone", "--quiet", checkout, clone)
    output = tmp_path / "some where" / "else" / "release-2"
    for path in clone.rglob("*.py"):
        os.utime(path, (1234567890, 1234567890))
    # What users have different.
    environment = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1500000000", "HATCH_BUILD_CLEAN": "1"}
    before = os.umask(0o077)
    try:
        release(clone, "--output", output, environment=environment)
    finally:
        os.umask(before)
    assert digests(output) == digests(folder)


def rebuilt(sdist: Path, into: Path) -> Path:
    """The wheel that anyone's build tool makes of an sdist."""
    constraints = into / "constraints.txt"
    constraints.write_text("\n".join(BUILD_TOOLS))
    dated = {"SOURCE_DATE_EPOCH": "1700000001"}
    run(UV, "build", "--wheel", "--build-constraints", constraints, "--out-dir", into, sdist, environment=dated)
    (wheel,) = into.glob(f"{sdist.name.removesuffix('.tar.gz')}-*.whl")
    return wheel


def test_an_sdist_builds_to_the_very_wheel_that_is_beside_it(folder: Path, tmp_path: Path) -> None:
    wheel = rebuilt(folder / f"acap_runtime_debug-{VERSION}.tar.gz", tmp_path)
    assert sha256(wheel) == sha256(folder / wheel.name)


@pytest.mark.long
def test_every_sdist_builds_to_the_very_wheel_that_is_beside_it(folder: Path, tmp_path: Path) -> None:
    for sdist in folder.glob("*.tar.gz"):
        wheel = rebuilt(sdist, tmp_path)
        assert sha256(wheel) == sha256(folder / wheel.name)


def test_changes_that_are_in_no_commit_are_refused_unless_they_are_allowed(few: Path, tmp_path: Path) -> None:
    (few / "core" / "src" / "acap_runtime" / "new.py").touch()
    output = tmp_path / "release"
    said = release(few, "--output", output, code=1)
    assert "expected a checkout without changes, got changes of core/src/acap_runtime/new.py" in said
    assert "--allow-dirty" in said
    assert not output.exists()
    (few / "plugins" / "debug" / "tests" / "test_store.py").unlink()
    (few / "plugins" / "debug" / "README.md").write_text("changed")
    assert "with changes that are in no commit" in release(few, "--output", output, "--allow-dirty")
    assert "with changes that are in no commit" in (output / "CONTENTS.txt").read_text().splitlines()[0]
    assert "acap_runtime/new.py" in contents(output / f"acap_runtime-{VERSION}-py3-none-any.whl")


def test_a_folder_with_anything_of_no_release_is_left_alone(few: Path, tmp_path: Path) -> None:
    output = tmp_path / "release"
    output.mkdir()
    (output / "thesis").touch()
    for path in (output, output / "thesis"):
        assert f"got {output / 'thesis'}, which is of no release" in release(few, "--output", path, code=1)
    assert [path.name for path in output.iterdir()] == ["thesis"]


def test_an_earlier_release_is_replaced_as_a_whole_or_not_at_all(few: Path, folder: Path) -> None:
    output = few / "dist"
    shutil.copytree(folder, output)
    described = few / "plugins" / "debug" / "pyproject.toml"
    right = described.read_text()
    described.write_text(right.replace("version =", "vision ="))
    commit(few)
    assert "a distribution cannot be built; mend what hatchling says" in release(few, "--output", output, code=1)
    assert digests(output) == digests(folder)
    described.write_text(right)
    commit(few)
    release(few, "--output", output)
    assert len(list(output.glob("*.whl"))) == 2
    # Nothing else is left, neither where it was made nor of the earlier one.
    assert {path.name for path in few.iterdir()} == {".git", *few_files(few), "dist"}


def few_files(few: Path) -> set[str]:
    return {name.split("/")[0] for name in run("git", "-C", few, "ls-files").stdout.splitlines()}


@pytest.mark.long
def test_a_release_that_is_killed_leaves_nothing_in_its_place(few: Path, tmp_path: Path) -> None:
    command = [sys.executable, few / "packaging" / "release.py", "--output", tmp_path / "release"]
    for line in ("installing", "1 of 2", "2 of 2"):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=OUTSIDE) as process:
            assert process.stderr is not None
            assert any(line in said for said in process.stderr)
            process.kill()
        assert not (tmp_path / "release").exists()
    release(few, "--output", tmp_path / "release")


def test_ranges_that_the_release_itself_is_outside_of_are_refused(few: Path, tmp_path: Path) -> None:
    set_versions(few / "core", NEXT_MINOR)
    commit(few)
    said = release(few, "--output", tmp_path / "release", code=1)
    assert f"got {PLUGIN} {VERSION}, which needs acap-runtime<" in said
    assert f"beside acap-runtime {NEXT_MINOR}; change the range" in said
    assert not (tmp_path / "release").exists()


def test_another_build_system_is_refused(few: Path, tmp_path: Path) -> None:
    described = few / "plugins" / "debug" / "pyproject.toml"
    described.write_text(described.read_text().replace("hatchling", "flit_core"))
    commit(few)
    said = release(few, "--output", tmp_path / "release", code=1)
    assert "plugins/debug/pyproject.toml: expected build-system" in said


def test_what_is_no_checkout_is_refused(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    assert "expected a git checkout" in release(tmp_path / "copy", "--output", tmp_path / "release", code=1)


def set_versions(where: Path, version: str) -> None:
    for path in where.rglob("pyproject.toml"):
        text, count = re.subn(r'(?m)^version = ".*"$', f'version = "{version}"', path.read_text())
        assert count == 1
        path.write_text(text)


@pytest.fixture(scope="module")
def later(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release after this one."""
    folder = tmp_path_factory.mktemp("later")
    return released_as(NEXT_MICRO, of_few(checkout, folder / "few"), folder)


@pytest.fixture(scope="module")
def core_of_the_future(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of nothing but a core that today's plugins are not made for."""
    folder = tmp_path_factory.mktemp("future")
    few = of_few(checkout, folder / "few")
    shutil.rmtree(few / "plugins")
    return released_as(NEXT_MINOR, few, folder)


def released_as(version: str, few: Path, folder: Path) -> Path:
    set_versions(few, version)
    commit(few)
    release(few, "--output", folder / "release")
    return folder / "release"


@pytest.fixture
def command(folder: Path, tmp_path: Path) -> Path:
    """`acapruntime` in an environment into which the core and a plugin were installed from the release's index."""
    run(UV, "venv", "--python", sys.executable, tmp_path / "venv")
    install(tmp_path / "venv", folder, "acap-runtime", PLUGIN)
    return tmp_path / "venv" / "bin" / "acapruntime"


def install(venv: Path, folder: Path, *words: object) -> None:
    # uv takes an index at a path that it has seen for the same one.
    refresh = [word for name in ("acap-runtime", PLUGIN) for word in ("--refresh-package", name)]
    index = ("--extra-index-url", (folder / "simple").as_uri())
    run(UV, "pip", "install", "--python", venv, *refresh, *index, *words)


def versions(command: Path) -> tuple[str, str]:
    """Which core is installed, and which plugin, which has no problem with it."""
    (row,) = json.loads(run(command, "plugins", "--json").stdout)
    assert (row["distribution"], row["problem"]) == (PLUGIN, None)
    (metadata,) = command.parents[1].glob("lib/*/site-packages/acap_runtime-*.dist-info")
    return metadata.name.removeprefix("acap_runtime-").removesuffix(".dist-info"), row["version"]


def test_an_installation_goes_up_to_the_next_release_and_back_down(command: Path, folder: Path, later: Path) -> None:
    venv = command.parents[1]
    assert versions(command) == (VERSION, VERSION)
    install(venv, later, f"acap-runtime=={NEXT_MICRO}", f"{PLUGIN}=={NEXT_MICRO}")
    assert versions(command) == (NEXT_MICRO, NEXT_MICRO)
    install(venv, folder, f"acap-runtime=={VERSION}")
    assert versions(command) == (VERSION, NEXT_MICRO)
    install(venv, folder, f"{PLUGIN}=={VERSION}")
    assert versions(command) == (VERSION, VERSION)


@pytest.mark.timeout(300)
def test_a_fresh_machine_installs_goes_up_to_the_next_release_and_back_down(
    root: debian_root.Root, folder: Path, later: Path
) -> None:
    """Without checkout, compiler and pip: the root has Python 3.13 and what uv brings."""
    shown = {UV: "/usr/local/bin/uv", folder: "/srv/release", later: "/srv/later"}
    root.run("uv", "--quiet", "venv", "--clear", "/srv/installed", shown=shown)
    install = ("uv", "--quiet", "pip", "install", "--python", "/srv/installed")
    for place, version in (("release", VERSION), ("later", NEXT_MICRO), ("release", VERSION)):
        wanted = [f"acap-runtime=={version}", f"{PLUGIN}=={version}"]
        refresh = [word for name in ("acap-runtime", PLUGIN) for word in ("--refresh-package", name)]
        root.run(*install, *refresh, "--extra-index-url", f"file:///srv/{place}/simple", *wanted, shown=shown)
        (row,) = json.loads(root.run("/srv/installed/bin/acapruntime", "plugins", "--json"))
        assert (row["version"], row["problem"]) == (version, None)


def test_a_plugin_that_is_not_made_for_the_core_is_refused_in_words(command: Path, core_of_the_future: Path) -> None:
    install(command.parents[1], core_of_the_future, "--no-deps", f"acap-runtime=={NEXT_MINOR}")
    words = (
        f"needs acap-runtime>={MAJOR}.{MINOR},<{MAJOR}.{MINOR + 1}, and {NEXT_MINOR} is installed: "
        f"pip install --upgrade {PLUGIN}"
    )
    (row,) = json.loads(run(command, "plugins", "--json", code=1).stdout)
    assert (row["problem"], row["chips"]) == (words, [])
    started = run(command, "-j", "1", "--socket", command.parents[2] / "socket", code=1).stderr
    assert f"plugin debug of {PLUGIN} is not used: {words}" in started


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as ``python -m http.server`` does, and tells what was asked for."""

    asked: list[str]

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is the library's
        self.asked.append(self.path)


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The index's address on a static web server, and what is asked for there."""
    asked: list[str] = []
    handler = type("Handler", (Quiet,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple/", asked
        server.shutdown()
        thread.join()


def test_pip_itself_takes_the_index_from_a_static_web_server(served: tuple[str, list[str]], tmp_path: Path) -> None:
    index, asked = served
    direct = {"PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    run(*pip, "--target", tmp_path, "--index-url", index, "Acap_Runtime", PLUGIN, environment=direct)
    installed = {path.name for path in tmp_path.glob("*.dist-info")}
    assert installed == {f"{name}-{VERSION}.dist-info" for name in ("acap_runtime", "acap_runtime_debug")}
    assert f"/acap_runtime-{VERSION}-py3-none-any.whl" in asked
    # It resolves by the metadata beside the wheels, before it fetches any.
    metadata = [f"/{name}-{VERSION}-py3-none-any.whl.metadata" for name in ("acap_runtime", "acap_runtime_debug")]
    assert {*metadata} <= {*asked}
