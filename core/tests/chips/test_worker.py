"""The front's end of a chip's process, with a real process and a chip that does what its model file says."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acap_runtime import AcapError, DeviceError, InvalidRequest, NotFound, NotReady, Unavailable
from acap_runtime.chips.calls import Answer, Input
from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.chips.supervisor import Worker, WorkerLimits, probe
from acap_runtime.chips.workers import Workers
from acap_runtime.contract.batching import Batching
from acap_runtime.link.restarts import RestartPolicy
from acap_runtime.link.sources import InlineBytes
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.models.repository import ModelFile, file_of
from acap_runtime.plugins.installed import InstalledChip, Plugin, load_plugin
from acap_runtime.settings.model_source import ModelSource

CHIP = '''
"""A chip whose model files are Python: run at load, and may define run(), which may give the output, and close()."""
import ctypes, os, time
from pathlib import Path
import acap_runtime as acap
import numpy as np

class ScriptedModel(acap.Model):
    inputs = outputs = (acap.TensorSpec("data", np.dtype("uint8"), (-1,)),)

    def __init__(self, path, options):
        self.script = {"acap": acap, "ctypes": ctypes, "os": os, "time": time, "path": path, "options": options}
        exec(path.read_text(), self.script)

    def run(self, inputs):
        output = self.script.get("run", lambda data: None)(inputs["data"])
        return {"data": inputs["data"].copy() if output is None else output}

    def close(self):
        self.script.get("close", lambda: None)()

class ScriptedBackend(acap.InferenceBackend):
    chip_id, name = None, "scripted"
    options = {"size": "how large it is"}

    def probe(self):
        script = Path(__file__).with_name("probe.py")
        if script.exists():
            exec(script.read_text(), {"acap": acap, "ctypes": ctypes, "time": time})

    def load(self, path, options):
        return ScriptedModel(path, options)

@acap.hookimpl
def acap_runtime_backends():
    return [ScriptedBackend()]
'''
SEGFAULT = "ctypes.string_at(0)"
CRASHES = f"def run(data):\n    {SEGFAULT}"
CRASHES_ON_255 = f"def run(data):\n    if data[0] == 255: {SEGFAULT}"
QUICK = RestartPolicy(first_delay_s=0.02, longest_delay_s=0.1)
WriteModel = Callable[..., RemoteModel]


@pytest.fixture
def chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstalledChip:
    (tmp_path / "acap_test_scripted.py").write_text(CHIP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "acap_test_scripted", raising=False)
    brings = load_plugin("acap_test_scripted")
    (backend,) = brings.backends
    return InstalledChip(backend, Plugin("scripted", "acap-test", "1", "acap_test_scripted", brings))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_file(name: str, script: str = "") -> Path:
        path = tmp_path / f"{name}.model"
        path.write_text(script)
        return path

    return write_file


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """A worker that is started, and stopped with nothing of it left."""
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        assert not children()


def children() -> list[int]:
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def load(worker: Worker, path: Path, instances: int = 1, queue: int = 64) -> RemoteModel:
    model = RemoteModel(path.stem, path, {}, instances, CallQueue(queue))
    await worker.load(model)
    return model


async def run(model: RemoteModel, *values: int, within_s: float = 20.0) -> Answer:
    data = bytes(values or (1,))
    inputs = [Input("data", np.dtype("uint8"), (len(data),), InlineBytes(data))]
    async with asyncio.timeout(within_s):
        return await model.run(inputs, (), time.monotonic() + within_s)


def catalogue_of(worker: Worker) -> Catalogue:
    return Catalogue(Workers(worker.chip, lambda _: worker.chip, lambda _: worker), on_demand=4)


async def get(catalogue: Catalogue, name: str) -> RemoteModel:
    async with catalogue.use(name) as version:
        return version.model


async def soon(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)


async def outcome(call: Awaitable[Answer]) -> AcapError | None:
    try:
        await call
    except AcapError as error:
        return error
    return None


def test_delays_double_up_to_the_longest_and_the_first_restart_is_at_once() -> None:
    policy = RestartPolicy(first_delay_s=0.25, longest_delay_s=4.0)
    assert [policy.delay_s(deaths) for deaths in range(1, 9)] == [0, 0.25, 0.5, 1, 2, 4, 4, 4]


def test_a_model_answers_what_it_was_sent(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("echo"))
            assert [spec.name for spec in model.inputs] == ["data"]
            (output,) = (await run(model, 3, 1, 4)).outputs
            assert (output.name, output.dtype, output.shape, output.content) == (
                *("data", np.dtype("uint8"), (3,)),
                b"\3\1\4",
            )

    asyncio.run(scenario())


def test_a_death_gives_back_the_shared_memory_of_the_calls_it_failed(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model", "def run(data):\n    time.sleep(0.1)"))
            await asyncio.gather(*(run(model) for _ in range(3)))
            gc.collect()
            before = (descriptors(os.getpid()), segments(os.getpid()))
            # No collection of cycles will come to help: an idle server has none for hours.
            gc.disable()
            for _ in range(4):
                calls = [asyncio.create_task(outcome(run(model))) for _ in range(3)]
                await asyncio.sleep(0.05)
                os.kill(children()[0], signal.SIGKILL)
                failed = [error for error in await asyncio.gather(*calls) if error is not None]
                assert len(failed) == 1  # the other one lay ready, and waits for the next process
            del calls, failed
            await run(model)
            assert (descriptors(os.getpid()), segments(os.getpid())) <= before

    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_repeated_crashes_use_up_the_budget_and_calls_are_refused_at_once_until_the_rest_is_over(
    chip: InstalledChip, write
) -> None:
    policy = RestartPolicy(budget=3, first_delay_s=0.02, longest_delay_s=0.1, rest_s=1.0)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            model = await load(worker, write("crashes", CRASHES_ON_255))
            other = await load(worker, write("other"))
            for _ in range(policy.budget):
                await run(other)
                assert isinstance(await outcome(run(model, 255)), Unavailable)
            resting_since = time.monotonic()
            await soon(lambda: other.error is not None)
            for refused in (model, other):
                started = time.monotonic()
                error = await outcome(run(refused))
                assert time.monotonic() - started < 0.1
                assert isinstance(error, Unavailable)
                for words in ("scripted", "died 3 times", "SIGSEGV", "rests for 1 s"):
                    assert words in str(error)
            assert not children()
            await soon(lambda: model.error is None and other.error is None)
            assert 0.9 <= time.monotonic() - resting_since < 8
            await run(model)
            await run(other)
            # The budget is whole again: one more death does not bring the next rest.
            assert isinstance(await outcome(run(model, 255)), Unavailable)
            await run(other)

    asyncio.run(scenario())


def test_calls_that_wait_when_the_budget_is_used_up_are_refused_too(chip: InstalledChip, write) -> None:
    policy = RestartPolicy(budget=1, rest_s=30.0)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            model = await load(worker, write("crashes", f"def run(data):\n    time.sleep(0.2); {SEGFAULT}"))
            started = time.monotonic()
            errors = await asyncio.gather(*(outcome(run(model)) for _ in range(5)))
            assert time.monotonic() - started < 5
            assert all(isinstance(error, Unavailable) for error in errors)
            assert len(model.queue) == 0

    asyncio.run(scenario())


def test_deaths_longer_ago_than_the_window_do_not_count(chip: InstalledChip, write) -> None:
    policy = RestartPolicy(budget=2, window_s=0.2, rest_s=30.0)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            model = await load(worker, write("crashes", CRASHES_ON_255))
            for _ in range(3):
                assert isinstance(await outcome(run(model, 255)), Unavailable)
                await asyncio.sleep(0.3)
                await run(model)

    asyncio.run(scenario())


def test_a_file_that_was_asked_for_during_the_rest_can_be_had_after_it(chip: InstalledChip, write) -> None:
    policy = RestartPolicy(budget=1, rest_s=1.0)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            catalogue = catalogue_of(worker)
            crashing = await get(catalogue, str(write("crashes", CRASHES)))
            assert isinstance(await outcome(run(crashing)), Unavailable)
            await soon(lambda: crashing.error is not None)
            new = str(write("new"))
            with pytest.raises(Unavailable, match="rests for 1 s"):
                await get(catalogue, new)
            await soon(lambda: crashing.error is None)
            await run(await get(catalogue, new))

    asyncio.run(scenario())


def test_who_looks_at_the_file_for_longer_than_others_load_it_does_not_load_it_again(
    chip: InstalledChip, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter((0.0, 0.3))

    def slow_file_of(location: Path) -> ModelFile:
        time.sleep(next(looks))
        return file_of(location)

    monkeypatch.setattr("acap_runtime.models.loading.file_of", slow_file_of)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = catalogue_of(worker)
            name = str(write("model", "(path.parent / 'loads').open('a').write('x')"))
            one, other = await asyncio.gather(get(catalogue, name), get(catalogue, name))
            assert one is other
            await run(one)

    asyncio.run(scenario())
    assert (tmp_path / "loads").read_text() == "x"


def test_a_load_that_another_models_crash_interrupted_is_not_held_against_its_file(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = catalogue_of(worker)
            crashing = await get(catalogue, str(write("crashes", CRASHES_ON_255)))
            slow = str(write("slow", "time.sleep(0.5)"))
            loading = asyncio.create_task(get(catalogue, slow))
            await asyncio.sleep(0.2)
            assert isinstance(await outcome(run(crashing, 255)), Unavailable)
            await asyncio.gather(loading, return_exceptions=True)
            await run(await get(catalogue, slow))

    asyncio.run(scenario())


def test_a_model_being_reloaded_is_not_blamed_for_another_models_crash(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            crashing = await load(worker, write("crashes", CRASHES_ON_255))
            slow = await load(worker, write("slow", "time.sleep(0.6)"))
            assert isinstance(await outcome(run(crashing, 255)), Unavailable)
            waiting = asyncio.create_task(outcome(run(slow)))
            await run(crashing)  # it is back first, and `slow` is loading
            assert isinstance(await outcome(run(crashing, 255)), Unavailable)
            assert await waiting is None
            assert worker.is_resident(slow)

    asyncio.run(scenario())


def test_a_model_that_the_worker_dies_of_at_reload_is_left_out_and_others_come_back(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            first = await load(worker, write("first"))
            poison = await load(worker, write("poison"))
            last = await load(worker, write("last"))
            write("poison", SEGFAULT)
            os.kill(children()[0], signal.SIGKILL)
            await soon(lambda: poison.error is not None)
            assert "SIGSEGV" in str(await outcome(run(poison)))
            await run(first)
            await run(last)
            assert not worker.is_resident(poison)
            (process,) = children()
            await asyncio.sleep(0.5)
            assert children() == [process], "the worker died once more"

    asyncio.run(scenario())


def test_a_model_that_fails_to_reload_is_left_out_with_its_reason(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model"))
            write("model", "raise acap.InvalidRequest('no longer a model')")
            os.kill(children()[0], signal.SIGKILL)
            await soon(lambda: model.error is not None)
            error = await outcome(run(model))
            assert isinstance(error, InvalidRequest)
            assert str(error) == "no longer a model"

    asyncio.run(scenario())


def test_what_a_probe_raises_is_the_reason_why_the_chip_is_not_ready(chip: InstalledChip, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text("raise acap.NotReady('no /dev/chip')")
    with pytest.raises(NotReady, match=r"scripted.*no /dev/chip"):
        asyncio.run(Worker(chip, WorkerLimits(), QUICK).start())
    (tmp_path / "probe.py").write_text("raise RuntimeError('half a driver')")
    with pytest.raises(DeviceError, match=r"scripted.*RuntimeError: half a driver"):
        asyncio.run(Worker(chip, WorkerLimits(), QUICK).start())
    (tmp_path / "probe.py").write_text(SEGFAULT)
    with pytest.raises(Unavailable, match=r"scripted.*SIGSEGV"):
        asyncio.run(Worker(chip, WorkerLimits(), QUICK).start())
    assert not children()


def test_a_probe_that_hangs_ends_with_its_process(chip: InstalledChip, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text("time.sleep(3600)")
    started = time.monotonic()
    (problem,) = asyncio.run(probe([chip], 0.5))
    assert isinstance(problem, NotReady)
    assert "0.5 s" in str(problem)
    assert time.monotonic() - started < 10
    assert not children()


def test_a_chip_that_is_gone_after_a_crash_is_tried_again_until_it_is_back(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model"))
            (tmp_path / "probe.py").write_text("raise acap.NotReady('no /dev/chip')")
            os.kill(children()[0], signal.SIGKILL)
            waiting = asyncio.create_task(outcome(run(model)))
            await asyncio.sleep(0.4)
            (tmp_path / "probe.py").unlink()
            await waiting
            await run(model)

    asyncio.run(scenario())


def test_loads_that_wait_for_a_chip_that_does_not_come_back_are_refused_with_the_rest(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    policy = RestartPolicy(budget=3, first_delay_s=0.02, longest_delay_s=0.1, rest_s=60.0)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            model = await load(worker, write("model"))
            (tmp_path / "probe.py").write_text("raise acap.NotReady('no /dev/chip')")
            os.kill(children()[0], signal.SIGKILL)
            await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable, match="rests for 60 s"):
                    await load(worker, write("new"))
            error = await outcome(run(model))
            assert "no /dev/chip" in str(error)

    asyncio.run(scenario())


def test_a_process_that_cannot_be_started_for_the_moment_is_started_later(
    chip: InstalledChip, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = RestartPolicy(budget=1000, first_delay_s=0.02, longest_delay_s=0.1)

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), patient)) as worker:
            model = await load(worker, write("model"))
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", "/nowhere/python")  # as while Python is being updated
                os.kill(children()[0], signal.SIGKILL)
                await asyncio.sleep(0.3)
            await run(model)

    asyncio.run(scenario())


def test_a_run_and_a_load_that_take_too_long_end_with_the_worker(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(0.4, 0.6), QUICK)) as worker:
            model = await load(worker, write("model", "def run(data):\n    time.sleep(data[0])"))
            error = await outcome(run(model, 60))
            assert isinstance(error, Unavailable)
            for words in ("killed", "model model", "0.4 s", "--run-timeout"):
                assert words in str(error)
            with pytest.raises(Unavailable, match=r"model slow.*0\.6 s.*--load-timeout"):
                await load(worker, write("slow", "time.sleep(60)"))
            await soon(lambda: not model.attached)
            await run(model, 0)

    asyncio.run(scenario())


def test_calls_that_come_after_the_worker_was_told_to_die_wait_for_the_next_one(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(load_timeout_s=0.5), QUICK)) as worker:
            model = await load(worker, write("model"))
            with pytest.raises(Unavailable, match="--load-timeout"):
                await load(worker, write("slow", "time.sleep(60)"))
            assert [await outcome(run(model)) for _ in range(20)] == [None] * 20

    asyncio.run(scenario())


def test_a_kill_fails_no_more_calls_than_the_worker_had(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model"))
            for _ in range(3):
                os.kill(children()[0], signal.SIGKILL)
                assert [await outcome(run(model)) for _ in range(20)].count(None) >= 18

    asyncio.run(scenario())


def test_stopping_during_a_load_ends_the_load_with_the_reason(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            loading = asyncio.create_task(load(worker, write("slow", "time.sleep(60)")))
            await asyncio.sleep(0.2)
        with pytest.raises(Unavailable, match="the server stops"):
            await loading

    asyncio.run(scenario())


def test_of_several_runs_that_take_too_long_the_longest_is_blamed(chip: InstalledChip, write) -> None:
    holds_the_lock = "def run(data):\n    ctypes.PyDLL(None).pause()"

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(run_timeout_s=2.0), QUICK)) as worker:
            innocent = await load(worker, write("innocent"))
            freezes = await load(worker, write("freezes", holds_the_lock))
            blamed = asyncio.create_task(outcome(run(freezes)))
            await asyncio.sleep(0.05)
            victim = asyncio.create_task(outcome(run(innocent)))
            assert "model freezes" in str(await blamed)
            assert "model freezes" in str(await victim)

    asyncio.run(scenario())


def test_a_run_is_timed_from_when_the_chip_has_it(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(0.8), QUICK)) as worker:
            model = await load(worker, write("model", "def run(data):\n    time.sleep(0.25)"))
            errors = await asyncio.gather(*(outcome(run(model)) for _ in range(6)))
            assert errors == [None] * 6

    asyncio.run(scenario())


def test_instances_run_side_by_side_and_one_that_does_not_load_fails_the_model(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model", "def run(data):\n    time.sleep(0.4)"), instances=4)
            started = time.monotonic()
            await asyncio.gather(*(run(model) for _ in range(4)))
            assert time.monotonic() - started < 1.2
            # The second instance finds what the first one wrote.
            once = "mark = path.with_suffix('.mark')\nif mark.exists(): raise acap.DeviceError('only one fits')\n"
            with pytest.raises(DeviceError, match="only one fits"):
                await load(worker, write("single", f"{once}mark.touch()"), instances=2)
            await run(model)

    asyncio.run(scenario())


def test_unloading_closes_the_model_on_the_chip_and_gives_its_memory_back(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            kept = await load(worker, write("kept"))
            await run(kept)
            (process,) = children()
            gc.collect()
            before = (descriptors(os.getpid()), descriptors(process), segments(os.getpid()), segments(process))
            for number in range(5):
                path = write(f"model{number}", "def close():\n    path.with_suffix('.closed').touch()")
                model = await load(worker, path, instances=2)
                await asyncio.gather(*(run(model, *[7] * 100_000) for _ in range(4)))
                worker.unload(model)
                await soon(path.with_suffix(".closed").exists)
                with pytest.raises(Unavailable, match=f"model{number} was unloaded"):
                    await run(model)
                del model
            gc.collect()

            def back() -> bool:
                now = (descriptors(os.getpid()), descriptors(process), segments(os.getpid()), segments(process))
                return now == before

            await soon(back)
            await run(kept)

    asyncio.run(scenario())


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def segments(process: int) -> int:
    return Path(f"/proc/{process}/maps").read_text().count("memfd:acap-runtime")


def test_a_model_whose_close_raises_takes_nothing_else_with_it(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            other = await load(worker, write("other", "def run(data):\n    time.sleep(0.5)"))
            faulty = await load(worker, write("faulty", "def close():\n    raise RuntimeError('twice freed')"))
            running_call = asyncio.create_task(outcome(run(other)))
            await asyncio.sleep(0.1)
            worker.unload(faulty)
            assert await running_call is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "script", ["def run(data):\n    time.sleep(3600)", "def run(data):\n    os.kill(0, 19); time.sleep(60)"]
)
def test_stopping_ends_a_worker_that_hangs_within_its_bound(chip: InstalledChip, write, script: str) -> None:
    async def scenario() -> float:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("hangs", script))
            hanging = asyncio.create_task(outcome(run(model)))
            await asyncio.sleep(0.3)
            started = time.monotonic()
        assert isinstance(await hanging, Unavailable)
        return time.monotonic() - started

    assert asyncio.run(scenario()) < 6


def test_what_a_driver_started_ends_when_the_worker_is_killed_for_a_hang(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    helper = tmp_path / "helper"
    start = f"""
