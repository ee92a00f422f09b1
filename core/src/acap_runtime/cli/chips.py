"""``acapruntime chips``: lists every chip of the table and of the plugins, ready or with the reason why not."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from acap_runtime.chips.supervisor import probe
from acap_runtime.cli.discovery import discover
from acap_runtime.cli.table import show
from acap_runtime.contract.backend import Backend
from acap_runtime.errors import AcapError, InvalidRequest
from acap_runtime.link.process import PROBE_TIME_S
from acap_runtime.plugins.installed import InstalledChip, Plugins
from acap_runtime.plugins.larod_chips import CHIPS, NO_CHIP, Chip
from acap_runtime.settings.options import add_arguments
from acap_runtime.settings.reading import read_settings


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if a chip that was asked for is not ready."""
    parser = argparse.ArgumentParser("acapruntime chips", description="List chips and probe them.", allow_abbrev=False)
    parser.add_argument("chip", nargs="*", help="only these, by number, name or alias")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(parser, ["blocked"])
    given = parser.parse_args(arguments)
    plugins = discover(read_settings(vars(given)).blocked)
    entries = _entries(plugins)
    if given.chip:
        entries = [_asked_for(word, entries) for word in given.chip]
    rows = asyncio.run(_probed(entries, plugins))
    show(rows, as_json=given.json)
    return int(bool(given.chip) and not all(row["ready"] for row in rows))


Entry: TypeAlias = Chip | InstalledChip
"""A chip that a plugin drives, or a row of larod's table without one."""


def _entries(plugins: Plugins) -> list[Entry]:
    entries: list[Entry] = []
    for row in (NO_CHIP, *CHIPS):
        drivers = [chip for chip in plugins.chips if row.words & chip.words]
        entries += drivers or [row]
    return entries + [chip for chip in plugins.chips if chip not in entries]


def _asked_for(word: str, entries: Sequence[Entry]) -> Entry:
    for entry in entries:
        if word.strip().casefold() in entry.words:
            return entry
    raise InvalidRequest(f"chip {word!r} is unknown; acapruntime chips lists all")


async def _probed(entries: Sequence[Entry], plugins: Plugins) -> list[dict[str, Any]]:
    usable = [entry for entry in entries if isinstance(entry, InstalledChip) and not plugins.conflict(entry)]
    problems = dict(zip(usable, await probe(usable, PROBE_TIME_S), strict=True))
    return [_row(entry, plugins, problems) for entry in entries]


def _row(entry: Entry, plugins: Plugins, problems: Mapping[InstalledChip, AcapError | None]) -> dict[str, Any]:
    if isinstance(entry, InstalledChip):
        problem = problems[entry] if entry in problems else plugins.conflict(entry)
        named: Backend | Chip = entry.backend
        number, version = entry.backend.chip_id, entry.plugin.version
        distribution, reason = entry.plugin.distribution, None if problem is None else str(problem)
    else:
        named, number, version, distribution = entry, entry.id, None, entry.distribution
        reason = None if entry is NO_CHIP else plugins.missing(entry)
    return {
        "id": number,
        "name": named.name,
        "aliases": named.aliases,
        "distribution": distribution,
        "version": version,
        "ready": reason is None,
        "reason": reason,
    }
