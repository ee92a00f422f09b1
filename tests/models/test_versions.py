"""Versions that come and go while clients call, chips beside each other, and what runs before a first call."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import counting_chip
import grpc
import numpy as np
import psutil
import pytest
from acap_runtime.client import connect
from calls import code_of
from calls import soon as soon_within
from converters import NO_CONVERTERS

soon = partial(soon_within, within_s=20.0)
DATA = np.array([1, 2, 3], np.uint8)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture
def start_server(start_server: Callable[..., Any]) -> Callable[..., Any]:
    """No image is converted here: spare each start the probe of the chip that would do it."""
    return partial(start_server, *NO_CONVERTERS)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Puts a version of a model of the debug chip into the folder `models`, in one step as a careful operator does."""

    def put_version(name: str, version: int, *knobs: str) -> Path:
        folder = tmp_path / "models" / name / str(version)
        making = tmp_path / "making"
        making.mkdir()
        (making / "model.toml").write_text("\n".join(knobs))
        folder.parent.mkdir(parents=True, exist_ok=True)
        making.rename(folder)
        return folder.parent

    return put_version


def version_of(client: Any, model: str, number: int | None = None, label: str = "") -> int:
    """The number of the version that answers a call."""
    request = client.request(model, {"data": DATA})
    if number is not None:
        request.model_spec.version.value = number
    if label:
        request.model_spec.version_label = label
    response = client.send(request)
    assert client.arrays(response)["data"].tolist() == DATA.tolist()
    return response.model_spec.version.value


@contextmanager
def calling(client: Any, model: str, every_s: float) -> Iterator[list[int | grpc.StatusCode]]:
    """Calls a model over and over, from four threads; gives the versions that answered, or the status."""
    outcomes: list[int | grpc.StatusCode] = []
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(every_s):
            try:
                outcomes.append(version_of(client, model))
            except grpc.RpcError as error:
                outcomes.append(error.code())

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(call)
        try:
            yield outcomes
        finally:
            ended.set()


def test_the_latest_version_is_served_and_others_by_number_or_label(start_server, put) -> None:
    for version in (1, 2, 3):
        folder = put("echo", version)
    server = start_server("-j", "1", "-m", f"echo={folder},versions=latest:2,labels=stable:2+old:1")
    with server.client() as client:
        assert version_of(client, "echo") == 3
        assert version_of(client, "echo", number=2) == 2
        assert version_of(client, "echo", label="stable") == 2
        code, said = code_of(lambda: version_of(client, "echo", number=1))
        assert (code, said) == (NOT_FOUND, "model 'echo' has no version 1; it has: 2, 3")
        code, said = code_of(lambda: version_of(client, "echo", label="old"))
        assert (code, said) == (NOT_FOUND, "model 'echo' has no version 1; it has: 2, 3")
        code, said = code_of(lambda: version_of(client, "echo", label="new"))
        assert (code, said) == (NOT_FOUND, "model 'echo' has no version label 'new'; it has: 'old', 'stable'")


def test_versions_come_and_go_and_no_call_fails(start_server, put) -> None:
    folder = put("echo", 1)
    server = start_server("-j", "1", "-m", f"echo={folder}")

    def states() -> dict[int, str]:
        return {each["version"]: each["state"] for each in told.status()["models"]}

    # Some 1,000 calls a minute.
    with (
        server.client() as client,
        connect(server.address) as told,
        calling(client, "echo", every_s=0.24) as outcomes,
    ):
        soon(lambda: outcomes.count(1) > 5)
        assert states() == {1: "available"}
        put("echo", 2, "load_delay = 0.5")
        soon(lambda: states() == {1: "available", 2: "loading"})
        soon(lambda: 2 in outcomes)
        server.wait_for_log("model echo version 1 unloaded")
        soon(lambda: states() == {1: "end", 2: "available"})
        put("echo", 3, "no knob = true")
        server.wait_for_log("model echo version 3 could not be loaded: ")
        assert states() == {1: "end", 2: "available", 3: "end"}
        (bad,) = (each for each in told.status()["models"] if each["version"] == 3)
        assert "expected a TOML text" in bad["error"]
        soon(lambda: outcomes[-1] == 2)
        shutil.rmtree(folder / "3")
        put("echo", 4)
        soon(lambda: outcomes[-1] == 4)
        shutil.rmtree(folder / "4")
        soon(lambda: outcomes[-1] == 2)
        soon(lambda: states() == {1: "end", 2: "available", 3: "end", 4: "end"})
    assert set(outcomes) == {1, 2, 4}
    # Once the new one answers, the old one does no more.
    first = outcomes.index(2)
    assert 1 not in outcomes[first + 4 :]


