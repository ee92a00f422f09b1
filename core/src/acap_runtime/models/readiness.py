"""Tells if the server is ready."""

from __future__ import annotations

from acap_runtime.chips.workers import Workers
from acap_runtime.models.catalogue import Catalogue


def unready(workers: Workers, catalogue: Catalogue) -> str:
    """Return the chip or the required model that keeps the server from being ready, with the reason; else nothing.

    A model that a client unloaded does not count.
    """
    if catalogue.chipless:
        return f"model {catalogue.chipless[0]} has no chip: start the server with -j, or give the model one (chip=…)"
    for worker in workers:
        # A chip on which no model was loaded so far counts only if it is the server's own.
        if worker.state != "ready" and (worker is workers.default or worker.state != "idle"):
            reason = worker.refusal or worker.last_end
            return f"{worker.chip} is {worker.state}" + (f": {reason}" if reason else "")
    for model in catalogue.models:
        if model.required and model.why_not:
            return f"model {model.name} is not available: {model.why_not}"
    return ""
