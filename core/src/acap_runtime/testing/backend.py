"""The rules that every backend must follow, whatever its chip does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import pytest

import acap_runtime as acap
from acap_runtime.testing.contract import Contract
from acap_runtime.testing.discovery import (
    check_found,
    check_no_library,
    check_nothing_heavy,
    discover,
    package_of,
    require_ready,
)
from acap_runtime.testing.held import check_repeated
from acap_runtime.testing.serving import ServedModel, predict_over_a_socket

_WHERE = "probe, load or prepare"


def require(backend: acap.Backend) -> None:
    """Skip the test with `probe`'s own reason if the chip is missing, or fail if it must be there."""
    require_ready(backend.name, backend.probe)


class BackendContract(Contract):
    """The checks that all backends share; `InferenceContract` and `ProcessingContract` add those of their kind.

    A check that needs the chip uses the `ready` fixture. If the chip is missing, `ready` skips the check with `probe`'s
    own reason, or fails it if ``ACAPRUNTIME_REQUIRE_HARDWARE=1`` requires the chip.
    """

    run_rounds: ClassVar[int] = 1000
    """The number of runs of a model for the check that everything is given back."""
    leak_seconds: ClassVar[float] = 2.5
    """Seconds that the loads may take, and again the runs. Slower backends do as many rounds as fit, but at least
    `least_rounds`. The report gives their number."""
    least_rounds: ClassVar[int] = 20
    reload_growth: ClassVar[int] = 8 * 2**20
    """Bytes of memory that all loads together may keep, or all runs."""
    served_within: ClassVar[float] = 60.0
    """Seconds that the server may take to load a model and run it."""

    @pytest.fixture
    def backend(self) -> acap.Backend:
        """Override this: a new backend."""
        raise NotImplementedError("give the subclass a `backend` fixture")

    @pytest.fixture
    def ready(self, backend: acap.Backend) -> None:
        require(backend)

    def test_it_tells_who_it_is(self, backend: acap.Backend) -> None:
        kinds = (acap.InferenceBackend, acap.ProcessingBackend)
        assert isinstance(backend, kinds), f"{backend}: expected an InferenceBackend or a ProcessingBackend"
        assert type(backend.chip_id) in (int, type(None)), f"chip_id {backend.chip_id!r}: expected a number or None"
        assert isinstance(backend.aliases, tuple), f"aliases {backend.aliases!r}: expected a tuple"
        for name in (backend.name, *backend.aliases):
            assert isinstance(name, str), f"name {name!r}: expected a str"
            assert name, "a name is empty"
            assert not any(letter.isspace() for letter in name), f"name {name!r}: expected no white space"
            assert not name.isdecimal(), f"name {name!r}: looks like a chip's number"
        assert len({backend.name, *backend.aliases}) == 1 + len(backend.aliases), "a name is given twice"

    def test_its_options_are_explained(self, backend: acap.Backend) -> None:
        assert isinstance(backend.options, Mapping), f"options {backend.options!r}: expected a mapping"
        for name, meaning in backend.options.items():
            assert isinstance(name, str), f"option {name!r}: expected a str"
            assert isinstance(meaning, str), f"option {name!r}: expected its meaning as a str, got {meaning!r}"
            assert meaning, f"option {name!r}: expected its meaning"

    def test_its_plugin_is_found_by_an_entry_point(self, backend: acap.Backend) -> None:
        package = package_of(backend)
        check_found(backend.name, discover(package).backends, package)

    def test_discovery_loads_no_native_library(self, backend: acap.Backend) -> None:
        check_no_library(package_of(backend), _WHERE)

    def test_discovery_imports_nothing_heavy(self, backend: acap.Backend) -> None:
        check_nothing_heavy(package_of(backend), self.may_import, _WHERE)

    @pytest.mark.usefixtures("ready")
    def test_probing_again_gives_the_same_answer(self, backend: acap.Backend) -> None:
        backend.probe()

    def _check_given_back(self, action: Callable[[], None], what: str, most: int) -> None:
        """Repeat an action, fail if it leaves anything behind, and record how often it ran."""
        done = check_repeated(
            action, what, most=most, least=self.least_rounds, seconds=self.leak_seconds, growth=self.reload_growth
        )
        self.proven = {what: (done, most)}

    def _predict_over_a_socket(
        self, backend: acap.Backend, models: Sequence[ServedModel]
    ) -> dict[str, dict[str, acap.Array]]:
        outputs = predict_over_a_socket(backend.name, models, self.served_within)
        self.proven = {"models served": (len(models), len(models))}
        return outputs