import subprocess
helper = subprocess.Popen(["sleep", "3600"])
open({str(helper)!r}, "w").write(str(helper.pid))
"""

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(run_timeout_s=0.3), QUICK)) as worker:
            model = await load(worker, write("hangs", f"{start}def run(data):\n    time.sleep(3600)"))
            process = int(helper.read_text())
            assert isinstance(await outcome(run(model)), Unavailable)
            await soon(lambda: not alive(process))

    asyncio.run(scenario())


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_calls_beyond_the_queue_are_refused_and_cancelled_ones_make_room(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("model", "def run(data):\n    time.sleep(0.5)"), queue=2)
            calls = [asyncio.create_task(outcome(run(model))) for _ in range(7)]
            await asyncio.sleep(0.1)
            refused = [call for call in calls if call.done()]
            assert len(refused) == 3  # one runs, one lies ready beside it, two wait
            waiting = [call for call in calls if not call.done()][-1]
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert await outcome(run(model)) is None
            await asyncio.gather(*calls, return_exceptions=True)
            assert len(model.queue) == 0
            assert model.running_since is None

    asyncio.run(scenario())


@contextmanager
def no_more_descriptors(process: int) -> Iterator[None]:
    """In this context a process can open and receive none beyond those that it has."""
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    listed = list(Path(f"/proc/{process}/fd").iterdir())
    taken = {int(each.name) for each in listed if each.is_symlink()}  # not the one that listed them
    free = min(set(range(len(listed) + 1)) - taken)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(process, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("short", ["front", "worker"])
def test_a_call_whose_memory_cannot_be_handed_over_fails_and_the_next_one_is_served(
    chip: InstalledChip, write, short: str
) -> None:
    grows = "def run(data):\n    return data.repeat(100_000) if data[0] == 2 else None"
    values = [2] if short == "front" else [3] * 100_000  # a larger segment comes from the worker, or from the front

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = await load(worker, write("grows", grows))
            await run(model, 1)
            with no_more_descriptors(os.getpid() if short == "front" else children()[0]):
                assert isinstance(await outcome(run(model, *values)), Unavailable)
            for _ in range(3):
                (output,) = (await run(model, *values)).outputs
                assert output.content == bytes(values[:1]) * 100_000

    asyncio.run(scenario())


def test_a_long_reason_comes_back_cut_short(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            (process,) = children()
            model = await load(worker, write("model", "def run(data):\n    raise RuntimeError('ü' * 1_000_000)"))
            for _ in range(2):
                error = await outcome(run(model))
                assert isinstance(error, DeviceError)
                assert "RuntimeError: üüü" in str(error)
                assert len(str(error)) < 2100
            with pytest.raises(InvalidRequest, match=r"^ü{1,2000}$"):
                async with asyncio.timeout(10):
                    await load(worker, write("bad", "raise acap.InvalidRequest('ü' * 1_000_000)"))
            assert children() == [process]

    asyncio.run(scenario())


def test_a_model_that_is_unloaded_while_it_is_reloaded_keeps_no_other_from_coming_back(
    chip: InstalledChip, write
) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            leaving = await load(worker, write("leaving", "time.sleep(0.3)"))
            staying = await load(worker, write("staying"))
            os.kill(children()[0], signal.SIGKILL)
            await soon(lambda: leaving.loading)
            worker.unload(leaving)
            await run(staying)
            assert not worker.is_resident(leaving)
            with pytest.raises(Unavailable, match="leaving was unloaded"):
                await run(leaving)

    asyncio.run(scenario())


def test_a_load_that_is_asked_for_while_the_chip_comes_back_from_its_rest_waits_for_it(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    policy = RestartPolicy(budget=2, rest_s=0.3)
    tries = tmp_path / "tries"
    tries.write_text("xx")  # one before the rest, and one after it, will find no chip
    probe_script = f"""
