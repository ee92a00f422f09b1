"""Make a release: the wheel and sdist of every distribution, a package index of them, and a list of their contents.

The same commit gives the same bytes, wherever and whenever it is built. Files have the commit's date, and are made by
the tool versions in BUILD_TOOLS. DIR appears when it is complete, and replaces only an earlier release. It contains

    *.whl, *.tar.gz   for pip's --find-links DIR
    simple/           an index of them, for pip's --extra-index-url
    CONTENTS.txt      every file in every one of them
    SHA256SUMS        of everything here, for sha256sum -c
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("core", "plugins", "LICENSE", ".gitignore")
UV = Path(sys.executable).with_name("uv")
BUILD_SYSTEM = {"requires": ["hatchling"], "build-backend": "hatchling.build"}
BUILD_TOOLS = (
    "hatchling==1.33.0",
    "packaging==26.4",
    "pathspec==1.1.1",
    "pluggy==1.7.0",
    "tomlkit==0.15.2",
    "trove-classifiers==2026.9.21.13",
)
"""hatchling and its dependencies. Other versions may write other bytes."""
SUMS = "SHA256SUMS"
# One process for all takes a tenth of the time of one process each, and gives the same bytes.
BUILD = """
import os, sys, tarfile
from hatchling.build import build_sdist, build_wheel
output, unpacked, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    sdist = build_sdist(output)
    with tarfile.open(os.path.join(output, sdist)) as archive:
        archive.extractall(unpacked)
    os.chdir(os.path.join(unpacked, sdist.removesuffix(".tar.gz")))
    print(sdist, build_wheel(output), flush=True)
"""


class ReleaseError(Exception):
    """No release can be made. The message tells what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Commit:
    """The commit to release. `changed` lists the files that differ from it."""

    name: str
    time: int
    changed: tuple[str, ...]

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.time, UTC).isoformat(" ", "seconds")
        return f"commit {self.name} of {when}{', with changes that are in no commit' if self.changed else ''}"


@dataclass(frozen=True)
class Archive:
    """A wheel or an sdist. `files` has the names and sizes of its contents."""

    name: str
    size: int
    sha256: str
    files: dict[str, int]


@dataclass(frozen=True)
class Distribution:
    """The distribution built from one folder. `metadata` is the METADATA file in its wheel."""

    name: str
    version: str
    requires: tuple[str, ...]
    requires_python: str
    wheel: Archive
    sdist: Archive
    metadata: bytes = field(repr=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        "dev.py release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output_help = "the release's folder [%(default)s]"
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help=output_help)
    parser.add_argument("--allow-dirty", action="store_true", help="release what is here, committed or not")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    started = time.monotonic()
    try:
        commit = read_commit(allow_dirty=arguments.allow_dirty)
        distributions = release(commit, output)
    except ReleaseError as error:
        return complain(str(error))
    except OSError as error:
        return complain(f"expected room to write {output}, got {error}; make some, or name another by --output")
    except KeyboardInterrupt:
        return 130
    say(f"made in {time.monotonic() - started:.1f} s")
    if arguments.json:
        print(json.dumps(as_json(commit, distributions, output), indent=2))
    else:
        print(f"{output}: {len(distributions)} distributions of {commit}")
        print(f"pip install --find-links {output} {distributions[0].name}")
    return 0


def read_commit(*, allow_dirty: bool) -> Commit:
    """Return the commit that is checked out. Raises `ReleaseError` for uncommitted changes, unless they are allowed."""
    name, seconds = git("log", "-1", "--format=%H %ct").split()
    changed = tuple(line[3:] for line in git("status", "--porcelain", "--untracked-files=all").splitlines())
    if changed:
        some = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")  # noqa: PLR2004
        if not allow_dirty:
            raise ReleaseError(
                f"expected a checkout without changes, got changes of {some}; commit or stash them, or give "
                "--allow-dirty to release them all the same"
            )
        say(f"warning: this release has changes that are in no commit: {some}")
    return Commit(name, int(seconds), changed)


