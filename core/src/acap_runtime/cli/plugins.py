"""``acapruntime plugins``: lists installed plugins, and the reason why any of them is not used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from acap_runtime.cli.discovery import discover
from acap_runtime.cli.table import show
from acap_runtime.plugins.installed import chip_label
from acap_runtime.settings.options import add_arguments
from acap_runtime.settings.reading import read_settings


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if a plugin that is not blocked is not used."""
    parser = argparse.ArgumentParser(
        "acapruntime plugins", description="List the installed plugins.", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(parser, ["blocked"])
    given = parser.parse_args(arguments)
    settings = read_settings(vars(given))
    found = discover(settings.blocked)
    show(
        [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "chips": [chip_label(backend.chip_id, backend.name) for backend in plugin.brings.backends],
                "cameras": [camera.name for camera in plugin.brings.cameras],
                "parameters": [store.name for store in plugin.brings.stores],
                "problem": plugin.problem,
            }
            for plugin in found.rows
        ],
        as_json=given.json,
    )
    return int(any(plugin.problem and not plugin.blocked for plugin in found.rows))
