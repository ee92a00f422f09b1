"""Discovers plugins for the commands. Text that plugins print at import goes to stderr, not into a command's output."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from acap_runtime.plugins import installed as plugins
from acap_runtime.plugins.installed import Plugins


def discover(blocked: Collection[str]) -> Plugins:
    """Call `acap_runtime.plugins.installed.discover` with stdout, down to its descriptor, redirected to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        return plugins.discover(blocked)
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