def git(*words: str) -> str:
    return command(
        "git", "-C", ROOT, *words, problem="expected a git checkout, as git clone makes it, with git on PATH"
    )


def release(commit: Commit, output: Path) -> list[Distribution]:
    """Make a release beside `output`, and move it there when it is complete."""
    check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as name:
        work = Path(name)
        (work / ".gitignore").write_text("*\n")  # this folder does not count as a change of a checkout around it
        folders = copy_sources(work / "sources")
        made = work / "release"
        made.mkdir()
        distributions = list(build(folders, made, work, commit))
        check_ranges(distributions)
        write_index(made, distributions)
        (made / "CONTENTS.txt").write_text("\n".join(contents(commit, distributions)))
        (made / SUMS).write_text("".join(f"{sha256(path)}  {path.relative_to(made)}\n" for path in files_in(made)))
        if output.exists():
            output.rename(work / "replaced")
        made.rename(output)
    return distributions


def check_replaceable(output: Path) -> None:
    """Raise `ReleaseError` if `output` contains anything that is not part of an earlier release."""
    if not output.exists():
        return
    foreign = [output]
    if output.is_dir():
        sums = output / SUMS
        lines = sums.read_text().splitlines() if sums.is_file() else []
        released = {sums, *(output / line.partition("  ")[2] for line in lines)}
        foreign = [path for path in files_in(output) if path not in released]
    if foreign:
        raise ReleaseError(
            f"expected {output} to be new, empty or an earlier release, got {foreign[0]}, which is of no release; "
            "move it away, or name another folder by --output"
        )


def copy_sources(target: Path) -> list[Path]:
    """Copy the sources out of the checkout, and the licence into every distribution. Returns their folders."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES)
    for name in listed.split("\0"):
        if (ROOT / name).is_file():  # deleted files of a checkout with changes are listed too
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    folders = [target / "core", *sorted(path.parent for path in target.glob("plugins/*/pyproject.toml"))]
    for folder in folders:
        system = tomllib.loads((folder / "pyproject.toml").read_text())["build-system"]
        if system != BUILD_SYSTEM:
            where = folder.relative_to(target) / "pyproject.toml"
            raise ReleaseError(f"{where}: expected build-system {BUILD_SYSTEM}, got {system}; teach {__file__} that")
        # hatchling puts a file of this name into wheel and sdist. The checkout has only one.
        shutil.copy(target / "LICENSE", folder)
    return folders


def build(folders: Sequence[Path], made: Path, work: Path, commit: Commit) -> Iterator[Distribution]:
    """Build the sdist of every folder, and the wheel from that sdist."""
    problem = "expected uv beside this Python, as dev.py puts it there, and a package index that has the build tools"
    command(UV, "venv", "--quiet", "--python", sys.executable, work / "tools", problem=problem)
    install = (UV, "pip", "install", "--quiet", "--no-deps", "--python", work / "tools")
    say("installing the build tools")
    command(*install, *BUILD_TOOLS, problem=problem)
    words: list[str | Path] = [work / "tools" / "bin" / "python", "-I", "-c", BUILD, made, work / "unpacked", *folders]
    # The caller's environment does not affect the build.
    environment = {"SOURCE_DATE_EPOCH": str(commit.time)}
    with (
        (work / "errors").open("w+") as errors,
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for number, line in enumerate(process.stdout, 1):
            sdist, wheel = line.split()
            distribution = read_distribution(made / wheel, made / sdist)
            say(f"{number} of {len(folders)}: {distribution.name} {distribution.version}")
            yield distribution
        if process.wait():
            errors.seek(0)
            raise ReleaseError(f"a distribution cannot be built; mend what hatchling says:\n{errors.read().strip()}")


def read_distribution(wheel: Path, sdist: Path) -> Distribution:
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {info.filename: info.file_size for info in archive.infolist()}
        (metadata,) = (archive.read(name) for name in in_wheel if name.endswith(".dist-info/METADATA"))
    with tarfile.open(sdist) as archive:
        in_sdist = {member.name: member.size for member in archive if member.isfile()}
    said = BytesParser().parsebytes(metadata)
    return Distribution(
        said["Name"],
        said["Version"],
        tuple(said.get_all("Requires-Dist", [])),
        said["Requires-Python"],
        Archive(wheel.name, wheel.stat().st_size, sha256(wheel), in_wheel),
        Archive(sdist.name, sdist.stat().st_size, sha256(sdist), in_sdist),
        metadata,
    )


def check_ranges(distributions: Sequence[Distribution]) -> None:
    """Raise `ReleaseError` if one distribution's version range excludes another distribution of the release."""
    versions = {canonicalize_name(each.name): each.version for each in distributions}
    for each in distributions:
        for needed in map(Requirement, each.requires):
            version = versions.get(canonicalize_name(needed.name))
            if version and not needed.specifier.contains(version, prereleases=True):
                raise ReleaseError(
                    f"expected every distribution to admit the others of its release, got {each.name} {each.version}, "
                    f"which needs {needed}, beside {needed.name} {version}; change the range in its pyproject.toml"
                )