from pathlib import Path
tries = Path({str(tries)!r})
left = tries.read_text()
tries.write_text(left[1:])
time.sleep(0.3)
if left: raise acap.NotReady('not yet')
"""

    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), policy)) as worker:
            model = await load(worker, write("model"))
            (tmp_path / "probe.py").write_text(probe_script)
            os.kill(children()[0], signal.SIGKILL)
            await soon(lambda: model.error is not None)
            await soon(lambda: bool(children()))
            assert tries.read_text() == "x"
            async with asyncio.timeout(10):
                await run(await load(worker, write("new")))
            await run(model)

    asyncio.run(scenario())


def test_a_model_that_takes_its_time_to_come_back_costs_no_other_and_no_further_death(
    chip: InstalledChip, write
) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            first, last = await load(worker, write("first")), await load(worker, write("last"))
            write("first", "time.sleep(2.5)")
            os.kill(children()[0], signal.SIGKILL)
            await soon(lambda: first.loading)
            (process,) = children()
            await run(last)
            assert children() == [process], "the worker was killed once more"

    asyncio.run(scenario())


MARKED = """
def mark(name):
    with (path.parent / name).open("a") as file:
        file.write("x")
mark("loaded")
def close():
    mark("closed")
"""


def marked(folder: Path) -> tuple[int, int]:
    """How many models were loaded and closed, of those whose script has `MARKED`."""
    loaded, closed = (folder / name for name in ("loaded", "closed"))
    return (loaded.stat().st_size if loaded.exists() else 0, closed.stat().st_size if closed.exists() else 0)


def served(worker: Worker, path: Path, **options: Any) -> Catalogue:
    workers = Workers(worker.chip, lambda _: worker.chip, lambda _: worker)
    return Catalogue(workers, models=[ModelSource("m", path, **options)], on_demand=0)


def replace(path: Path, script: str) -> None:
    (path.parent / "new").write_text(script)
    (path.parent / "new").replace(path)


def test_a_load_that_nobody_waits_for_any_more_leaves_no_copy_behind(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    async def scenario() -> None:
        path = write("m", MARKED)
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = served(worker, path)
            await catalogue.find()
            await catalogue.preload()
            for number in range(3):
                replace(path, f"time.sleep(0.3)  # {number}\n{MARKED}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await catalogue.load("m")
            await catalogue.load("m")
            await soon(lambda: marked(tmp_path)[0] - marked(tmp_path)[1] == 1)
            assert marked(tmp_path)[0] > 1
            await run(await get(catalogue, "m"))

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["removed", "unloaded"])
def test_a_model_that_goes_while_it_is_loaded_anew_leaves_nothing(
    chip: InstalledChip, write, tmp_path: Path, how: str
) -> None:
    async def scenario() -> None:
        path = write("m", MARKED)
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = served(worker, path)
            await catalogue.find()
            await catalogue.preload()
            replace(path, f"time.sleep(0.4)\n{MARKED}")
            refreshing = asyncio.create_task(catalogue.refresh())
            await asyncio.sleep(0.2)
            await (catalogue.configure([]) if how == "removed" else catalogue.unload("m"))
            await refreshing
            await soon(lambda: marked(tmp_path) == (2, 2))
            with pytest.raises(NotFound):
                await get(catalogue, "m")
            if how == "unloaded":
                await catalogue.load("m")
                await run(await get(catalogue, "m"))

    asyncio.run(scenario())


def test_a_warm_up_that_failed_on_one_instance_leaves_nothing_running(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    script = """
def run(data):
    if (path.parent / "works").exists():
        return None
    if not (path.parent / "first").exists():
        (path.parent / "first").touch()
        raise acap.DeviceError("cold")
    time.sleep(0.3)
