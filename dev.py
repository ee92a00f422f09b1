#!/usr/bin/env python3
"""The commands of this repository, for a machine that has Python 3.11 or newer and git.

    python3 dev.py demo              start the runtime, have it read handwritten digits from pictures and video, stop it
    python3 dev.py check             lint, types and the quick tests, for the working day
    python3 dev.py test [ARG ...]    lint, types and all tests, as CI runs them; with ARGs, pytest alone
    python3 dev.py test --oldest     the tests with the oldest versions of everything that the distributions ask for
    python3 dev.py test --long       all of that, the long tests, and both commands on fresh machines
    python3 dev.py fresh MACHINE     demo and test on a fresh machine: debian12, debian13, debian-testing, …
    python3 dev.py release           wheels, source archives and a package index of all distributions, in dist/

demo and test set up what they need: a virtual environment in .venv, packages from pip, and libraries from apt where
this is Debian and you are root: libyuv, and for the tests a C compiler, OpenCL, Vulkan in software and mmdebstrap.
Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
DISTRIBUTIONS = [ROOT / "core", *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
NEEDED = {
    "demo": [ROOT / "core", *(ROOT / "plugins" / name for name in ("debug", "libyuv", "tflite_cpu"))],
    "test": DISTRIBUTIONS,
}
OLDEST_PYTHON = (3, 11)
OLDEST_VENV = ROOT / ".venv-oldest"
FRESH = ROOT / "packaging" / "fresh_machine.py"
FRESH_MACHINES = ["debian12", "debian13", "debian-unstable"]
"""On which --long runs both commands: the stable releases, and the newest Python."""
APART = ["tests/distributions", "tests/cli/test_new_plugin.py", "tests/docs/test_writing_a_plugin.py"]
"""Tests that install distributions into environments of their own."""
IN_PARALLEL = ["--numprocesses", "3", "--dist", "loadgroup", "--no-loadscope-reorder"]
"""Tests wait more than they compute: three at a time keep two processors busy."""
INCOMPLETE = 3
"""docs/build_tables.py could not compare: not all tests can run here."""
SWIFTSHADER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acap-runtime" / "swiftshader"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one learns it here
        return complain(f"expected Python 3.11 or newer, got {sys.version.split()[0]}; run python3.11 dev.py …")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="start the runtime, have it read handwritten digits, stop it")
    demo.add_argument("--json", action="store_true", help="print JSON instead of a table")
    sheet_help = "where the frames of the video that it read go, as one PNG [%(default)s]"
    demo.add_argument("--sheet", type=Path, default=Path("digits.png"), metavar="PATH", help=sheet_help)
    commands.add_parser("check", help="lint, types and the quick tests")
    tests = commands.add_parser("test", help="lint, types and all tests; further arguments go to pytest")
    tests.add_argument("--oldest", action="store_true", help="the tests with the oldest versions of what is asked for")
    tests.add_argument("--long", action="store_true", help="everything, and fresh machines: an hour and more")
    commands.add_parser("fresh", help="demo and test on a fresh machine", add_help=False)
    commands.add_parser("release", help="make wheels, source archives and a package index", add_help=False)
    arguments, rest = parser.parse_known_args()
    if rest and (arguments.command in {"demo", "check"} or (arguments.command == "test" and arguments.long)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return perform(arguments, rest)
    except SetUpError as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return 130


def perform(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Do what was asked for; returns the exit code."""
    if arguments.command == "fresh":
        return run(sys.executable, FRESH, *rest)
    if arguments.command in {"check", "test"}:
        install_stand_ins()
    set_up("demo" if arguments.command == "demo" else "test")
    if arguments.command == "demo":
        options = ["--sheet", arguments.sheet.absolute(), *(["--json"] if arguments.json else [])]
        return run(PYTHON, ROOT / "examples" / "digits" / "demo.py", *options)
    if arguments.command == "check":
        return check()
    if arguments.command == "release":
        return run(PYTHON, ROOT / "packaging" / "release.py", *rest, folder=Path.cwd())
    if arguments.long:
        return test_long()
    return test_oldest(rest) if arguments.oldest else test(rest, long=False)


class SetUpError(Exception):
    """Something is missing that this script may not or cannot install."""