def write_index(made: Path, distributions: Sequence[Distribution]) -> None:
    """Write an index for the Simple repository API, with each wheel's metadata beside it for dependency resolution."""
    links = []
    for each in distributions:
        name = canonicalize_name(each.name)
        metadata = made / f"{each.wheel.name}.metadata"
        metadata.write_bytes(each.metadata)
        python = f' data-requires-python="{html.escape(each.requires_python)}"'
        about = f'{python} data-core-metadata="sha256={sha256(metadata)}"'
        files = [link(each.wheel, about), link(each.sdist, python)]
        write_page(made / "simple" / name, each.name, files)
        links.append(f'<a href="{name}/">{name}</a><br>')
    write_page(made / "simple", "Distributions of acap-runtime", links)


def link(archive: Archive, about: str) -> str:
    return f'<a href="../../{archive.name}#sha256={archive.sha256}"{about}>{archive.name}</a><br>'


def write_page(folder: Path, title: str, links: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    version = '<meta name="pypi:repository-version" content="1.0">'
    head = f'<head><meta charset="utf-8">{version}<title>{title}</title></head>'
    lines = ["<!DOCTYPE html>", f'<html lang="en">{head}<body>', *links, "</body></html>"]
    (folder / "index.html").write_text("\n".join(lines) + "\n")


def contents(commit: Commit, distributions: Sequence[Distribution]) -> Iterator[str]:
    """Yield the lines of the list of the release's contents."""
    yield f"Made of {commit}. Sizes are in bytes."
    for each in distributions:
        for archive in (each.wheel, each.sdist):
            yield f"\n{archive.size:9}  {archive.name}"
            yield from (f"{size:13}  {name}" for name, size in sorted(archive.files.items()))
    yield ""


def as_json(commit: Commit, distributions: Sequence[Distribution], output: Path) -> dict[str, Any]:
    made = [asdict(each) for each in distributions]
    for each in made:
        del each["metadata"]
    return {"output": str(output), "commit": asdict(commit), "build_tools": BUILD_TOOLS, "distributions": made}


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(*words: object, problem: str) -> str:
    """Run a command and return its output. Raises `ReleaseError` if it cannot be run or fails."""
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ReleaseError(f"{problem}, got {error}") from error
    if done.returncode:
        raise ReleaseError(
            f"{problem}, got exit code {done.returncode} of {Path(str(words[0])).name}: {done.stderr.strip()}"
        )
    return done.stdout


def say(text: str) -> None:
    print(f"release: {text}", file=sys.stderr, flush=True)


def complain(text: str) -> int:
    say(f"error: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
