"""What each option takes, and which of several sources goes first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from acap_runtime.errors import InvalidRequest
from acap_runtime.settings.model_source import parse_model
from acap_runtime.settings.option_values import parse_parameters
from acap_runtime.settings.options import Settings, add_arguments
from acap_runtime.settings.reading import read_settings, traced_settings


def _settings(*words: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    variables = {f"ACAPRUNTIME_{name}": value for name, value in environment.items()}
    return read_settings(vars(parser.parse_args(words)), variables)


def test_defaults_are_the_originals() -> None:
    settings = _settings()
    assert (settings.address, settings.port, settings.socket) == ("0.0.0.0", 0, Path("/tmp/acap-runtime.sock"))
    assert (settings.chips, settings.models, settings.certificate, settings.key) == ((), (), None, None)
    assert (settings.verbose, settings.run_for_s, settings.parameters_override) == (False, 0.0, False)
    assert settings.max_message_size == 64


LEGACY = [
    (["-v"], "verbose", True),
    (["-a", "10.0.0.1"], "address", "10.0.0.1"),
    (["-p", "8501"], "port", 8501),
    (["-t", "30"], "run_for_s", 30.0),
    (["-c", "server.pem"], "certificate", Path("server.pem")),
    (["-k", "server.key"], "key", Path("server.key")),
    (["-j", "12"], "chips", ("12",)),
    (["-j", "12", "-j", "11"], "chips", ("12", "11")),
    (["-o"], "parameters_override", True),
]


@pytest.mark.parametrize(("words", "name", "value"), LEGACY, ids=str)
def test_a_flag_of_the_original_sets(words: list[str], name: str, value: Any) -> None:
    assert getattr(_settings(*words), name) == value


VARIABLES = [
    ("VERBOSE", "yes", "verbose", True),
    ("VERBOSE", "OFF", "verbose", False),
    ("OVERRIDE", "1", "parameters_override", True),
    ("ADDRESS", "::1", "address", "::1"),
    ("PORT", " 8501 ", "port", 8501),
    ("SOCKET", "/run/a b.sock", "socket", Path("/run/a b.sock")),
    ("RUN_FOR", "1.5", "run_for_s", 1.5),
    ("CLIENT_CA", "ca.pem", "client_ca", Path("ca.pem")),
    ("CHIP", "12 cpu-proc", "chips", ("12", "cpu-proc")),
    ("CHIP", "", "chips", ()),
    ("INSTANCES", "4", "instances", 4),
    ("THREADS", "2", "threads", 2),
    ("RUN_TIMEOUT", "0.5", "run_timeout_s", 0.5),
    ("LOAD_TIMEOUT", "9", "load_timeout_s", 9.0),
    ("QUEUE", "1", "queue", 1),
    ("ON_DEMAND_MODELS", "0", "on_demand_models", 0),
    ("MAX_MESSAGE_SIZE", "2046", "max_message_size", 2046),
    ("GRACE", "0", "grace_s", 0.0),
    ("PARAMETERS", "https://camera:8443", "parameters", "https://camera:8443"),
    ("PARAMETERS", "axparameter", "parameters", "axparameter"),
    ("PARAMETERS_CREDENTIALS", "secret", "parameters_credentials", Path("secret")),
    ("PARAMETERS_CA", "ca.pem", "parameters_ca", Path("ca.pem")),
    ("BLOCK", "debug 'two words'", "blocked", ("debug", "two words")),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), VARIABLES)
def test_a_variable_sets(variable: str, text: str, name: str, value: Any) -> None:
    assert getattr(_settings(**{variable: text}), name) == value


def test_the_command_line_goes_before_the_environment_and_that_before_defaults() -> None:
    assert _settings("-p", "1", PORT="2").port == 1
    assert _settings("-p", "0", PORT="2").port == 0
    assert _settings(PORT="2").port == 2
    assert _settings("-v", VERBOSE="no").verbose is True
    assert _settings("-j", "1", CHIP="2 3").chips == ("1",)
    assert _settings("-m", "a=/a", MODEL="b=/b").models[0].name == "a"


def test_an_empty_value_counts_as_not_given() -> None:
    assert _settings("-p", "", PORT="2").port == 2
    assert _settings("-p", "", PORT="").port == 0
    assert _settings("-j", "", "-j", "1").chips == ("1",)
    assert _settings("-m", "", MODEL="a=/a").models[0].name == "a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "-1"], "--port: expected an integer from 0 to 65535, got '-1'"),
        (["-p", "65536"], "--port: expected an integer from 0 to 65535, got '65536'"),
        (["-p", "8_0"], "--port: expected an integer from 0 to 65535, got '8_0'"),
        (["-p", "٣"], "--port: expected an integer from 0 to 65535, got '٣'"),
        (["-t", "-1"], "--run-for: expected a number of seconds, at least 0, got '-1'"),
        (["-t", "nan"], "--run-for: expected a number of seconds, at least 0, got 'nan'"),
        (["-t", "inf"], "--run-for: expected a number of seconds, at least 0, got 'inf'"),
        (["--run-timeout", "0"], "--run-timeout: expected a number of seconds, at least 0.05, got '0'"),
        (["--instances", "0"], "--instances: expected an integer from 1 to 64, got '0'"),
        (["--threads", "many"], "--threads: expected an integer from 1 to 256, got 'many'"),
        (["--max-message-size", "2047"], "--max-message-size: expected an integer from 1 to 2046, got '2047'"),
        (["-m", "=/x"], "--model: expected PATH or NAME=PATH, got '=/x'"),
        (["-m", "name="], "--model: expected PATH or NAME=PATH, got 'name='"),
        (["-m", "a=/x,instances=0"], "--model: instances: expected an integer from 1 to 64, got '0'"),
        (["-m", "a=/x", "-m", "a=/y"], "--model: expected each name once, got a again"),
    ],
)
def test_a_value_that_does_not_parse_is_refused_with_option_expected_and_got(words: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _settings(*(f"{words[0]}={words[1]}", *words[2:]) if words[0].startswith("--") else words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "http", "ACAPRUNTIME_PORT: expected an integer from 0 to 65535, got 'http'"),
        ("VERBOSE", "perhaps", "ACAPRUNTIME_VERBOSE: expected yes or no, got 'perhaps'"),
        ("MODEL", "a=/x b=", "ACAPRUNTIME_MODEL: expected PATH or NAME=PATH, got 'b='"),
        ("MODEL", "'a=/x", "ACAPRUNTIME_MODEL: No closing quotation"),
    ],
)
def test_a_variable_that_does_not_parse_is_refused_by_its_name(variable: str, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _settings(**{variable: text})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "name", "path", "options", "instances"),
    [
        ("/m/a.tflite", "/m/a.tflite", "/m/a.tflite", {}, None),
        ("a=/m/a.tflite", "a", "/m/a.tflite", {}, None),
        ("/m/a=b.tflite", "/m/a=b.tflite", "/m/a=b.tflite", {}, None),
        ("a=/m/x=y.tflite", "a", "/m/x=y.tflite", {}, None),
        ("/m/a,b.tflite", "/m/a,b.tflite", "/m/a,b.tflite", {}, None),
        ("a=/m/a.tflite,threads=2", "a", "/m/a.tflite", {"threads": "2"}, None),
        ("a=/m/a.tflite,instances=3,threads=2", "a", "/m/a.tflite", {"threads": "2"}, 3),
        ("/m/a.tflite,delay=0.5,note=a=b", "/m/a.tflite", "/m/a.tflite", {"delay": "0.5", "note": "a=b"}, None),
    ],
)
def test_a_model_is_a_path_perhaps_with_a_name_and_options(
    text: str, name: str, path: str, options: dict[str, str], instances: int | None
) -> None:
    source = parse_model(text)
    assert (source.name, source.path, dict(source.options), source.instances) == (name, Path(path), options, instances)


def test_a_relative_model_starts_in_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_model("a=models/a.tflite").path == tmp_path / "models" / "a.tflite"


@pytest.mark.parametrize(
    "text", ["device.txt", "./a b", "axparameter", "http://127.0.0.1", "https://[::1]:8443/", "HTTPS://camera/base"]
)
def test_parameters_come_from_a_file_a_store_or_a_camera(text: str) -> None:
    assert parse_parameters(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "ftp://camera",
        "https://",
        "https://camera:port",
        "https://camera:0",
        "http://camera/?a=b",
        "http://[::1",
        "x://y",
    ],
)
def test_another_url_is_refused(text: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"--parameters: expected https://HOST\[:PORT\] or http://HOST\[:PORT\], got"
    ):
        _settings("--parameters", text)


@pytest.mark.parametrize(
    "text",
    ["https://root:secret@camera", "http://secret@camera", "https://root:se/secret@camera", "ftp://root:secret@x"],
)
def test_a_password_in_a_url_is_refused_with_what_to_do_and_never_shown(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--parameters-credentials.*ACAPRUNTIME_PARAMETERS_PASSWORD") as caught:
        _settings("--parameters", text)
    assert "secret" not in str(caught.value)


def test_each_setting_knows_where_it_came_from() -> None:
    settings, origins = traced_settings(
        {"port": "1", "chips": [""]}, {"ACAPRUNTIME_PORT": "2", "ACAPRUNTIME_CHIP": "12"}
    )
    assert (settings.port, settings.chips) == (1, ("12",))
    assert origins.keys() == vars(settings).keys()
    assert (origins["port"], origins["chips"]) == ("command line", "environment ACAPRUNTIME_CHIP")
    assert {each for name, each in origins.items() if name not in {"port", "chips"}} == {"default"}
