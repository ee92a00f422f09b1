"""The rules that every parameter store must follow.

The complete tests of a plugin:

    class TestMyStore(ParameterStoreContract):
        @pytest.fixture
        def store(self):
            return MyStore()

        @pytest.fixture
        def known_key(self):
            return "root.Brand.Brand"
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest

import acap_runtime as acap
from acap_runtime.testing.contract import Contract, Kind
from acap_runtime.testing.discovery import (
    check_found,
    check_no_library,
    check_nothing_heavy,
    discover,
    package_of,
    require_ready,
)
from acap_runtime.testing.held import Held

_WHERE = "probe or get"
_ODD_KEYS = (
    "root.",
    "root..",
    "root.No.Such.Parameter.",
    "root. ",
    "root.\0",
    "root.Brand.Brand\0",
    "root.Brand.Brand\nroot.Brand.ProdNbr",
    "root.Brand=Brand",
    "root.%s%n%x",
    "root.../../../etc/passwd",
    "root.'; --",
    "root.Größe.\U0001f600",
    "root." + "A" * 20_000,
    "root" + ".a" * 5_000,
)
"""Keys that clients can send. The runtime adds ``root.`` to a key without it."""

_ASK_ODD_KEYS = """
import json, sys
from importlib.metadata import entry_points

import acap_runtime as acap
from acap_runtime.contract.hookspecs import PROJECT
from acap_runtime.plugins.installed import load_plugin

package, name, keys = sys.argv[1], sys.argv[2], json.load(sys.stdin)
points = [point for point in entry_points(group=PROJECT) if point.module.partition(".")[0] == package]
stores = [store for point in points for store in load_plugin(point.value).stores]
store = next(store for store in stores if store.name == name)
store.probe()
for key in keys:
    try:
        value = store.get(key)
    except acap.AcapError:
        value = None
    print(json.dumps([key, type(value).__name__]), flush=True)
