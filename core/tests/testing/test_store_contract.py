"""The contract passes a parameter store only if it is right: each fault here must make one of its checks fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acap_runtime as acap
import pytest
from acap_runtime.testing.discovery import require_ready
from acap_runtime.testing.store import ParameterStoreContract

KEY = "root.Brand.Brand"

STORE = """
import os, signal

import acap_runtime as acap

VALUES = {"root.Brand.Brand": "right"}

class Store(acap.ParameterStore):
    name = "right"

    def probe(self):
        pass

    def get(self, key):
        FAULT
        return VALUES.get(key)

@acap.hookimpl
def acap_runtime_parameter_stores():
    return [Store()]
"""


class RightStore(acap.ParameterStore):
    name = "right"

    def probe(self) -> None:
        pass

    def get(self, key: str) -> str | None:
        return {KEY: "right"}.get(key)


class Contract(ParameterStoreContract):
    rounds = 20


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., acap.ParameterStore]:
    """Installs a plugin that brings a store which goes wrong where `fault` says."""

    def install(fault: str = "pass", top: str = "") -> acap.ParameterStore:
        (tmp_path / "store_plugin.py").write_text(top + STORE.replace("FAULT", fault))
        metadata = tmp_path / "store_plugin-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: store-plugin\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[acap_runtime]\nstore = store_plugin\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(RightStore, "__module__", "store_plugin")
        return RightStore()

    return install


def test_a_right_store_passes(installed: Callable[..., acap.ParameterStore]) -> None:
    contract, store = Contract(), installed()
    contract.test_it_tells_who_it_is(store)
    contract.test_its_plugin_is_found_by_an_entry_point(store)
    contract.test_discovery_loads_no_native_library(store)
    contract.test_discovery_imports_nothing_heavy(store)
    contract.test_probing_again_gives_the_same_answer(store)
    contract.test_a_known_parameter_has_a_value(store, KEY, "right")
    contract.test_a_known_parameter_has_a_value(store, KEY, None)
    contract.test_a_parameter_that_does_not_exist_has_none(store)
    contract.test_odd_keys_do_no_harm(store, KEY)
    contract.test_it_answers_in_another_thread_than_the_one_that_probed(store, KEY)
    contract.test_asking_gives_everything_back(store, KEY)


def named(name: Any, own: Any = False) -> acap.ParameterStore:
    return type("Named", (RightStore,), {"name": name, "own": own})()


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (object(), "expected a ParameterStore"),
        (named(5), "expected a str"),
        (named(""), "not empty"),
        (named("two words"), "no white space"),
        (named("https://x"), "no white space, slash or colon"),
        (named("right", "yes"), "expected True or False"),
    ],
)
def test_a_wrong_identity(store: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_it_tells_who_it_is(store)


class Uninstalled(RightStore):
    __module__ = "numpy"


def test_a_plugin_without_an_entry_point() -> None:
    with pytest.raises(AssertionError, match="Is the plugin installed"):
        Contract().test_its_plugin_is_found_by_an_entry_point(Uninstalled())


def test_an_import_that_costs(installed: Callable[..., acap.ParameterStore]) -> None:
    with pytest.raises(AssertionError, match=r"imports .*'pytest'"):
        Contract().test_discovery_imports_nothing_heavy(installed(top="import pytest\n"))


def test_a_store_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(RightStore):
        def probe(self) -> None:
            raise acap.NotReady("no such store here")

    monkeypatch.delenv("ACAPRUNTIME_REQUIRE_HARDWARE", raising=False)
    absent = Absent()
    with pytest.raises(pytest.skip.Exception, match="right: no such store here"):
        require_ready(absent.name, absent.probe)
    monkeypatch.setenv("ACAPRUNTIME_REQUIRE_HARDWARE", "1")
    with pytest.raises(pytest.fail.Exception, match="right: no such store here"):
        require_ready(absent.name, absent.probe)


def giving(value: Any) -> acap.ParameterStore:
    return type("Giving", (RightStore,), {"get": lambda self, key: value})()


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "expected a str"), (b"right", "expected a str"), (5, "expected a str"), ("wrong", "expected 'right'")],
)
def test_a_wrong_value(value: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Contract().test_a_known_parameter_has_a_value(giving(value), KEY, "right")


def test_a_value_that_is_no_text() -> None:
    with pytest.raises(pytest.fail.Exception, match="no Unicode text"):
        Contract().test_a_known_parameter_has_a_value(giving("\ud800"), KEY, None)


def test_a_value_that_takes_too_long() -> None:
    class Impatient(Contract):
        longest_answer = -1.0

    with pytest.raises(AssertionError, match="expected at most"):
        Impatient().test_a_known_parameter_has_a_value(RightStore(), KEY, None)


def test_a_value_of_what_does_not_exist() -> None:
    with pytest.raises(AssertionError, match="expected None, for it does not exist"):
        Contract().test_a_parameter_that_does_not_exist_has_none(giving(""))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (r"'\0' in key and os.kill(os.getpid(), signal.SIGSEGV)", r"ends with SIGSEGV on key 'root.\\x00'"),
        ("assert len(key) < 1000", "AssertionError"),
        ("key.encode('ascii')", "UnicodeEncodeError"),
        ("if key == 'root.': return b''", "is a bytes: expected a str or None"),
        ("if '%' in key: VALUES.clear()", "after odd keys, root.Brand.Brand is NoneType"),
        ("'%' in key and os._exit(0)", "after odd keys|expected"),
    ],
)
def test_keys_that_do_harm(installed: Callable[..., acap.ParameterStore], fault: str, message: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        Contract().test_odd_keys_do_no_harm(installed(fault), KEY)


def test_errors_of_the_contract_are_answers_to_odd_keys(installed: Callable[..., acap.ParameterStore]) -> None:
    fault = "if not key.isascii(): raise acap.InvalidRequest('expected ASCII')"
    Contract().test_odd_keys_do_no_harm(installed(fault), KEY)


def test_a_store_that_only_one_thread_may_ask() -> None:
    class Bound(RightStore):
        def __init__(self) -> None:
            self.thread = threading.get_ident()

        def get(self, key: str) -> str | None:
            if threading.get_ident() != self.thread:
                raise RuntimeError("opened in another thread")
            return super().get(key)

    with pytest.raises(RuntimeError, match="opened in another thread"):
        Contract().test_it_answers_in_another_thread_than_the_one_that_probed(Bound(), KEY)


def test_a_store_that_says_something_else_in_another_thread() -> None:
    class Fickle(RightStore):
        def get(self, key: str) -> str | None:
            return threading.current_thread().name

    with pytest.raises(AssertionError, match="in another thread: expected 'MainThread'"):
        Contract().test_it_answers_in_another_thread_than_the_one_that_probed(Fickle(), KEY)


@pytest.mark.usefixtures("impatient")
def test_a_file_that_stays_open() -> None:
    kept: list[int] = []

    class Leaky(RightStore):
        def get(self, key: str) -> str | None:
            kept.append(os.open(os.devnull, os.O_RDONLY))
            return super().get(key)

    with pytest.raises(AssertionError, match="leave 40 files open"):
        Contract().test_asking_gives_everything_back(Leaky(), KEY)
    for file in kept:
        os.close(file)


@pytest.mark.usefixtures("impatient")
def test_a_thread_that_runs_on() -> None:
    end = threading.Event()

    class Busy(RightStore):
        def get(self, key: str) -> str | None:
            threading.Thread(target=end.wait).start()
            return super().get(key)

    try:
        with pytest.raises(AssertionError, match="leave 40 threads running"):
            Contract().test_asking_gives_everything_back(Busy(), KEY)
    finally:
        end.set()
