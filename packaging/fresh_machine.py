#!/usr/bin/env python3
"""The README's two commands on a fresh machine: a bare Debian with python3 and git, into which the commit is cloned.

    python3 packaging/fresh_machine.py debian12 debian13

It reports how long each command took and how many tests passed. --record writes that into docs/machines.json, from
which docs/build_tables.py makes README's table of tested systems. Needs only the standard library, and root on Debian.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from debian_root import CACHE, SUITES, Root, RootError, environment, unpack

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "machines.json"
COMMANDS = ("demo", "test")
HOME = "/root/main"
MODELS = "/root/shared/models"
LIBRARIES = ("ai-edge-litert", "av", "grpcio", "numpy", "protobuf")
"""Distributions whose versions are recorded: those that have changed under us, and those that everything needs."""


@dataclass
class Step:
    """The result of one command: its exit code, its duration, and the counts of passed, failed and skipped tests."""

    command: str
    code: int
    seconds: float
    tests: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.tests.items())
        how = "passed" if self.code == 0 else f"FAILED with exit code {self.code}"
        return f"dev.py {self.command}: {how} in {self.seconds:.0f} s{f' ({counts})' if counts else ''}"


@dataclass
class Machine:
    """A fresh machine and the results of its commands."""

    name: str
    system: str
    python: str
    commit: str
    steps: list[Step] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(step.code == 0 for step in self.steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=SUITES, metavar="MACHINE", help=f"any of {', '.join(SUITES)}")
    parser.add_argument("--only", choices=COMMANDS, help="run one of the two commands")
    parser.add_argument("--commit", metavar="REVISION", default="HEAD", help="of a branch or tag [%(default)s]")
    parser.add_argument("--mirror", metavar="URL", help="Debian's packages, for a root that has to be made")
    parser.add_argument("--keep", action="store_true", help="keep the root, and say where it is")
    parser.add_argument("--record", action="store_true", help="write what passed into docs/machines.json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    commands = [given.only] if given.only else list(COMMANDS)
    try:
        commit = git("rev-parse", "--verify", f"{given.commit}^{{commit}}")
        if given.commit == "HEAD" and git("status", "--porcelain"):
            say("uncommitted changes are not part of the clone")
        machines = []
        for name in given.names:
            with unpacked(name, given.mirror, keep=given.keep) as root:
                machines.append(tried(name, root, commit, commands))
            for step in machines[-1].steps:
                say(f"{name}: {step}")
    except RootError as error:
        say(f"error: {error}")
        return 1
    whole = [machine for machine in machines if machine.passed and not given.only]
    if given.record and whole:
        record(whole)
    if given.json:
        print(json.dumps([asdict(machine) for machine in machines], indent=2))
    else:
        for machine in machines:
            print(f"{machine.name}: {machine.system}, Python {machine.python}")
            for step in machine.steps:
                print(f"  {step}")
    return int(not all(machine.passed for machine in machines))


@contextmanager
def unpacked(name: str, mirror: str | None, *, keep: bool) -> Iterator[Root]:
    """Unpack a fresh root, and remove it at the end of the block unless `keep` is set."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE))
    folder.chmod(0o755)
    try:
        yield unpack(name, folder, mirror)
    finally:
        if keep:
            say(f"{name}: kept in {folder}")
        else:
            shutil.rmtree(folder)


def tried(name: str, root: Root, commit: str, commands: Sequence[str]) -> Machine:
    """Clone the commit into the root and run the commands there."""
    git("clone", "--quiet", "--no-hardlinks", ".", f"{root.folder}{HOME}")
    root.run("git", "-C", HOME, "checkout", "--quiet", "--detach", commit)
    system = root.run("sh", "-c", '. /etc/os-release; echo "$PRETTY_NAME"')
    machine = Machine(name, system, root.run("python3", "--version").removeprefix("Python "), commit)
    say(f"{name}: {machine.system}, Python {machine.python}, commit {commit[:12]}")
    models = Path(os.environ.get("ACAP_TEST_MODELS", ROOT.parent / "shared" / "models"))
    shown = {models: MODELS} if models.is_dir() else {}
    for command in commands:
        machine.steps.append(step(root, command, shown))
        if machine.steps[-1].code:
            break
    if machine.passed:
        machine.libraries = libraries(root)
    return machine


def step(root: Root, command: str, shown: Mapping[Path, str]) -> Step:
    """Run one command of dev.py, and pass its output to standard error as it arrives."""
    say(f"dev.py {command}")
    started = time.monotonic()
    words = root.command("sh", "-c", f"cd {HOME} && exec python3 dev.py {command}", shown=shown)
    tests: dict[str, int] = {}
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in process.stdout:
            sys.stderr.write(line)
            sys.stderr.flush()
            for word, count in closing_line(line):
                tests[word] = tests.get(word, 0) + count
    return Step(command, process.returncode, round(time.monotonic() - started, 1), tests)


def closing_line(line: str) -> list[tuple[str, int]]:
    """Return the counts in pytest's last line, such as ``== 81 passed, 2 skipped in 10.03s ==``, or none otherwise."""
    # Tests that run pytest quote its closing line too, after other characters.
    if not re.match(r"(=+ )?\d+ (passed|failed|errors?)\b.* in \d+\.\d+s", line):
        return []
    return [(word, int(count)) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", line)]


def libraries(root: Root) -> dict[str, str]:
    """Return the versions of the libraries that were installed there."""
    listed = json.loads(root.run(f"{HOME}/.venv/bin/python", "-m", "pip", "list", "--format=json"))
    found = {each["name"]: each["version"] for each in listed if each["name"] in LIBRARIES}
    # Installed by apt and not by pip.
    found["libyuv"] = root.run("dpkg-query", "--show", "--showformat=${source:Upstream-Version}", "libyuv0")
    return dict(sorted(found.items()))


def record(machines: Sequence[Machine]) -> None:
    """Replace the rows of these machines in the record."""
    rows = {row["name"]: row for row in json.loads(RECORD.read_text())} if RECORD.exists() else {}
    for machine in machines:
        rows[machine.name] = asdict(machine)
    RECORD.write_text(json.dumps([rows[name] for name in SUITES if name in rows], indent=2) + "\n")
    say(f"wrote {RECORD.relative_to(ROOT)}; python3 docs/build_tables.py makes README's table of it")


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RootError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def say(text: str) -> None:
    print(f"fresh: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
