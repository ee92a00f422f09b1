"""Which chip converts images: libyuv where it is ready, else any that is, or the one that the operator named."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from acap_runtime.errors import NotReady
from acap_runtime.plugins import InstalledChip
from acap_runtime.worker.calls import Converter
from acap_runtime.worker.supervisor import probe

_LOG = logging.getLogger(__name__)
_PROBE_TIME_S: Final = 10.0
_RETRY_S: Final = 10.0


class ConverterChoice:
    """Finds the chip at the first need, by a probe in a process of its own, and remembers it."""

    def __init__(self, candidates: Sequence[InstalledChip], *, required: bool) -> None:
        self._candidates = candidates
        self._required = required
        self._chosen: Converter | None = None
        self._problem: NotReady | None = None
        self._retry_at = 0.0
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Choose before the first image comes. Raises `NotReady` only where the operator named the chip."""
        try:
            await self.get()
        except NotReady:
            if self._required:
                raise

    async def get(self) -> Converter:
        """The chip to convert with. Raises `NotReady` with every candidate's reason and what to install."""
        if self._chosen is not None:
            return self._chosen
        async with self._lock:
            return self._chosen or await self._choose()

    async def _choose(self) -> Converter:
        if self._problem is not None and time.monotonic() < self._retry_at:
            raise self._problem.again()
        reasons = []
        problems = await probe(self._candidates, _PROBE_TIME_S)
        for chip, problem in zip(self._candidates, problems, strict=True):
            if problem is None:
                self._chosen = Converter(chip.plugin.address, chip.backend.name)
                _LOG.info("images are converted by %s", chip)
                return self._chosen
            reasons.append(str(problem))
        advice = "; ".join(reasons) or "no plugin for image conversion is installed: pip install acap-runtime-libyuv"
        self._problem = NotReady(f"the image needs a conversion to the model's size, and no chip can do it: {advice}")
        self._retry_at = time.monotonic() + _RETRY_S
        _LOG.warning("images cannot be converted: %s", advice)
        raise self._problem
