"""The Open Inference Protocol as NVIDIA's unmodified tritonclient calls it, in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import video_client
from acap_runtime import NotReady
from acap_runtime_libyuv import LibyuvBackend
from calls import soon
from client_environments import run

pytestmark = pytest.mark.timeout(600)  # the environment may have to be made first

DTYPES = [
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]
PICTURE = 'inputs = [{name = "image", shape = [1, 24, 32, 3]}]'
MODELS = {
    "echo": "",
    "slow": "delay = 0.3",
    "failing": 'fail = "run"',
    "two": "big_output = 1",
    "picture": PICTURE,
    "batch": 'inputs = [{name = "data", shape = [-1, 3]}]',
    **{dtype: f'inputs = [{{name = "data", dtype = "{dtype}", shape = [2, 3]}}]' for dtype in DTYPES},
}
Call = Callable[..., Any]


def libyuv_is_ready() -> bool:
    try:
        LibyuvBackend().probe()
    except NotReady:
        return False
    return True


needs_libyuv = pytest.mark.skipif(not libyuv_is_ready(), reason="libyuv is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, knobs in MODELS.items():
        (folder / f"{name}.toml").write_text(knobs)
    return folder


def given(folder: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("-m", f"{name}={folder / name}.toml")]


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any], folder: Path) -> Any:
    batch = f"batch={folder / 'batch'}.toml,batch=8,batch_delay=0.01"
    names = [name for name in MODELS if name != "batch"]
    return start_shared_server("-j", 1, *given(folder, *names), "-m", batch, "--camera", "test-pattern", "--queue", 16)


@pytest.fixture
def call(server: Any, triton_python: Path) -> Call:
    return caller(server, triton_python)


def caller(server: Any, python: Path) -> Call:
    def ask(function: str, *arguments: object) -> Any:
        return json.loads(run(python, "call_by_triton.py", server.address, function, *arguments))

    return ask


def test_a_client_learns_what_is_served(call: Call) -> None:
    found = call("describe", "picture")
    assert [found[name] for name in ("live", "ready", "model_ready", "unknown_ready")] == [True, True, True, False]
    assert found["version_ready"] == [True, False]
    assert found["server"]["name"] == "acap-runtime"
    assert sorted(found["server"]["extensions"]) == [
        *("model_configuration", "model_repository", "parameters", "statistics", "system_shared_memory")
    ]
    tensor = {"name": "image", "datatype": "UINT8", "shape": ["1", "24", "32", "3"]}
    assert found["metadata"] == {
        "name": "picture",
        "versions": ["1"],
        "platform": "debug-device",
        "inputs": [tensor],
        "outputs": [tensor],
    }
    config = found["config"]
    assert (config["name"], config["backend"], config.get("max_batch_size", 0)) == ("picture", "debug-device", 0)
    dims = {"name": "image", "data_type": "TYPE_UINT8", "dims": ["1", "24", "32", "3"]}
    assert config["input"] == [{**dims, "format": "FORMAT_NHWC"}]
    assert config["output"] == [dims]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}


def test_a_model_that_batches_says_so(call: Call) -> None:
    config = call("describe", "batch")["config"]
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "data", "data_type": "TYPE_UINT8", "dims": ["3"]}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "10000"


@pytest.mark.parametrize("function", ["infer_every_dtype", "infer_typed"])
def test_every_datatype_comes_back_as_it_was_sent(call: Call, function: str) -> None:
    same = call(function, *DTYPES)
    assert same == dict.fromkeys(same, True)
    assert set(DTYPES) - set(same) <= {"float16"}


def test_outputs_can_be_selected(call: Call) -> None:
    assert call("select", "two") == ["OK", ["data", "big"]]
    assert call("select", "two", "big") == ["OK", ["big"]]
    status, message = call("select", "two", "bog")
    assert status == "INVALID_ARGUMENT"
    assert "'bog'" in message
    assert "'data', 'big'" in message


@pytest.mark.parametrize(
    ("model", "parameters", "options", "status", "words"),
    [
        ("echo", {}, {"request_id": "one", "model_version": "1"}, "OK", []),
        ("echo", {"anything": "goes", "number": 3}, {"priority": 2, "sequence_id": 5}, "OK", []),
        ("echo", {}, {"timeout": 5_000_000}, "OK", []),
        ("slow", {}, {"timeout": 50_000}, "DEADLINE_EXCEEDED", ["50000 µs"]),
        ("echo", {}, {"timeout": -1}, "INVALID_ARGUMENT", ["timeout", "-1"]),
        ("echo", {"stream_id": "three"}, {}, "INVALID_ARGUMENT", ["stream_id", "int64_param", "string_param"]),
        ("echo", {"stream_id": 3}, {}, "FAILED_PRECONDITION", ["stream 3 does not exist"]),
        ("echo", {}, {"model_version": "2"}, "NOT_FOUND", ["version 2", "1"]),
        ("echo", {}, {"model_version": "latest"}, "INVALID_ARGUMENT", ["version", "'latest'"]),
        ("unknown", {}, {}, "NOT_FOUND", ["'unknown'"]),
        ("float32", {}, {}, "INVALID_ARGUMENT", ["'data'", "FP32", "UINT8"]),
        ("uint8", {}, {}, "INVALID_ARGUMENT", ["'data'", "[2, 3]", "[3]"]),
        ("failing", {}, {}, "INTERNAL", []),
        ("slow", {}, {"client_timeout": 0.05}, "DEADLINE_EXCEEDED", []),
    ],
)
def test_a_request_gets_its_answer_or_the_right_status(
    call: Call, model: str, parameters: dict[str, Any], options: dict[str, Any], status: str, words: list[str]
) -> None:
    got, answer = call("infer", model, json.dumps(parameters), json.dumps(options))
    assert got == status, answer
    if status != "OK":
        assert all(word in answer for word in words), answer
        return
    assert (answer["model_name"], answer["model_version"]) == (model, "1")
    assert answer.get("id", "") == options.get("request_id", "")
    assert answer["outputs"] == [{"name": "data", "datatype": "UINT8", "shape": ["3"]}]
    assert [base64.b64decode(each) for each in answer["raw_output_contents"]] == [b"\7\7\7"]


@needs_libyuv
def test_a_picture_of_another_size_is_converted(call: Call) -> None:
    (converted, value), (same, exact) = call("infer_picture", "picture")
    assert converted == same == [1, 24, 32, 3]
    assert exact == 90
    assert abs(value - 90) < 4


def test_a_model_runs_on_the_newest_picture_of_a_stream(server: Any, call: Call) -> None:
    with server.client() as client:
        video = video_client.Video(client.channel)
        stream = video.open(video_client.RGB, (32, 24))
        found = call("infer_stream", "picture", stream)
        assert found["reference"] > 0
        assert video.frame(stream, found["reference"]).data.hex() == found["picture"]
        video.close()


def test_calls_side_by_side_are_told_apart(call: Call) -> None:
    assert call("async_infer", "echo", 12) == {str(number): number for number in range(12)}


def test_a_stream_answers_in_order_and_takes_no_more_than_the_queue_does(call: Call) -> None:
    # --queue 16: had the stream more calls at once than that, some would be refused.
    assert call("stream", 200, "echo") == [[str(number), number] for number in range(200)]


def test_a_request_that_fails_does_not_end_its_stream(call: Call) -> None:
    found = call("stream", 6, "echo", "unknown", "failing")
    assert [found[0], found[3]] == [["0", 0], ["3", 3]]
    for number, text in ((1, "'unknown'"), (4, "'unknown'"), (2, ""), (5, "")):
        assert found[number][0] is None
        assert text in found[number][1]
    good, bad = call("stream_messages", "echo", "unknown")
    assert good["infer_response"]["id"] == "to echo"
    assert good["infer_response"]["parameters"] == {"triton_final_response": {"bool_param": True}}
    assert "error_message" not in good
    assert "'unknown'" in bad["error_message"]
    assert bad["infer_response"] == {
        "id": "to unknown",
        "model_name": "unknown",
        "parameters": {"triton_final_response": {"bool_param": True}},
    }


def test_a_stream_ends_by_its_first_error_if_the_client_asks_for_that(call: Call) -> None:
    assert call("stream_until_error", "echo", "unknown", "echo") == ["0", "StatusCode.NOT_FOUND"]


def test_a_client_that_vanishes_takes_its_calls_along(
    start_server: Callable[..., Any], folder: Path, triton_python: Path
) -> None:
    server = start_server("-j", 1, *given(folder, "slow"))
    call = caller(server, triton_python)
    call("stream_and_die", "slow", 100)
    started = time.monotonic()
    assert call("infer", "slow")[0] == "OK"
    assert time.monotonic() - started < 5  # 16 of the vanished client's would take that long
    (stats,) = call("statistics", "slow")[0]
    assert int(stats["inference_stats"]["success"]["count"]) < 6
    assert int(stats["inference_stats"]["fail"]["count"]) >= 10


def test_tensors_cross_by_shared_memory_both_ways(server: Any, call: Call) -> None:
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    open_before = len(list(descriptors.iterdir()))
    found = call("share", "echo")
    assert found["twice"] == "ALREADY_EXISTS"
    assert found["status"] == {"into": [1000, 3000], "out": [0, 4000]}
    assert found["raw"] == [0]
    assert found["output"] == ["UINT8", [1000]]
    assert found["same"]
    assert found["by_bytes"]
    assert found["around"] == 0
    for name, status, words in (
        ("small_output", "INVALID_ARGUMENT", ["output 'data'", "1000 bytes", "999"]),
        ("small_input", "INVALID_ARGUMENT", ["input 'data'", "1000 bytes", "999"]),
        ("beyond", "INVALID_ARGUMENT", ["3000", "'into'", "1000 from byte 2001"]),
        ("unknown", "NOT_FOUND", ["'nothing'"]),
        ("large", "INVALID_ARGUMENT", ["4001 bytes", "4000"]),
        ("gone", "NOT_FOUND", ["does not exist"]),
    ):
        assert found[name][0] == status, found[name]
        assert all(word in found[name][1] for word in words), found[name]
    assert found["left"] == ["into"]
    assert found["cuda"] == 0
    soon(lambda: len(list(descriptors.iterdir())) <= open_before)


def test_a_model_is_unloaded_and_loaded(call: Call) -> None:
    found = call("repository", "int8")
    every = {name: ["READY", ""] for name in MODELS}
    assert found["before"] == found["after"] == every
    state, reason = found["unloaded"].pop("int8")
    assert state == "UNAVAILABLE"
    assert "unloaded" in reason
    assert found["unloaded"] == {name: entry for name, entry in every.items() if name != "int8"}
    assert found["ready"] == sorted(MODELS.keys() - {"int8"})
    assert found["call"] == "NOT_FOUND"
    assert not found["ready_without"]
    assert found["server_ready"]
    assert found["again"][0] == "INVALID_ARGUMENT"  # it is there again, and does not take bytes
    assert found["override"][0] == "UNIMPLEMENTED"
    assert "'config'" in found["override"][1]
    assert found["unknown"] == "NOT_FOUND"


def test_the_index_says_why_a_model_is_not_served(
    start_server: Callable[..., Any], write: Call, tmp_path: Path, triton_python: Path
) -> None:
    write("good")
    write("bad", "no such knob")
    server = start_server("-j", 1, "--model-dir", tmp_path)
    found = caller(server, triton_python)("index")
    assert found["good"] == ["READY", ""]
    assert found["bad"][0] == "UNAVAILABLE"
    assert "bad.toml" in found["bad"][1]


def test_a_real_model_gives_what_predict_gives(
    start_server: Callable[..., Any], models: Path, triton_python: Path
) -> None:
    model = models / "mobilenet_v1_0.25_128_quant.tflite"
    if not model.is_file():
        pytest.skip(f"no {model}")
    server = start_server("-j", 2, "-m", f"mobilenet={model}")
    with server.client() as client:
        picture = np.random.default_rng(7).integers(0, 256, (1, 128, 128, 3), np.uint8)
        (scores,) = client.predict("mobilenet", {"data": picture}).values()
    found = caller(server, triton_python)("classify", "mobilenet", 7)
    assert found == ["UINT8", [1, 1001], scores.tobytes().hex()]


def test_statistics_count_what_became_of_calls(
    start_server: Callable[..., Any], folder: Path, triton_python: Path
) -> None:
    warm = f"warm={folder / 'uint8'}.toml,warm_up=zeros"
    server = start_server("-j", 1, *given(folder, "slow", "failing"), "-m", warm)
    call = caller(server, triton_python)
    call("async_infer", "slow", 8)
    call("infer", "failing")
    (slow,), (failing,), every = call("statistics", "slow", "failing", "")
    assert slow["version"] == "1"
    assert slow["inference_count"] == slow["execution_count"] == "8"
    assert abs(int(slow["last_inference"]) / 1000 - time.time()) < 60
    stats = slow["inference_stats"]
    assert {stats[name]["count"] for name in ("success", "queue", "compute_input", "compute_infer")} == {"8"}
    assert 8 * 0.3e9 <= int(stats["compute_infer"]["ns"]) < int(stats["success"]["ns"])
    assert int(stats["queue"]["ns"]) > 0.3e9
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in slow["batch_stats"]] == [("1", "8")]
    assert failing["inference_stats"]["fail"]["count"] == "1"
    assert "inference_count" not in failing
    assert [each["name"] for each in every] == ["failing", "slow", "warm"]
    assert "execution_count" not in every[2]  # nobody has called it


@pytest.mark.parametrize("allowed", [False, True])
def test_over_tcp_there_is_no_shared_memory_and_models_stay_unless_the_operator_allows_it(
    start_server: Callable[..., Any], folder: Path, triton_python: Path, free_port: int, allowed: bool
) -> None:
    arguments = ["-a", "localhost", "-p", free_port, *(["--model-control"] if allowed else [])]
    server = start_server("-j", 1, *given(folder, "echo"), *arguments)
    found = caller(server, triton_python)("control", "echo")
    assert "system_shared_memory" not in found["extensions"]
    assert ("model_repository" in found["extensions"]) is allowed
    assert found["register"][0] == "FAILED_PRECONDITION"
    assert "unix socket" in found["register"][1]
    assert found["unregister"] == "OK"  # clients begin with it
    assert found["load"][0] == found["unload"] == ("OK" if allowed else "PERMISSION_DENIED")
    assert found["index"] == ["OK", 1]


def test_what_is_not_there_says_so(call: Call) -> None:
    for status, message in call("unimplemented").values():
        assert status == "UNIMPLEMENTED"
        assert len(message.split()) > 5


def test_the_server_is_ready_when_required_models_are(start_server: Callable[..., Any], write: Call) -> None:
    lazy = write("lazy", "load_delay = 1.0")
    server = start_server("-j", 1, "-m", f"lazy={lazy}", ready=False)
    server.wait_for_log("listening")
    with server.client() as client:

        def ready(method: str = "ServerReady", request: bytes = b"") -> bool:
            answer = client.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            content = answer(request, timeout=10, wait_for_ready=True)
            assert content in {b"", b"\x08\x01"}
            return content != b""

        assert ready("ServerLive")
        assert not ready()
        assert not ready("ModelReady", b"\x0a\x04lazy")
        soon(ready)
        assert ready("ModelReady", b"\x0a\x04lazy")
        server.wait_for_log("ready")
        soon(lambda: len(server.workers()) == 1)  # chips that convert images were looked for too
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        soon(lambda: not ready())
        assert ready("ServerLive")
        soon(ready, within_s=20)


def test_a_message_that_is_none_ends_its_call(server: Any) -> None:
    with server.client() as client:
        for method in ("ModelInfer", "RepositoryIndex"):
            with pytest.raises(grpc.RpcError) as raised:
                client.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff\xff", timeout=10)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as raised:
            list(stream(iter([b"\xff\xff"]), timeout=10))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
