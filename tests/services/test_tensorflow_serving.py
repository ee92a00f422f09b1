"""TensorFlow Serving's API, as Google's unmodified stubs see it, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from client_environments import run
from serving import BAD, config, reload, version

pytestmark = pytest.mark.timeout(600)  # the environment may have to be made first
TWO = 'inputs = [{name = "x", dtype = "float32", shape = [-1, 3]}, {name = "y:0", dtype = "uint8", shape = [2]}]'
Calls = Callable[..., list[Any]]


@pytest.fixture
def calls(tensorflow_serving_python: Path) -> Calls:
    """Calls methods one after the other; requests are messages as JSON has them."""

    def call(server: Any, *pairs: tuple[str, Any]) -> list[Any]:
        words = [word for method, request in pairs for word in (method, json.dumps(request))]
        answers: list[Any] = json.loads(
            run(tensorflow_serving_python, "call_tensorflow_serving.py", server.address, *words)
        )
        return answers

    return call


def spec(name: str, **choice: Any) -> dict[str, Any]:
    return {"model_spec": {"name": name, **choice}}


def status(name: str, **choice: Any) -> tuple[str, Any]:
    return "GetModelStatus", spec(name, **choice)


def predict(name: str, **choice: Any) -> tuple[str, Any]:
    tensor = {"dtype": "DT_UINT8", "tensor_shape": {"dim": [{"size": 3}]}, "tensor_content": "AQID"}
    return "Predict", {**spec(name, **choice), "inputs": {"data": tensor}}


def metadata(name: str, *fields: str, **choice: Any) -> tuple[str, Any]:
    return "GetModelMetadata", {**spec(name, **choice), "metadata_field": fields}


ALL = {"model_version_policy": {"all": {}}}


def states(answer: Any) -> dict[int, str]:
    return {int(each["version"]): each["state"] for each in answer["model_version_status"]}


def version_in(answer: Any) -> int:
    return int(answer["model_spec"]["version"])


def test_metadata_is_a_signature_of_names_dtypes_and_shapes(start_server, tmp_path, calls) -> None:
    folder = version(tmp_path / "two", 7, TWO)
    answers = calls(
        start_server("-j", "1", "-m", f"two={folder}"),
        metadata("two", "signature_def"),
        metadata("two"),
        metadata("two", "signature_def", "weights"),
        metadata("other", "signature_def"),
        metadata("two", "signature_def", version=8),
    )
    found = answers[0]["metadata"]["signature_def"]
    assert found["@type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert list(found["signature_def"]) == ["serving_default"]
    signature = found["signature_def"]["serving_default"]
    expected = {
        "x": {"name": "x", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}},
        "y:0": {"name": "y:0", "dtype": "DT_UINT8", "tensor_shape": {"dim": [{"size": "2"}]}},
    }
    assert signature == {"inputs": expected, "outputs": expected, "method_name": "tensorflow/serving/predict"}
    assert answers[0]["model_spec"] == {"name": "two", "version": "7"}
    assert [answer.get("code") for answer in answers[1:]] == [
        *("INVALID_ARGUMENT", "INVALID_ARGUMENT", "NOT_FOUND", "NOT_FOUND"),
    ]
    assert "metadata_field" in answers[1]["details"]
    assert "weights" in answers[2]["details"]


def test_a_call_names_a_version_by_its_number_or_its_label(start_server, tmp_path, calls) -> None:
    folder = tmp_path / "name"
    for number in (1, 2, 3):
        version(folder, number)
    server = start_server("-j", "1", "-m", f"name={folder},versions=1+2,labels=stable:1+canary:2+old:3")
    *served, wrong_number, wrong_label, not_served = calls(
        server,
        predict("name"),
        predict("name", version=1),
        predict("name", version_label="stable"),
        predict("name", version_label="canary"),
        predict("name", version=3),
        predict("name", version_label="nightly"),
        predict("name", version_label="old"),
    )
    assert [version_in(answer) for answer in served] == [2, 1, 1, 2]
    assert all(answer["outputs"]["data"]["tensor_content"] == "AQID" for answer in served)
    assert {answer["code"] for answer in (wrong_number, wrong_label, not_served)} == {"NOT_FOUND"}
    assert "stable" in wrong_label["details"]
    assert "has: 1, 2" in wrong_number["details"]


def test_the_status_of_every_version_or_one_is_told_with_the_error_of_a_load(start_server, tmp_path, calls) -> None:
    folder = version(version(tmp_path / "name", 1), 2, BAD)
    server = start_server("-j", "1", "-m", f"name={folder},versions=all,labels=stable:1")
    every, first, stable, *unknown = calls(
        server,
        status("name"),
        status("name", version=1),
        status("name", version_label="stable"),
        status("name", version=3),
        status("name", version_label="canary"),
        status("other"),
        status(""),
    )
    bad, good = every["model_version_status"]
    assert (bad["version"], bad["state"], bad["status"]["error_code"]) == ("2", "END", "INVALID_ARGUMENT")
    assert "nonsense" in bad["status"]["error_message"]
    assert good == {"version": "1", "state": "AVAILABLE", "status": {}}
    assert first["model_version_status"] == stable["model_version_status"] == [good]
    assert [each["code"] for each in unknown] == ["NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "INVALID_ARGUMENT"]


def test_a_model_that_loads_is_said_to_load(start_server, tmp_path, calls) -> None:
    folder = version(tmp_path / "slow", 1, "load_delay = 60")
    server = start_server("-j", "1", "-m", f"slow={folder}", ready=False)
    server.wait_for_log("worker of")
    (answer,) = calls(server, status("slow"))
    assert states(answer) == {1: "LOADING"}


def test_a_reload_replaces_the_models_and_says_when_they_are_served(start_server, tmp_path, calls) -> None:
    old, new = version(tmp_path / "old", 1), version(version(tmp_path / "new", 1), 2)
    server = start_server("-j", "1", "-m", f"old={old}")
    done, gone, answer, whole, metrics = calls(
        server,
        reload(config("new", new, **ALL, version_labels={"stable": 1})),
        predict("old"),
        predict("new", version_label="stable"),
        status("new"),
        reload(config("new", new), metric_names=["/tensorflow/serving/request_count"]),
    )
    assert done == {"status": {}}
    assert gone["code"] == "NOT_FOUND"
    assert version_in(answer) == 1
    assert states(whole) == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert metrics["metric"] == [{"name": "/tensorflow/serving/request_count", "int64_value_increase": "0"}]
    # Without a policy the latest version alone is served.
    (after,) = calls(server, status("new"))
    assert states(after) == {2: "AVAILABLE", 1: "END"}
    assert after["model_version_status"][1]["status"] == {}


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({"latest": {"num_versions": 2}}, {2, 3}),
        ({"latest": {}}, {3}),
        ({"all": {}}, {1, 2, 3}),
        ({"specific": {"versions": [1, 3]}}, {1, 3}),
    ],
)
def test_a_reload_has_tensorflow_servings_version_policies(start_server, tmp_path, calls, policy, served) -> None:
    folder = tmp_path / "name"
    for number in (1, 2, 3):
        version(folder, number)
    _, answer = calls(
        start_server("-j", "1"), reload(config("name", folder, model_version_policy=policy)), status("name")
    )
    assert {number for number, state in states(answer).items() if state == "AVAILABLE"} == served


def test_a_reload_keeps_what_it_cannot_say(start_server, tmp_path, calls) -> None:
    folder, other = version(version(tmp_path / "name", 1), 2), version(tmp_path / "other", 1)
    server = start_server("-j", "1", "-m", f"name={folder},instances=3,versions=1", "-m", f"other={other}")
    calls(server, reload(config("other", other)), reload(config("name", folder), config("other", other)))
    assert "model name version 2 loaded" in server.log
    line = next(line for line in server.log.splitlines() if "model name version 2 loaded" in line)
    assert "3 instance(s)" in line
    assert server.log.count("model other version 1 loaded") == 1  # what stays the same stays loaded


def test_a_reload_with_a_bad_model_says_so_and_serves_the_others(start_server, tmp_path, calls) -> None:
    good, bad = version(tmp_path / "good", 1), version(tmp_path / "bad", 4, BAD)
    server = start_server("-j", "1")
    failed, answer, told, empty = calls(
        server,
        reload(config("good", good), config("bad", bad), config("none", tmp_path / "nothing")),
        predict("good"),
        status("bad"),
        status("none"),
    )
    assert failed["code"] == "UNKNOWN"
    assert "nonsense" in failed["details"]
    assert "nothing" in failed["details"]
    assert version_in(answer) == 1
    assert told["model_version_status"][0]["status"]["error_code"] == "INVALID_ARGUMENT"
    assert empty["code"] == "NOT_FOUND"
    assert "nothing" in empty["details"]


def test_a_reload_that_makes_no_sense_changes_nothing(start_server, tmp_path, calls) -> None:
    folder = version(version(tmp_path / "name", 1), 2, BAD)
    server = start_server("-j", "1", "-m", f"name={folder},versions=1,labels=stable:1")
    custom = {"custom_model_config": {"@type": "type.googleapis.com/tensorflow.serving.ModelConfigList"}}
    wrong = [
        ({"config": custom}, "INVALID_ARGUMENT", "custom_model_config"),
        ({}, "INVALID_ARGUMENT", "nothing"),
        (reload(config("", folder))[1], "INVALID_ARGUMENT", "name"),
        (reload(config("/etc/passwd", folder))[1], "INVALID_ARGUMENT", "not a path"),
        (reload(config("a\nb", folder))[1], "INVALID_ARGUMENT", "printable"),
        (reload(config("name", "relative"))[1], "INVALID_ARGUMENT", "absolute"),
        (reload(config("name", "/a\0b"))[1], "INVALID_ARGUMENT", "absolute"),
        (reload(config("name", folder), config("name", folder))[1], "INVALID_ARGUMENT", "once"),
        (reload(config("name", folder, version_labels={"a": -1}))[1], "INVALID_ARGUMENT", "-1"),
        (reload(config("name", folder, model_version_policy={"specific": {}}))[1], "INVALID_ARGUMENT", "version"),
        (reload(config("name", folder, logging_config={}))[1], "UNIMPLEMENTED", "requests"),
        (reload(config("name", folder, version_labels={"stable": 2}))[1], "FAILED_PRECONDITION", "not available"),
    ]
    *answers, after = calls(server, *[("HandleReloadConfigRequest", request) for request, *_ in wrong], status("name"))
    for answer, (_, code, word) in zip(answers, wrong, strict=True):
        assert answer["code"] == code, answer
        assert word in answer["details"]
    assert states(after) == {1: "AVAILABLE"}


def test_a_label_moves_to_a_version_that_is_served(start_server, tmp_path, calls) -> None:
    folder = version(version(tmp_path / "name", 1), 2)
    server = start_server("-j", "1", "-m", f"name={folder},versions=1,labels=stable:1")
    _, moved, answer = calls(
        server,
        reload(config("name", folder, **ALL, version_labels={"stable": 1})),
        reload(config("name", folder, **ALL, version_labels={"stable": 2})),
        predict("name", version_label="stable"),
    )
    assert moved == {"status": {}}
    assert version_in(answer) == 2


def test_over_tcp_a_reload_needs_model_control(start_server, tmp_path, calls, free_port) -> None:
    folder = version(tmp_path / "name", 1)
    server = start_server("-j", "1", "-a", "127.0.0.1", "-p", free_port, "-m", f"name={folder}")
    refused, after = calls(server, reload(), status("name"))
    assert refused["code"] == "PERMISSION_DENIED"
    assert "--model-control" in refused["details"]
    assert states(after) == {1: "AVAILABLE"}


def test_over_tcp_a_reload_names_what_the_operator_gave_and_nothing_else(
    start_server, tmp_path, calls, free_port
) -> None:
    given, outside, folder = version(tmp_path / "given", 1), version(tmp_path / "outside", 1), tmp_path / "models"
    version(folder / "inside", 1)
    (folder / "link").symlink_to(outside)
    arguments = ("-m", f"given={given}", "--model-dir", folder, "--model-control")
    server = start_server("-j", "1", "-a", "127.0.0.1", "-p", free_port, *arguments)
    forbidden = [outside, folder / "link", folder / ".." / "outside", tmp_path, f"{given}s", "/etc/passwd"]
    *answers, moved, back, last = calls(
        server,
        *(reload(config("x", path)) for path in forbidden),
        reload(config("other", folder / "inside")),
        reload(config("given", given)),
        predict("given"),
    )
    assert {answer["code"] for answer in answers} == {"PERMISSION_DENIED"}
    assert moved == back == {"status": {}}
    assert version_in(last) == 1


def test_a_reload_while_the_server_starts_waits_for_that(start_server, tmp_path, calls) -> None:
    slow, bad = version(tmp_path / "slow", 1, "load_delay = 3"), version(tmp_path / "bad", 1, BAD)
    server = start_server("-j", "1", "-m", f"slow={slow}", ready=False)
    server.wait_for_log("listening")
    (failed,) = calls(server, reload(config("slow", bad)))
    assert failed["code"] == "UNKNOWN"
    assert server.process.poll() is None
    assert "ready" in server.log


def test_what_needs_examples_is_unimplemented_with_the_way_out(start_server, calls) -> None:
    server = start_server("-j", "1")
    for answer in calls(server, *((method, {}) for method in ("Classify", "Regress", "MultiInference"))):
        assert answer["code"] == "UNIMPLEMENTED"
        assert "Predict" in answer["details"]


def test_requests_of_newer_stubs_are_served(start_server, tmp_path, calls) -> None:
    server = start_server("-j", "1", "-m", f"name={version(tmp_path / 'name', 1)}")
    (newer,) = calls(server, ("Predict", {**predict("name")[1], "client_id": "me", "request_options": {}}))
    assert version_in(newer) == 1
    # And of stubs that do not exist yet: field 2000 of PredictRequest, ModelSpec and ReloadConfigRequest.
    unknown = b"\x82\x7d\x03new"
    with server.client() as client:
        request = client.request("name", {"data": np.ones(3, np.uint8)})
        request.model_spec.MergeFromString(unknown)
        content = request.SerializeToString() + unknown
        for service, method, sent in (
            ("PredictionService", "Predict", content),
            ("ModelService", "GetModelStatus", b"\x0a\x06\x0a\x04name" + unknown),
            ("ModelService", "HandleReloadConfigRequest", b"\x0a\x02\x0a\x00" + unknown),
        ):
            call = client.channel.unary_unary(f"/tensorflow.serving.{service}/{method}")
            assert call(sent, timeout=30)


def test_a_client_that_gives_up_leaves_a_reload_to_be_finished(start_server, tmp_path, calls) -> None:
    old, slow = version(tmp_path / "old", 1), version(tmp_path / "slow", 1, "load_delay = 2")
    server = start_server("-j", "1", "-m", f"old={old}")
    with server.client() as client:
        path = str(slow).encode()
        inner = b"\x0a\x04slow\x12" + bytes([len(path)]) + path
        content = b"\x0a" + bytes([len(inner)]) + inner
        for _ in range(2):  # ModelConfigList in ModelServerConfig in ReloadConfigRequest
            content = b"\x0a" + bytes([len(content)]) + content
        call = client.channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        with pytest.raises(grpc.RpcError):
            call(content, timeout=0.5)
    server.wait_for_log("model slow version 1 loaded")
    (answer,) = calls(server, predict("slow"))
    assert version_in(answer) == 1
