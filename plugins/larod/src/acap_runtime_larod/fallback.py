"""Chips that a plugin drives with its own library if it can, and otherwise through larod."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import acap_runtime as acap

import acap_runtime_larod as larod


class FallbackBackend(acap.InferenceBackend):
    """Runs models by the library of a subclass where that finds the chip, else by larod.

    The first `probe` or `load` chooses one of the two. The choice stays the same for all models.
    """

    devices: ClassVar[Sequence[str]]
    """larod's names for the chip, in order of preference."""
    library: ClassVar[str]
    """The name in messages of the library that drives the chip without larod."""

    def __init__(self) -> None:
        self._by_larod: bool | None = None

    @abstractmethod
    def find(self) -> None:
        """Raise `NotReady` with the reason if the library does not find the chip."""

    @abstractmethod
    def load_by_library(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        """Load a model with the library, which has found the chip."""

    def check_for_larod(self, path: Path) -> None:
        """Raise `InvalidRequest` for a model file that larod would accept but that is not for this chip."""

    def probe(self) -> None:
        try:
            self.find()
        except acap.NotReady as reason:
            try:
                larod.probe(self.devices)
            except acap.NotReady as other:
                raise acap.NotReady(f"not by {self.library}: {reason}; not by larod: {other}") from None
            self._by_larod = True
        else:
            self._by_larod = False

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        if self._by_larod is None:
            self.probe()
        if not self._by_larod:
            return self.load_by_library(path, options)
        if options:
            raise acap.InvalidRequest(
                f"{', '.join(options)}: expected no such option, since larod drives {self.name} here and knows none"
            )
        self.check_for_larod(path)
        return larod.load_model(self.devices, path, {})