def test_the_former_version_ends_its_calls_before_it_is_unloaded(start_server, put) -> None:
    folder = put("echo", 1, "delay = 2.0")
    server = start_server("-j", "1", "-m", f"echo={folder}")
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(version_of, client, "echo")
        time.sleep(0.3)
        put("echo", 2)
        server.wait_for_log("model echo version 2 loaded")
        soon(lambda: version_of(client, "echo") == 2)
        assert not slow.done()
        assert "unloaded" not in server.log
        assert slow.result() == 1
        server.wait_for_log("model echo version 1 unloaded")


def test_a_files_new_content_takes_its_place_and_a_bad_one_does_not(start_server, write, tmp_path: Path) -> None:
    model = Path(write("echo", "[[inputs]]", 'name = "data"', "shape = [3]"))

    def replace(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(model)

    def accepts(*values: int) -> bool:
        try:
            client.predict("echo", {"data": np.array(values, np.uint8)})
        except grpc.RpcError:
            return False
        return True

    server = start_server("-j", "1", "-m", f"echo={model}")
    with server.client() as client:
        assert accepts(1, 2, 3)
        assert not accepts(1, 2)
        replace("this is no model")
        server.wait_for_log("model echo: its former content goes on serving")
        assert accepts(1, 2, 3)
        replace('[[inputs]]\nname = "data"\nshape = [2]')
        soon(lambda: accepts(1, 2))
        assert not accepts(1, 2, 3)
    assert server.log.count("model echo could not be loaded") == 1


def test_a_folder_of_models_is_served_and_followed(start_server, put, tmp_path: Path) -> None:
    folder = put("versioned", 7).parent
    (folder / "loose.toml").write_text("")
    (folder / "bad.toml").write_text("no = toml = at all")
    (folder / "readme.txt").write_text("no model")
    server = start_server("-j", "1", "--model-dir", folder)
    with server.client() as client:
        assert version_of(client, "versioned") == 7
        assert version_of(client, "loose") == 1
        assert code_of(lambda: version_of(client, "bad"))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert "expected one of: 'bad', 'loose', 'versioned';" in code_of(lambda: version_of(client, "readme"))[1]
        (tmp_path / "new").write_text("")
        (tmp_path / "new").rename(folder / "late.toml")
        server.wait_for_log("model late loaded")
        assert version_of(client, "late") == 1
        (folder / "loose.toml").unlink()
        server.wait_for_log("model loose unloaded")
        assert code_of(lambda: version_of(client, "loose"))[0] is NOT_FOUND
        # Everything gone at once is rather a mount that failed than what the operator means: what is loaded stays.
        folder.rename(tmp_path / "elsewhere")
        server.wait_for_log("a change of model files is not followed: ")
        assert version_of(client, "versioned") == 7


def test_a_hangup_reads_the_configuration_file_again(start_server, put, tmp_path: Path) -> None:
    one, two = put("one", 1), put("two", 1)
    config = tmp_path / "runtime.toml"
    config.write_text(f'chip = ["1"]\n[models.one]\npath = "{one}"\n')
    server = start_server("--config", config, ready=False)
    server.wait_for_log("ready")
    with server.client() as client:
        assert version_of(client, "one") == 1
        config.write_text(f'chip = ["1"]\n[models.two]\npath = "{two}"\ninstances = "many"\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(
            f"SIGHUP: the models stay as they are: {config}:4: models.two: instances: expected an integer"
        )
        assert version_of(client, "one") == 1
        config.write_text(f'chip = ["1"]\n[models.two]\npath = "{two}"\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: models are as the settings and the disk have them now")
        assert version_of(client, "two") == 1
        assert code_of(lambda: version_of(client, "one"))[0] is NOT_FOUND


def test_a_version_that_loads_for_long_keeps_nobody_waiting(start_server, put) -> None:
    folder = put("slow", 1)
    other = put("other", 1)
    server = start_server("-j", "1", "-m", f"slow={folder}", "-m", f"other={other}")
    with server.client() as client:
        put("slow", 2, "load_delay = 60")
        time.sleep(1.0)
        assert version_of(client, "slow") == 1
        put("other", 2)
        soon(lambda: version_of(client, "other") == 2)
        code = code_of(lambda: client.send(pinned(client, "slow", 2), timeout=0.5))[0]
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10


def pinned(client: Any, model: str, number: int) -> Any:
    request = client.request(model, {"data": DATA})
    request.model_spec.version.value = number
    return request


def test_one_server_has_models_on_two_chips_and_one_may_die_alone(start_server, put, models: Path) -> None:
    digits = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
    server = start_server("-j", "2", "-m", f"digits={digits}", "-m", f"echo={put('echo', 1)},chip=debug-device")
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    with server.client() as client:
        digit = client.predict("digits", {"data": picture})
        assert version_of(client, "echo") == 1
        debug = next(
            process
            for process in psutil.Process(server.process.pid).children()
            if f"worker of chip 1 (debug-device) started, process {process.pid}" in server.log
        )
        with calling(client, "echo", every_s=0.01) as outcomes, ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(client.predict, "digits", {"data": picture}) for _ in range(200)]
            debug.kill()
            for call in calls:
                for name, output in call.result().items():
                    assert output.tolist() == digit[name].tolist()
            soon(lambda: outcomes[-1:] == [1])
        assert set(outcomes) <= {1, UNAVAILABLE}
        assert version_of(client, "echo") == 1


def test_a_chip_that_only_a_model_names_may_be_the_only_one(start_server, put) -> None:
    server = start_server("-m", f"echo={put('echo', 1)},chip=1", ready=False)
    server.wait_for_log("ready")
    with server.client() as client:
        assert version_of(client, "echo") == 1
        assert code_of(lambda: version_of(client, "/etc/hostname"))[0] is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("chip=99", "chip '99' is unknown"),
        ("chip=0", "chip 0 is no chip"),
        ("colour=red", "has no option colour; expected one of: batch, batch_delay, big_output, chip, crash,"),
    ],
)
def test_a_model_with_a_wrong_option_stops_the_start(start_server, put, option: str, expected: str) -> None:
    server = start_server("-j", "1", "-m", f"echo={put('echo', 1)},{option}", ready=False)
    assert server.process.wait(20) == 1
    assert expected in server.log


