"""Whether the server can do what it was started for."""

from __future__ import annotations

from acap_runtime.chips.workers import Workers
from acap_runtime.models.catalogue import Catalogue


def unready(workers: Workers, catalogue: Catalogue) -> str:
    """What keeps the server from being ready: a chip or a required model that cannot be used; empty where it is.

    A model that a client unloaded is not missed.
    """
    if catalogue.chipless:
        return f"model {catalogue.chipless[0]} has no chip: start the server with -j, or give the model one (chip=…)"
    for worker in workers:
        # A chip that no model was loaded on so far is only missed where it is the server's own.
        if worker.state != "ready" and (worker is workers.default or worker.state != "idle"):
            reason = worker.refusal or worker.last_end
            return f"{worker.chip} is {worker.state}" + (f": {reason}" if reason else "")
    for model in catalogue.models:
        if model.required and model.why_not:
            return f"model {model.name} is not available: {model.why_not}"
    return ""
