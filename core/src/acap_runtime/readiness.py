"""Whether the server can do what it was started for."""

from __future__ import annotations

from acap_runtime.catalogue import Catalogue
from acap_runtime.errors import AcapError
from acap_runtime.versions import ServedModel
from acap_runtime.worker.workers import Workers


def unready(workers: Workers, catalogue: Catalogue) -> str:
    """What keeps the server from being ready: a chip or a required model that cannot be used; empty where it is."""
    for worker in workers:
        # A chip that no model was loaded on so far is only missed where it is the server's own.
        if worker.state != "ready" and (worker is workers.default or worker.state != "idle"):
            reason = worker.refusal or worker.last_end
            return f"{worker.chip} is {worker.state}" + (f": {reason}" if reason else "")
    for model in catalogue.models:
        if model.required and not model.serving and not model.unloaded:
            return f"model {model.name} is not available: {_why_not(model)}"
    return ""


def _why_not(model: ServedModel) -> str:
    try:
        version = model.pick(None, "")
    except AcapError as error:
        return str(error)
    return str(version.error or f"version {version.number}: {version.state.name.lower()}")