"""


class ParameterStoreContract(Contract):
    """Subclass it as ``Test…``, and override `store` and `known_key`.

    A check that queries the store uses the `ready` fixture. If the store is missing, `ready` skips the check with
    `probe`'s own reason, or fails it if ``ACAPRUNTIME_REQUIRE_HARDWARE=1`` requires the store.
    """

    kind: ClassVar[Kind] = "parameters"
    unknown_keys: ClassVar[tuple[str, ...]] = ("root.NoSuchGroup.NoSuchParameter", "root.NoSuchParameter")
    """Parameters that the store does not have."""
    rounds: ClassVar[int] = 500
    """The number of queries for the check that everything is given back."""
    longest_answer: ClassVar[float] = 5.0
    """Seconds that an answer may take. The runtime ends the process after 10 s."""

    @pytest.fixture
    def store(self) -> acap.ParameterStore:
        """Override this: return a new store."""
        raise NotImplementedError("give the subclass a `store` fixture")

    @pytest.fixture
    def known_key(self) -> str:
        """Override this: return a parameter that the store has, beginning with ``root.``."""
        raise NotImplementedError("give the subclass a `known_key` fixture")

    @pytest.fixture
    def expected(self) -> str | None:
        """Return the value of `known_key` if it is the same on all devices."""
        return None

    @pytest.fixture
    def ready(self, store: acap.ParameterStore) -> None:
        require_ready(store.name, store.probe)

    def test_it_tells_who_it_is(self, store: acap.ParameterStore) -> None:
        assert isinstance(store, acap.ParameterStore), f"{store}: expected a ParameterStore"
        assert isinstance(store.name, str), f"name {store.name!r}: expected a str"
        assert store.name, "name: expected a text that is not empty"
        wrong = [letter for letter in store.name if letter.isspace() or letter in "/:"]
        assert not wrong, f"name {store.name!r}: expected no white space, slash or colon, which files and URLs have"
        assert isinstance(store.own, bool), f"own {store.own!r}: expected True or False"

    def test_its_plugin_is_found_by_an_entry_point(self, store: acap.ParameterStore) -> None:
        package = package_of(store)
        check_found(store.name, discover(package).stores, package)

    def test_discovery_loads_no_native_library(self, store: acap.ParameterStore) -> None:
        check_no_library(package_of(store), _WHERE)

    def test_discovery_imports_nothing_heavy(self, store: acap.ParameterStore) -> None:
        check_nothing_heavy(package_of(store), self.may_import, _WHERE)

    @pytest.mark.usefixtures("ready")
    def test_probing_again_gives_the_same_answer(self, store: acap.ParameterStore) -> None:
        store.probe()

    @pytest.mark.usefixtures("ready")
    def test_a_known_parameter_has_a_value(
        self, store: acap.ParameterStore, known_key: str, expected: str | None
    ) -> None:
        assert known_key.startswith("root."), f"known_key {known_key!r}: expected a key that begins with root."
        started = time.monotonic()
        value = store.get(known_key)
        took = time.monotonic() - started
        assert isinstance(value, str), f"the value of {known_key} is {value!r:.80}: expected a str"
        try:
            value.encode()
        except UnicodeEncodeError:
            pytest.fail(f"the value of {known_key} is no Unicode text: {value!r:.80}")
        assert expected in (None, value), f"the value of {known_key} is {value!r:.80}: expected {expected!r:.80}"
        assert took <= self.longest_answer, f"{known_key} took {took:.1f} s: expected at most {self.longest_answer}"

    @pytest.mark.usefixtures("ready")
    def test_a_parameter_that_does_not_exist_has_none(self, store: acap.ParameterStore) -> None:
        for key in self.unknown_keys:
            value = store.get(key)
            assert value is None, f"the value of {key} is {value!r:.80}: expected None, for it does not exist"

    @pytest.mark.usefixtures("ready")
    def test_odd_keys_do_no_harm(self, store: acap.ParameterStore, known_key: str) -> None:
        command = [sys.executable, "-c", _ASK_ODD_KEYS, package_of(store), store.name]
        keys = [*_ODD_KEYS, known_key]
        done = subprocess.run(command, input=json.dumps(keys), capture_output=True, text=True, check=False, timeout=60)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        unanswered = repr(keys[len(answers)] if len(answers) < len(keys) else "nothing")[:80]
        if done.returncode < 0:
            pytest.fail(f"{store.name} ends with {signal.Signals(-done.returncode).name} on key {unanswered}")
        assert done.returncode == 0, (
            f"key {unanswered}: expected a value, None, or one of acap's errors:\n{done.stderr[-2000:]}"
        )
        for key, kind in answers:
            assert kind in ("str", "NoneType"), f"the value of {key!r:.80} is a {kind}: expected a str or None"
        assert answers[-1] == [known_key, "str"], f"after odd keys, {known_key} is {answers[-1][1]}: expected a str"

    @pytest.mark.usefixtures("ready")
    def test_it_answers_in_another_thread_than_the_one_that_probed(
        self, store: acap.ParameterStore, known_key: str
    ) -> None:
        # The runtime probes in one thread, queries in another and then in a third, one at a time.
        here = store.get(known_key)
        for _ in range(2):
            outcome: list[object] = []
            thread = threading.Thread(target=_ask, args=(store, known_key, outcome))
            thread.start()
            thread.join()
            (answer,) = outcome
            if isinstance(answer, BaseException):
                raise answer
            assert answer == here, f"{known_key} is {answer!r:.80} in another thread: expected {here!r:.80}"

    @pytest.mark.usefixtures("ready")
    def test_asking_gives_everything_back(self, store: acap.ParameterStore, known_key: str) -> None:
        def ask(rounds: int) -> None:
            for _ in range(rounds):
                store.get(known_key)
                store.get(self.unknown_keys[0])

        ask(10)
        before = Held.now()
        ask(self.rounds)
        before.check_given_back(f"{2 * self.rounds} questions", 2 * self.rounds)
        self.proven = {"questions": (2 * self.rounds, 2 * self.rounds)}


def _ask(store: acap.ParameterStore, key: str, outcome: list[object]) -> None:
    try:
        outcome.append(store.get(key))
    except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
        outcome.append(error)
