"""Models that are loaded on demand, and calls that wait, give up, or are too many."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import counting_chip
import grpc
import numpy as np
import pytest
from calls import code_of
from calls import soon as soon_within
from converters import NO_CONVERTERS
from counting_chip import runs_of

soon = partial(soon_within, within_s=10.0)
DATA = np.array([1, 2, 3], np.uint8)


@pytest.fixture
def start_server(start_server: Callable[..., Any]) -> Callable[..., Any]:
    """No image is converted here: spare each start the probe of the chip that would do it."""
    return partial(start_server, *NO_CONVERTERS)


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    return start_shared_server("-j", "1", "-v")


@pytest.fixture
def start_counting_server(start_server: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Any, str]]:
    """`counting_chip.start` with what this module starts servers with."""
    return partial(counting_chip.start, start_server, tmp_path)


def numbered(number: int) -> dict[str, np.ndarray]:
    return {"data": np.array([number], np.uint8)}


def loads(server: Any, model: str) -> int:
    return server.log.count(f"model {model} loaded")


def test_calls_that_wait_for_one_model_load_it_once(server, write) -> None:
    model = write("slow_load", "load_delay = 0.5")
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.predict, model, {"data": DATA}) for _ in range(8)]
        for call in calls:
            assert call.result()["data"].tolist() == DATA.tolist()
    assert loads(server, model) == 1


def test_one_file_by_two_names_is_one_model(server, write, tmp_path: Path) -> None:
    model, link = write("linked"), tmp_path / "link.toml"
    link.symlink_to(model)
    with server.client() as client:
        for name in (model, str(link), f"{tmp_path}/./linked.toml"):
            client.predict(name, {"data": DATA})
    assert loads(server, model) == 1


def test_a_client_that_gives_up_leaves_the_load_to_the_others(server, write) -> None:
    model = write("slow_load_2", "load_delay = 1.0")
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        leaving = pool.submit(client.predict, model, {"data": DATA}, timeout=0.3)
        time.sleep(0.1)
        staying = pool.submit(client.predict, model, {"data": DATA})
        started = time.monotonic()
        assert code_of(leaving.result)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 0.8
        assert staying.result()["data"].tolist() == DATA.tolist()
    assert loads(server, model) == 1


def test_a_load_goes_on_when_everyone_has_given_up(server, write) -> None:
    model = write("slow_load_3", "load_delay = 0.6")
    with server.client() as client:
        assert code_of(lambda: client.predict(model, {"data": DATA}, timeout=0.2))[0] == (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        soon(lambda: loads(server, model) == 1)
        client.predict(model, {"data": DATA})
    assert loads(server, model) == 1


def test_a_long_load_keeps_no_other_model_waiting(server, write) -> None:
    slow, quick = write("slow_load_4", "load_delay = 2.0"), write("quick")
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        client.predict(quick, {"data": DATA})
        loading = pool.submit(client.predict, slow, {"data": DATA})
        time.sleep(0.2)
        started = time.monotonic()
        for _ in range(50):
            client.predict(quick, {"data": DATA})
        client.predict(write("new_meanwhile"), {"data": DATA})
        assert time.monotonic() - started < 1.5
        assert not loading.done()
        loading.result()


def test_a_preloaded_model_that_takes_its_time_keeps_no_client_from_connecting(start_server, write) -> None:
    model = write("slow_load", "load_delay = 1.5")
    server = start_server("-j", "1", "-m", f"slow={model}", ready=False)
    server.wait_for_log("listening")
    with server.client() as client:
        assert client.predict("slow", {"data": DATA})["data"].tolist() == DATA.tolist()
    assert loads(server, "slow") == 1


def test_a_failed_load_is_remembered_until_the_file_changes(server, write) -> None:
    model = write("broken", "this is no TOML")
    with server.client() as client:
        failures = [code_of(lambda: client.predict(model, {"data": DATA})) for _ in range(5)]
        assert {code for code, _ in failures} == {grpc.StatusCode.INVALID_ARGUMENT}
        assert len({details for _, details in failures}) == 1
        assert "broken.toml" in failures[0][1]
        assert server.log.count(f"model {model} could not be loaded") == 1
        write("broken", "delay = 0.0 # and now it is")
        assert client.predict(model, {"data": DATA})["data"].tolist() == DATA.tolist()
        assert loads(server, model) == 1


def test_a_failed_load_is_tried_again_after_some_seconds(server, write, tmp_path: Path) -> None:
    model = write("half_ready", 'fail = "load"')
    with server.client() as client:
        assert code_of(lambda: client.predict(model, {"data": DATA}))[0] == grpc.StatusCode.INTERNAL
        started = time.monotonic()
        while server.log.count(f"model {model} could not be loaded") < 2:
            assert code_of(lambda: client.predict(model, {"data": DATA}))[0] == grpc.StatusCode.INTERNAL
            assert time.monotonic() - started < 15
            time.sleep(0.1)
        assert time.monotonic() - started > 2


def test_a_file_that_comes_later_is_found_at_once(server, tmp_path: Path) -> None:
    model = tmp_path / "later.toml"
    with server.client() as client:
        assert code_of(lambda: client.predict(str(model), {"data": DATA}))[0] == grpc.StatusCode.NOT_FOUND
        model.touch()
        client.predict(str(model), {"data": DATA})


def test_the_longest_unused_file_makes_room_and_comes_back_when_asked_for(start_server, write) -> None:
    server = start_server("-j", "1", "--on-demand-models", "2")
    one, two, three = (write(name) for name in ("one", "two", "three"))
    with server.client() as client:
        for model in (one, two, one, three):
            client.predict(model, {"data": DATA})
        assert re.findall(r"model \S*/(\w+)\.toml unloaded", server.log) == ["two"]
        client.predict(one, {"data": DATA})
        assert loads(server, one) == 1
        client.predict(two, {"data": DATA})
        assert loads(server, two) == 2


def test_files_that_take_turns_are_never_more_than_allowed_and_their_calls_are_served_or_refused(
    start_server, write
) -> None:
    server = start_server("-j", "1", "--on-demand-models", "2")
    models = [write(f"model{number}") for number in range(12)]
    failures: list[grpc.RpcError] = []
    with server.client() as client, ThreadPoolExecutor(12) as pool:
        for _ in range(10):
            calls = [pool.submit(client.predict, model, {"data": DATA}) for model in models]
            failures += [call.exception() for call in calls if call.exception() is not None]
            loaded = len(re.findall(r"model \S+ loaded on", server.log))
            unloaded = len(re.findall(r"model \S+ unloaded", server.log))
            assert loaded - unloaded <= 2
    unexpected = {failure.details() for failure in failures if failure.code() != grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert not unexpected


def test_all_files_in_use_is_a_refusal_that_says_so(start_server, write) -> None:
    server = start_server("-j", "1", "--on-demand-models", "1")
    busy, other = write("busy", "delay = 1.0"), write("other")
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.predict, busy, {"data": DATA})
        soon(lambda: loads(server, busy) == 1)
        time.sleep(0.2)
        code, details = code_of(lambda: client.predict(other, {"data": DATA}))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--on-demand-models" in details
        call.result()
        client.predict(other, {"data": DATA})


def test_calls_beyond_the_queue_are_refused_at_once_and_it_is_usable_after(start_server, write) -> None:
    model = write("slow", "delay = 0.4")
    server = start_server("-j", "1", "-m", model, "--queue", "2")

    def timed() -> tuple[float, grpc.StatusCode]:
        started = time.monotonic()
        try:
            client.predict(model, {"data": DATA})
        except grpc.RpcError as error:
            return time.monotonic() - started, error.code()
        return time.monotonic() - started, grpc.StatusCode.OK

    with server.client() as client, ThreadPoolExecutor(12) as pool:
        outcomes = [call.result() for call in [pool.submit(timed) for _ in range(12)]]
        refused = [took for took, code in outcomes if code == grpc.StatusCode.RESOURCE_EXHAUSTED]
        served = [took for took, code in outcomes if code == grpc.StatusCode.OK]
        # One runs, one lies ready beside it, two wait.
        assert (len(served), len(refused)) == (4, 8)
        assert max(refused) < 0.35
        waiting = [pool.submit(timed) for _ in range(4)]
        time.sleep(0.2)
        assert "--queue" in code_of(lambda: client.predict(model, {"data": DATA}))[1]
        assert [call.result()[1] for call in waiting] == [grpc.StatusCode.OK] * 4


def test_a_cancelled_call_in_the_queue_never_reaches_the_chip(start_counting_server) -> None:
    server, model = start_counting_server()
    with server.client() as client:
        stub = client.stubs.service.PredictionServiceStub(client.channel)
        calls = []
        for number in range(8):
            calls.append(stub.Predict.future(client.request("counted", numbered(number))))
            time.sleep(0.02)
        for number in (3, 5, 7):
            assert calls[number].cancel()
        for number in (0, 1, 2, 4, 6):
            calls[number].result()
        client.predict("counted", numbered(9))
    assert runs_of(model) == [0, 1, 2, 4, 6, 9]


def test_a_call_whose_deadline_passes_in_the_queue_never_reaches_the_chip(start_counting_server) -> None:
    server, model = start_counting_server()
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        patient = []
        for number in range(3):
            patient.append(pool.submit(client.predict, "counted", numbered(number)))
            time.sleep(0.05)
        started = time.monotonic()
        hasty = [pool.submit(client.predict, "counted", numbered(100 + number), timeout=0.2) for number in range(4)]
        for call in hasty:
            assert code_of(call.result)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 1
        for call in patient:
            call.result()
        client.predict("counted", numbered(9))
    assert runs_of(model) == [0, 1, 2, 9]


def test_the_call_with_the_earliest_deadline_goes_first(start_counting_server) -> None:
    server, model = start_counting_server()
    with server.client() as client:
        stub = client.stubs.service.PredictionServiceStub(client.channel)
        calls = []
        for number, timeout in enumerate((30, 30, None, 60, 20, 10)):
            calls.append(stub.Predict.future(client.request("counted", numbered(number)), timeout=timeout))
            time.sleep(0.03)
        for call in calls:
            call.result()
    # One ran and one lay ready beside it before the others came.
    assert runs_of(model) == [0, 1, 5, 4, 3, 2]


def test_calls_reach_the_chip_in_the_order_they_came(start_counting_server) -> None:
    server, model = start_counting_server("", "--instances", "2")
    with server.client() as client:
        stub = client.stubs.service.PredictionServiceStub(client.channel)
        calls = []
        for number in range(10):
            # Without a deadline: gRPC rounds those, by more than lies between these calls.
            calls.append(stub.Predict.future(client.request("counted", numbered(number))))
            time.sleep(0.02)
        for call in calls:
            call.result()
    runs = runs_of(model)
    assert sorted(runs) == list(range(10))
    # Two run at a time, so neighbours may change places.
    assert all(abs(place - number) <= 1 for place, number in enumerate(runs))


def together(server: Any, model: str, count: int) -> float:
    """Seconds that so many calls at once take."""
    with server.client() as client, ThreadPoolExecutor(count) as pool:
        client.predict(model, {"data": DATA})
        started = time.monotonic()
        for call in [pool.submit(client.predict, model, {"data": DATA}) for _ in range(count)]:
            call.result()
        return time.monotonic() - started


def test_two_instances_run_two_calls_at_a_time(start_server, write) -> None:
    model = write("slow", "delay = 0.5")
    server = start_server("-j", "1", "-m", f"two={model}", "-m", f"one={model},instances=1", "--instances", "2")
    assert 0.5 <= together(server, "two", 2) < 0.95
    assert 1.0 <= together(server, "two", 4) < 1.9
    assert together(server, "one", 2) >= 1.0


def test_models_on_one_chip_do_not_wait_for_each_other(start_server, write) -> None:
    slow, quick = write("slow", "delay = 1.2"), write("quick")
    server = start_server("-j", "1", "-m", f"slow={slow}", "-m", f"quick={quick}")
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.predict, "slow", {"data": DATA}) for _ in range(2)]
        time.sleep(0.2)
        started = time.monotonic()
        client.predict("quick", {"data": DATA})
        assert time.monotonic() - started < 1
        for call in calls:
            call.result()


def test_a_file_whose_run_goes_on_without_its_caller_keeps_its_place(start_server, write) -> None:
    hanging, other = write("hanging", 'hang = "run"', "trigger = 255"), write("other")
    server = start_server("-j", "1", "--on-demand-models", "1", "--run-timeout", "2")
    (worker,) = server.workers()
    with server.client() as client:
        client.predict(hanging, {"data": DATA})
        code, _ = code_of(lambda: client.predict(hanging, numbered(255), timeout=0.3))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        code, details = code_of(lambda: client.predict(other, {"data": DATA}))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--on-demand-models" in details
        soon(lambda: loads(server, hanging) == 2)
        assert "hanging.toml ran for more than 2 s (--run-timeout)" in server.log
        client.predict(other, {"data": DATA})
        assert worker not in server.workers()
        assert len(server.workers()) == 1


def test_calls_that_wait_for_a_load_count_for_the_queue_and_the_operators_models_do_not(start_server, write) -> None:
    given = [write(f"given{number}", "load_delay = 0.2") for number in range(3)]
    slow = write("slow_load", "load_delay = 2.0")
    server = start_server("-j", "1", "--queue", "2", *(word for model in given for word in ("-m", model)))

    def timed() -> tuple[float, grpc.StatusCode]:
        started = time.monotonic()
        try:
            client.predict(slow, {"data": DATA})
        except grpc.RpcError as error:
            return time.monotonic() - started, error.code()
        return time.monotonic() - started, grpc.StatusCode.OK

    with server.client() as client, ThreadPoolExecutor(10) as pool:
        for model in given:
            client.predict(model, {"data": DATA})
        outcomes = [call.result() for call in [pool.submit(timed) for _ in range(10)]]
        refused = [took for took, code in outcomes if code == grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(refused) == 8
        assert max(refused) < 1.5
        assert [code for _, code in outcomes].count(grpc.StatusCode.OK) == 2


def test_a_clients_bad_file_during_the_start_is_that_clients_trouble_only(start_server, write, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("no = toml = at all")
    server = start_server("-j", "1", "-m", f"echo={write('echo')}", ready=False)
    with server.client() as client:
        # It is asked for before the chip is up, and so before the models given with -m are loaded.
        with pytest.raises(grpc.RpcError) as caught:
            client.predict(str(bad), {"data": np.zeros(1, np.uint8)})
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert client.predict("echo", {"data": np.zeros(1, np.uint8)})
    assert server.stop() == 0
