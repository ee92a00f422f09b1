"""Settings from a TOML file: what they are, where each stands, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from acap_runtime import InvalidRequest
from acap_runtime.settings.camera_source import CameraSource
from acap_runtime.settings.model_source import VersionPolicy
from acap_runtime.settings.options import Settings
from acap_runtime.settings.reading import read_settings, traced_settings

FULL = """\
# comment
port = 2222
chip = [
  "2",
  "libyuv",
]
verbose = true
run-timeout = 1.5
socket = "/run/x.sock"

[models.digits]
path = "/m/digits"
chip = 4
instances = 2
versions = [1, 3]
labels = { stable = 1, next = 3 }
warm_up = ["/m/a.npy", "/m/b.png"]
threads = 2

[models."faces.v2"]
path = "/m/faces.tflite"
warm_up = "zeros"

[cameras]
door.source = "rtsp://host/a"
"""


def written(path: Path, text: str) -> dict[str, str]:
    file = path / "runtime.toml"
    file.write_text(text)
    return {"config": str(file)}


def test_a_file_says_all_that_the_command_line_can(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, FULL), {})
    assert (settings.port, settings.chips, settings.verbose, settings.run_timeout_s) == (
        2222,
        ("2", "libyuv"),
        True,
        1.5,
    )
    assert settings.socket == Path("/run/x.sock")
    digits, faces = settings.models
    assert (digits.name, digits.path, digits.chip, digits.instances) == ("digits", Path("/m/digits"), "4", 2)
    assert digits.versions == VersionPolicy(specific=frozenset([1, 3]))
    assert digits.labels == {"stable": 1, "next": 3}
    assert digits.warm_up == (Path("/m/a.npy"), Path("/m/b.png"))
    assert digits.options == {"threads": "2"}
    assert (faces.name, faces.warm_up) == ("faces.v2", None)
    assert settings.cameras == (CameraSource("door", "rtsp://host/a"),)


def test_each_value_is_traced_to_its_line(tmp_path: Path) -> None:
    given = written(tmp_path, FULL)
    _, origins = traced_settings(given, {})
    file = given["config"]
    assert origins["port"] == f"{file}:2"
    assert origins["chips"] == f"{file}:3"
    assert origins["run_timeout_s"] == f"{file}:8"
    assert origins["models"] == f"{file}:11"
    assert origins["cameras"] == f"{file}:25"
    assert origins["config"] == "command line"
    assert origins["queue"] == "default"


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    given = written(tmp_path, "port = 1\nqueue = 2\ngrace = 3")
    environment = {"ACAPRUNTIME_CONFIG": given["config"], "ACAPRUNTIME_PORT": "4", "ACAPRUNTIME_QUEUE": "5"}
    settings = read_settings({"port": "6"}, environment)
    assert (settings.port, settings.queue, settings.grace_s) == (6, 5, 3.0)
    # What the command line says twice it says alone: lists are not joined.
    models = written(tmp_path, '[models.a]\npath = "/a"')
    assert [model.name for model in read_settings({**models, "models": ["b=/b"]}, {}).models] == ["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ports = 1", ":1: ports: unknown; did you mean port?"),
        ("zebra = 1", ":1: zebra: unknown; expected one of: address, block, camera, cameras, "),
        ('\nport = "many"', ":2: port: expected an integer from 0 to 65535, got 'many'"),
        ("port = 1979-05-27", ":1: port: expected text, a number, true or false, got datetime.date(1979, 5, 27)"),
        ("verbose = 3", ":1: verbose: expected yes or no, got '3'"),
        ("[model.a]\npath = 3", ":1: model.a: expected a value, got a table; did you mean [models.a]?"),
        ("chip = [[2]]", ":1: chip: expected text, a number, true or false, got [2]"),
        ("[port]\nx = 1", ":2: port.x: expected a value, got a table"),
        ("models = 3", ":1: models: expected tables"),
        ("[models]\na = 3", ":2: models.a: expected a table, got 3"),
        ("[models.a]\nthreads = 1", ":1: models.a: expected a path, got threads"),
        ('[models.a]\npath = "/a"\nlabels = 3', ":3: models.a: labels: expected a table, got 3"),
        ('[models.a]\npath = "/a"\n\nqueue = 0', ":4: models.a: queue: expected an integer from 1 to 100000, got '0'"),
        ("[cameras.a]\nurl = 1", ":1: cameras.a: "),
        ('[cameras.1]\nsource = "x"', ":1: cameras.1: expected a name that is no number"),
        ('config = "x"', ":1: config: unknown; "),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    given = written(tmp_path, text)
    with pytest.raises(InvalidRequest) as caught:
        read_settings(given, {})
    assert str(caught.value).startswith(given["config"] + expected)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_settings(written(tmp_path, "port = -1\nqueue = 0\n[models.a]\npath = 3\nbatch = 0"), {})
    assert [line.split(": ")[0].rpartition(":")[2] for line in str(caught.value).splitlines()] == ["1", "2", "5"]


def test_a_file_that_is_absent_or_no_toml_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    with pytest.raises(InvalidRequest, match=r"configuration file .*/absent\.toml: No such file or directory"):
        read_settings({"config": str(absent)}, {})
    with pytest.raises(InvalidRequest, match=r"runtime\.toml: .*\(at line 2, column 6\)"):
        read_settings(written(tmp_path, "port = 1\nthis is no TOML"), {})
    (tmp_path / "runtime.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match=r"expected text in UTF-8"):
        read_settings({"config": str(tmp_path / "runtime.toml")}, {})


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, ""), {}).port == Settings().port