@pytest.fixture
def start_counting_server(start_server: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Any, str]]:
    """`counting_chip.start` with what this module starts servers with."""
    return partial(counting_chip.start, start_server, tmp_path)


def test_a_model_runs_what_warms_it_up_before_any_call_and_after_a_restart_too(
    start_counting_server, tmp_path: Path
) -> None:
    for number in (7, 8):
        np.save(tmp_path / f"{number}.npy", np.array([number], np.uint8))
    files = f"{tmp_path / '7.npy'}:{tmp_path / '8.npy'}"
    server, model = start_counting_server(f",warm_up={files}")
    assert counting_chip.runs_of(model) == [7, 8]
    with server.client() as client:
        client.predict("counted", {"data": DATA})
        (worker,) = psutil.Process(server.process.pid).children()
        worker.kill()
        soon(lambda: server.log.count("model counted loaded") == 2)
        client.predict("counted", {"data": DATA})
    assert counting_chip.runs_of(model) == [7, 8, 1, 7, 8, 1]


def test_every_instance_is_warmed_up(start_counting_server) -> None:
    _, model = start_counting_server(",warm_up=zeros,instances=3")
    assert counting_chip.runs_of(model) == [0, 0, 0]


def test_a_model_that_fails_when_it_is_warmed_up_is_not_served(start_server, write, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.zeros((2, 2), np.float32))
    fails = write("fails", 'fail = "run"')
    for words, expected in (
        (f"{fails},warm_up=zeros", "the model fails when it is warmed up: the debug chip was told to fail"),
        (f"{write('echo')},warm_up={tmp_path / 'odd.npy'}", "warm_up: "),
        (f"{write('echo')},warm_up={tmp_path / 'absent.npy'}", "No such file"),
    ):
        server = start_server("-j", "1", "-m", words, ready=False)
        assert server.process.wait(20) == 1
        assert expected in server.log


