"""How servers are spared the search for a chip that converts images."""

from __future__ import annotations

from typing import Final

import acap_runtime as acap
from acap_runtime.plugins.installed import discover

NO_CONVERTERS: Final = [
    word
    for plugin in sorted(
        {chip.plugin.name for chip in discover().chips if isinstance(chip.backend, acap.ProcessingBackend)}
    )
    for word in ("--block", plugin)
]
"""Arguments that leave out every plugin that could. Where libyuv alone is left out, a server tries all others when it
starts, one after the other, which takes longer than everything else."""
