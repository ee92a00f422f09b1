"""``acapruntime config``: every setting, its value, and where it came from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from surprises import surprises

COMMAND = Path(sys.executable).with_name("acapruntime")


def run(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
    return subprocess.run(
        [COMMAND, "config", *map(str, words)],
        capture_output=True,
        text=True,
        env={**clean, **(environment or {})},
        timeout=60,
        check=False,
    )


def rows(*words: object, environment: Mapping[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    """Value and origin by setting."""
    done = run("--json", *words, environment=environment)
    assert done.returncode == 0, done.stderr
    return {row["setting"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)}


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device.txt"
    path.write_text(
        "root.Acapruntime.Verbose=yes\nroot.Acapruntime.IpPort=9001\nroot.Acapruntime.UseTLS=yes\n"
        "root.Acapruntime.ChipId=4\n"
    )
    return path


def test_every_setting_is_there_with_its_default() -> None:
    found = rows()
    assert {origin for _, origin in found.values()} == {"default"}
    assert found["port"] == (0, "default")
    assert found["socket"] == ("/tmp/acap-runtime.sock", "default")
    assert found["override"] == (False, "default")
    assert found["model"] == ([], "default")
    assert found["certificate"] == (None, "default")
    done = run("--help")
    assert done.returncode == 0
    assert all(f"--{setting}" in done.stdout for setting in found)


def test_each_says_where_it_came_from() -> None:
    environment = {"ACAPRUNTIME_PORT": "1", "ACAPRUNTIME_QUEUE": "7", "ACAPRUNTIME_MODEL": "env=/env"}
    words = ("", "-p", "2", "-j", "12", "-j", "11", "-m", "a=/a,threads=2,instances=3", "-m", "/b", "--grace", "")
    found = rows(*words, environment=environment)
    assert found["port"] == (2, "command line")
    assert found["chip"] == (["12", "11"], "command line")
    assert found["model"] == (["a=/a,threads=2,instances=3", "/b"], "command line")
    assert found["queue"] == (7, "environment ACAPRUNTIME_QUEUE")
    assert found["grace"] == (5.0, "default")


def test_the_devices_parameters_are_read_with_the_option_only(device: Path) -> None:
    words = ("-p", "2", "-j", "12", "-j", "11", "--parameters", device)
    assert rows(*words)["port"] == (2, "command line")
    found = rows(*words, "-o")
    assert found["port"] == (9001, "parameter root.Acapruntime.IpPort")
    assert found["verbose"] == (True, "parameter root.Acapruntime.Verbose")
    assert found["chip"] == (["4", "11"], "parameter root.Acapruntime.ChipId")
    for name, file in (("certificate", "server.pem"), ("key", "server.key")):
        assert found[name] == (f"/usr/local/packages/acapruntime/{file}", "parameter root.Acapruntime.UseTLS")
    assert found["address"] == ("0.0.0.0", "default")


def test_a_parameter_that_does_not_parse_is_warned_of_beside_the_output(device: Path) -> None:
    device.write_text("root.Acapruntime.IpPort=http\n")
    done = run("-o", "--json", "--parameters", device)
    assert done.returncode == 0
    assert json.loads(done.stdout)
    assert "root.Acapruntime.IpPort: expected an integer from 0 to 65535, got 'http'" in done.stderr


def test_a_store_that_cannot_be_read_ends_it_with_1(tmp_path: Path) -> None:
    done = run("-o", "--parameters", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("acapruntime: error: -o: root.Acapruntime.Verbose cannot be read: parameters file ")
    assert "No such file or directory" in done.stderr
    assert not surprises(done.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "abc"], "--port: expected an integer"),
        (["--nobody"], "--nobody"),
        (["hello"], "hello"),
        (["--parameters", "https://root:secret@camera"], "--parameters: expected a URL without user name and password"),
    ],
)
def test_what_does_not_parse_ends_it_with_2(words: list[str], said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "secret" not in done.stderr


def test_passwords_are_hidden() -> None:
    environment = {"ACAPRUNTIME_PARAMETERS_USER": "secret", "ACAPRUNTIME_PARAMETERS_PASSWORD": "secret"}
    done = run(
        *("--camera", "rtsp://root:secret@camera/a", "--camera", "door=rtsp://root:secret@camera/b"),
        *("--parameters", "https://camera"),
        environment=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "rtsp://***@camera/a, door=rtsp://***@camera/b" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_the_table_has_a_line_for_each() -> None:
    lines = run("-p", "2").stdout.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "ORIGIN"]
    assert any(line.split() == ["port", "2", "command", "line"] for line in lines)


def test_a_file_is_checked_and_everything_wrong_in_it_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "runtime.toml"
    file.write_text('port = 0\n[models.a]\npath = "/a"\nqueue = 0\n')
    done = run("--check", file)
    assert done.returncode == 1
    assert done.stdout == f"{file}:4: models.a: queue: expected an integer from 1 to 100000, got '0'\n"
    done = run("--check", file, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "file": str(file),
        "problems": [f"{file}:4: models.a: queue: expected an integer from 1 to 100000, got '0'"],
    }
    file.write_text('port = 0\n[models.a]\npath = "/a"\nqueue = 1\n')
    done = run("--check", file)
    assert (done.returncode, done.stdout) == (0, f"{file}: nothing is wrong\n")


def test_values_of_a_file_are_shown_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "runtime.toml"
    file.write_text('grace = 1\n\n[models.a]\npath = "/a"\nchip = 2\nversions = "all"\n')
    shown = rows("--config", file, "--port", "3")
    assert shown["grace"] == (1.0, f"{file}:1")
    assert shown["model"] == (["a=/a,chip=2,versions=all"], f"{file}:3")
    assert shown["port"] == (3, "command line")
    assert shown["config"] == (str(file), "command line")