def test_calls_run_together_where_the_operator_wants_it(start_counting_server) -> None:
    server, model = start_counting_server(",batch=4,batch_delay=0.5")
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.predict, "counted", {"data": np.full(1, number, np.uint8)}) for number in range(8)]
        assert [call.result()["data"].tolist() for call in calls] == [[number] for number in range(8)]
        assert len(counting_chip.runs_of(model)) == 2
        # What is too large to run with others runs alone, and who is alone waits no longer than it was said.
        started = time.monotonic()
        assert client.predict("counted", {"data": np.arange(9, dtype=np.uint8)})["data"].tolist() == list(range(9))
        assert time.monotonic() - started < 0.75
        client.predict("counted", {"data": DATA})
    assert len(counting_chip.runs_of(model)) == 4


def test_calls_that_run_together_fail_together_and_the_next_do_not(start_server, write) -> None:
    model = write("m", "trigger = 9", 'fail = "run"')
    server = start_server("-j", "1", "-m", f"m={model},batch=2,batch_delay=1")
    with server.client() as client, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(client.predict, "m", {"data": np.full(1, 9, np.uint8)}) for _ in range(2)]
        assert {code_of(call.result)[0] for call in calls} == {grpc.StatusCode.INTERNAL}
        calls = [pool.submit(client.predict, "m", {"data": np.full(1, number, np.uint8)}) for number in (1, 2)]
        assert [call.result()["data"].tolist() for call in calls] == [[1], [2]]


def test_a_hundred_models_load_serve_and_go_and_leave_no_memory(start_server, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "kept.toml").write_text("")
    server = start_server("-j", "1", "--model-dir", folder)
    (worker,) = psutil.Process(server.process.pid).children()

    def held() -> int:
        return worker.memory_full_info().uss + psutil.Process(server.process.pid).memory_full_info().uss

    def cycle(number: int) -> None:
        staged = tmp_path / f"staged{number}"
        staged.mkdir()
        for index in range(100):
            # Memory that was written to: 2 MiB each.
            (staged / f"m{index}.toml").write_text("big_output = 2097152")
        for path in list(staged.iterdir()):
            path.rename(folder / path.name)
        soon(lambda: server.log.count("model m") >= 200 * number + 100, within_s=60)
        with server.client() as client:
            for index in range(100):
                client.predict(f"m{index}", {"data": DATA})
        for path in folder.glob("m*.toml"):
            path.unlink()
        soon(lambda: server.log.count(" unloaded") == 100 * (number + 1), within_s=60)
        soon(lambda: worker.num_threads() < 10)

    cycle(0)
    before = held()
    cycle(1)
    cycle(2)
    assert held() - before < 20 << 20
    assert worker.num_fds() < 20
    with server.client() as client:
        assert version_of(client, "kept") == 1


def test_a_model_without_a_chip_is_missed_until_the_operator_takes_it_out(start_server, put, tmp_path: Path) -> None:
    one, config = put("one", 1), tmp_path / "runtime.toml"
    config.write_text(f'[models.one]\npath = "{one}"\n')
    server = start_server("--config", config, ready=False)
    server.wait_for_log("ready")
    with connect(server.address) as told:
        assert told.status()["server"]["reason"].startswith("model one has no chip: start the server with -j")
        config.write_text("")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: models are as the settings and the disk have them now")
        assert told.status()["server"]["ready"]