def set_up(group: str) -> None:
    install_libyuv()
    described = [ROOT / "pyproject.toml", *(path / "pyproject.toml" for path in NEEDED[group])]
    state = hashlib.sha256(b"".join([*(path.read_bytes() for path in described), sys.version.encode()])).hexdigest()
    stamp = VENV / f"{group}.stamp"
    if stamp.exists() and stamp.read_text() == state:
        return
    started = time.monotonic()
    say(f"setting up {VENV} (a minute or two, the first time)")
    if not PYTHON.exists():
        make_venv()
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    need(run(*pip, "--upgrade", "pip"), "pip could not be upgraded: is a package index reachable?")
    editable = [word for path in NEEDED[group] for word in ("--editable", path)]
    need(run(*pip, "--group", group, *editable), "the packages could not be installed: see pip's message above")
    stamp.write_text(state)
    say(f"set up in {time.monotonic() - started:.0f} s")


def make_venv() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    if run(sys.executable, "-m", "venv", VENV) == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    apt_install("python3-venv", "a virtual environment could not be made")
    need(run(sys.executable, "-m", "venv", VENV), "a virtual environment could not be made: see the message above")


def install_libyuv() -> None:
    if not ctypes.util.find_library("yuv"):
        apt_install("libyuv0", "libyuv is missing, with which images are converted")


def install_stand_ins() -> None:
    """What tests use where there is no accelerator. Where it cannot be installed, they skip and say what is missing."""
    if not can_apt():
        say("without root on Debian, tests that need gcc, pocl or SwiftShader skip where those are missing")
        return
    if not shutil.which("gcc"):
        apt_install("gcc", "a C compiler is missing, with which the tests make their fakes of drivers")
        apt_install("libc6-dev", "the C library's headers are missing")
    if not list(Path("/etc/OpenCL/vendors").glob("*.icd")):
        apt_install("pocl-opencl-icd", "an OpenCL device is missing, on which chip 13 is tested")
    if not shutil.which("mmdebstrap"):
        apt_install("mmdebstrap", "mmdebstrap is missing, which makes fresh machines")
    if not list(SWIFTSHADER.rglob("vk_swiftshader_icd.json")):
        unpack_swiftshader()


def unpack_swiftshader() -> None:
    """Vulkan in software, out of Debian's package of Chromium, without installing that."""
    say(f"unpacking SwiftShader into {SWIFTSHADER}, on which chip 8 is tested")
    with tempfile.TemporaryDirectory() as folder:
        run("apt-get", "-qq", "update")
        failed = subprocess.run(["apt-get", "-qq", "download", "chromium-common"], cwd=folder, check=False).returncode
        packages = list(Path(folder).glob("chromium-common_*.deb"))
        if failed or not packages:
            say("chromium-common could not be downloaded: tests of chip 8 on SwiftShader will skip")
            return
        SWIFTSHADER.mkdir(parents=True, exist_ok=True)
        need(run("dpkg-deb", "-x", packages[0], SWIFTSHADER), "SwiftShader could not be unpacked")


def can_apt() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(package: str, problem: str) -> None:
    if not can_apt():
        raise SetUpError(f"{problem}; on Debian or Ubuntu: sudo apt-get install {package}; then run this again")
    say(f"{problem}: apt-get install {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-qq", "update", environment=environment)
    failed = run("apt-get", "-qq", "install", "--no-install-recommends", package, environment=environment)
    need(failed, f"apt-get could not install {package}: see its message above")


def test(arguments: list[str], *, long: bool) -> int:
    """Run the gate, or pytest alone with the arguments given."""
    if arguments:
        say("tests")
        return complain("failed: tests") if run(PYTHON, "-m", "pytest", *arguments) else 0
    failed = check_sources()
    say("tests")
    with tempfile.TemporaryDirectory() as reports:
        environment = {**os.environ, "ACAP_REPORTS": reports}
        everything = ["-m", ""] if long else []
        if run(PYTHON, "-m", "pytest", *IN_PARALLEL, *everything, environment=environment):
            failed.append("tests")
        failed += compare_tables(sorted(Path(reports).glob("*.json")))
    return complain(f"failed: {', '.join(failed)}") if failed else 0


def check() -> int:
    """Run what a working day needs: everything but the tests that install distributions."""
    failed = check_sources()
    say("tests")
    if run(PYTHON, "-m", "pytest", *IN_PARALLEL, "-m", "not long", *(f"--ignore={path}" for path in APART)):
        failed.append("tests")
    return complain(f"failed: {', '.join(failed)}") if failed else 0


