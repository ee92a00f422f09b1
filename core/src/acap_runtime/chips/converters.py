"""Chooses the chip that converts images: the one that the operator named, or else libyuv, or any that is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from acap_runtime.chips.calls import Converter
from acap_runtime.chips.supervisor import probe
from acap_runtime.contract.backend import Conversion
from acap_runtime.errors import AcapError, NotReady
from acap_runtime.plugins.installed import InstalledChip
from acap_runtime.plugins.larod_chips import LIBYUV

_LOG = logging.getLogger(__name__)
_PROBE_TIME_S: Final = 10.0
_RETRY_S: Final = 10.0


class ConverterChoice:
    """Probes the candidates in order, each in a process of its own when it is first needed, and keeps the verdicts."""

    def __init__(self, candidates: Sequence[InstalledChip], *, required: bool) -> None:
        self._candidates = candidates
        self._required = required
        self._verdicts: dict[InstalledChip, _Verdict] = {}
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Find a chip before the first image comes. Raises `NotReady` only if the operator named it."""
        reasons = []
        for chip in self._candidates:
            problem = await self._problem_of(chip)
            if problem is None:
                _LOG.info("images are converted by %s", chip)
                return
            reasons.append(str(problem))
        if self._required:
            raise self._not_ready(reasons)
        _LOG.warning("images cannot be converted: %s", self._advice(reasons))

    async def get(self, conversion: Conversion) -> Converter:
        """Return the first ready chip that does this conversion, or the chip that the operator named.

        Raises `NotReady` with the reason of every candidate, and the plugin to install.
        """
        reasons = []
        for chip in self._candidates:
            if not (self._required or chip.converts(conversion)):
                reasons.append(f"{chip} does not convert {conversion}")
                continue
            problem = await self._problem_of(chip)
            if problem is None:
                return Converter(chip.plugin.address, chip.backend.name)
            reasons.append(str(problem))
        raise self._not_ready(reasons)

    async def _problem_of(self, chip: InstalledChip) -> AcapError | None:
        verdict = self._verdicts.get(chip)
        if verdict is None or (verdict.problem is not None and time.monotonic() > verdict.retry_at):
            async with self._lock:
                verdict = self._verdicts.get(chip)
                if verdict is None or (verdict.problem is not None and time.monotonic() > verdict.retry_at):
                    (problem,) = await probe([chip], _PROBE_TIME_S)
                    verdict = self._verdicts[chip] = _Verdict(problem, time.monotonic() + _RETRY_S)
        return verdict.problem

    def _not_ready(self, reasons: Sequence[str]) -> NotReady:
        return NotReady(
            f"the image needs a conversion to the model's size, and no chip can do it: {self._advice(reasons)}"
        )

    def _advice(self, reasons: Sequence[str]) -> str:
        missing = all(chip.backend.chip_id != LIBYUV for chip in self._candidates) and not self._required
        libyuv = "the plugin that converts all images is not used here: pip install acap-runtime-libyuv"
        return "; ".join([*reasons, *([libyuv] if missing else [])])


@dataclass(frozen=True, slots=True)
class _Verdict:
    problem: AcapError | None
    retry_at: float
