import signal
import subprocess
import sys

import acap_runtime as acap
import pytest
from acap_runtime_debug import DebugStore
from acap_runtime_debug.store import VALUES

GET = """
import sys, threading, time
from acap_runtime_debug import DebugStore

def tick():
    time.sleep(0.2)
    print("other threads run", flush=True)

threading.Thread(target=tick).start()
DebugStore().get(sys.argv[1])
"""


def test_it_has_a_few_values_and_no_others():
    store = DebugStore()
    store.probe()
    assert (store.name, store.own) == ("debug", False)
    assert store.get("root.Brand.Brand") == "debug"
    assert store.get("root.Image.I0.Enabled") == "yes"
    assert all(store.get(key) == value for key, value in VALUES.items())
    for key in ("", "root", "root.Brand", "root.Brand.Nothing", "root.Debug", "root.Debug.crash", "root.Debug."):
        assert store.get(key) is None


@pytest.mark.parametrize(("key", "error"), [("root.Debug.Fail", acap.Unavailable), ("root.Debug.Raise", RuntimeError)])
def test_errors_come_when_asked_for(key, error):
    with pytest.raises(error, match="was told to"):
        DebugStore().get(key)


@pytest.mark.parametrize(("key", "status"), [("root.Debug.Crash", -signal.SIGSEGV), ("root.Debug.Exit", 3)])
def test_the_process_ends_when_asked_to(key, status):
    with started(key) as process:
        process.communicate(timeout=60)
        assert process.returncode == status


def test_a_hang_leaves_other_threads_alone():
    with started("root.Debug.Hang") as process:
        assert process.stdout.readline().strip() == "other threads run"
        assert process.poll() is None
        process.kill()


def test_a_freeze_stops_every_thread():
    with started("root.Debug.Freeze") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        assert process.stdout.read() == ""


def started(key: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", GET, key], stdout=subprocess.PIPE, text=True)