def check_sources() -> list[str]:
    """Check style and types; returns the names of what failed."""
    checks = [
        ("lint", [PYTHON, "-m", "ruff", "check", "."]),
        ("format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
        ("types", [PYTHON, "-m", "mypy"]),
        # Where Python may not write bytecode, each of the thousands of processes would compile the sources again.
        ("bytecode", [PYTHON, "-m", "compileall", "-q", *(path / "src" for path in DISTRIBUTIONS)]),
    ]
    failed = []
    for name, command in checks:
        say(name)
        if run(*command):
            failed.append(name)
    return failed


def compare_tables(reports: list[Path]) -> list[str]:
    """Compare the documents' tables with what the tests of all distributions have shown."""
    say("tables of the documents")
    if len(reports) < len(DISTRIBUTIONS):
        return [f"tables: {len(reports)} of {len(DISTRIBUTIONS)} distributions have a report"]
    code = run(PYTHON, ROOT / "docs" / "build_tables.py", "--check", *reports)
    if code == INCOMPLETE:
        say("the tables were not compared: not all tests can run here")
    return [] if code in (0, INCOMPLETE) else ["tables: run docs/build_tables.py on the reports"]


def test_long() -> int:
    """Run everything. What fails does not keep the rest from being tried."""
    steps: dict[str, Callable[[], int]] = {
        "test": partial(test, [], long=True),
        "test --oldest": partial(test_oldest, []),
        **{f"fresh {name}": partial(run, sys.executable, FRESH, name) for name in FRESH_MACHINES},
    }
    lines, codes = [], []
    for name, step in steps.items():
        started = time.monotonic()
        codes.append(step())
        lines.append(f"{name}: {'failed' if codes[-1] else 'passed'} in {time.monotonic() - started:.0f} s")
    for line in lines:
        say(line)
    return int(any(codes))


def test_oldest(arguments: list[str]) -> int:
    """Run the tests of all distributions with the lowest versions that their pyproject.toml allow."""
    set_up_oldest()
    folders = ["tests", *(str(path / "tests") for path in DISTRIBUTIONS)]
    # Those that make environments would resolve them anew, with the newest of everything.
    apart = [f"--ignore={path}" for path in APART]
    say("tests with the oldest versions")
    failed = run(OLDEST_VENV / "bin" / "python", "-m", "pytest", *(arguments or [*IN_PARALLEL, *folders, *apart]))
    return complain("failed: tests with the oldest versions") if failed else 0


def set_up_oldest() -> None:
    """Make an environment of the lowest versions that are asked for, on the oldest Python."""
    wanted = ".".join(map(str, OLDEST_PYTHON))
    python = sys.executable if sys.version_info[:2] == OLDEST_PYTHON else shutil.which(f"python{wanted}")
    if python is None:
        raise SetUpError(f"expected Python {wanted} on PATH, the oldest that is supported: its wheels are the oldest")
    uv = VENV / "bin" / "uv"
    say(f"setting up {OLDEST_VENV}")
    need(run(uv, "--quiet", "venv", "--clear", "--python", python, OLDEST_VENV), "no environment could be made")
    editable = [word for path in DISTRIBUTIONS for word in ("--editable", f"{path}[{','.join(extras(path))}]")]
    lowest = ["--python", OLDEST_VENV, "--resolution", "lowest-direct", "--group", "pyproject.toml:test"]
    lowest += ["--compile-bytecode"]  # thousands of processes import it
    need(run(uv, "--quiet", "pip", "install", *lowest, *editable), "the lowest versions cannot be had together")


def extras(distribution: Path) -> list[str]:
    """The extras of a distribution, of which the lowest versions count too."""
    import tomllib  # noqa: PLC0415 - older Pythons do not have it, and shall be told what is expected

    described = tomllib.loads((distribution / "pyproject.toml").read_text())
    return sorted(described["project"].get("optional-dependencies", {}))


def run(*command: object, folder: Path = ROOT, environment: dict[str, str] | None = None) -> int:
    return subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=False).returncode


def need(exit_code: int, problem: str) -> None:
    if exit_code:
        raise SetUpError(problem)


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def complain(text: str) -> int:
    say(f"error: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