"""

    async def scenario() -> None:
        path = write("m", script)
        async with running(Worker(chip, WorkerLimits(run_timeout_s=1.0), QUICK)) as worker:
            catalogue = served(worker, path, instances=2, warm_up=None)
            await catalogue.find()
            with pytest.raises(DeviceError, match=r"model m of .*: the model fails when it is warmed up: cold"):
                await catalogue.preload()
            (tmp_path / "works").touch()
            await catalogue.load("m")
            model = await get(catalogue, "m")
            assert (model.running, model.running_since) == (0, None)
            await asyncio.sleep(1.5)
            await run(model)
            assert worker.restarts == 0

    asyncio.run(scenario())


def test_a_worker_that_dies_of_the_warm_up_is_the_models_fault_at_once(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = served(worker, write("m", CRASHES), warm_up=None)
            await catalogue.find()
            with pytest.raises(Unavailable, match="was killed by SIGSEGV"):
                await catalogue.preload()
            await soon(lambda: worker.pid is not None)
            assert worker.restarts == 1

    asyncio.run(scenario())


def test_a_load_that_raises_the_systems_errors_says_so_and_the_worker_lives(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            process = worker.pid
            with pytest.raises(DeviceError, match=r"unexpected FileNotFoundError: .*absent"):
                await load(worker, write("m", "open('/absent')"))
            await asyncio.sleep(1.2)
            assert worker.pid == process

    asyncio.run(scenario())


def test_a_file_that_changes_while_it_is_loaded_again_leaves_one_copy(
    chip: InstalledChip, write, tmp_path: Path
) -> None:
    async def scenario() -> None:
        path = write("m", "raise acap.InvalidRequest('no model')")
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            catalogue = served(worker, path)
            await catalogue.find()
            with pytest.raises(InvalidRequest):
                await catalogue.preload()
            replace(path, f"time.sleep(0.5)\n{MARKED}")
            calling = asyncio.create_task(get(catalogue, "m"))
            await asyncio.sleep(0.2)
            replace(path, f"time.sleep(0.1)\n{MARKED}")
            await catalogue.refresh()
            await calling
            await run(await get(catalogue, "m"))
            await soon(lambda: marked(tmp_path) == (2, 1))

    asyncio.run(scenario())


def test_calls_that_wait_to_run_together_do_not_miss_their_deadlines_for_it(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = RemoteModel("m", write("m"), {}, 1, CallQueue(64), Batching(8, 2.0))
            await worker.load(model)
            await run(model)
            started = time.monotonic()
            await run(model, within_s=0.5)
            assert time.monotonic() - started < 0.5

    asyncio.run(scenario())


class Vanishing:
    """An input that its client took away."""

    nbytes = 1

    def write_into(self, target: memoryview) -> None:
        raise InvalidRequest("it shrank")

    def close(self) -> None:
        pass


def test_what_one_call_did_wrong_fails_none_that_was_to_run_with_it(chip: InstalledChip, write) -> None:
    async def scenario() -> None:
        async with running(Worker(chip, WorkerLimits(), QUICK)) as worker:
            model = RemoteModel("m", write("m"), {}, 1, CallQueue(64), Batching(2, 2.0))
            await worker.load(model)
            bad = model.run([Input("data", np.dtype("uint8"), (1,), Vanishing())], (), time.monotonic() + 10)
            answer, error = await asyncio.gather(run(model, 7), outcome(bad))
            assert answer.outputs[0].content == b"\7"
            assert isinstance(error, InvalidRequest)

    asyncio.run(scenario())
