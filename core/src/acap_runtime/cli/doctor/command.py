"""``acapruntime doctor``: diagnoses the installed plugins and suggests remedies."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from acap_runtime.cli.discovery import discover
from acap_runtime.cli.doctor.diagnosis import Check, Doctor, Findings, Result, fatal_imports
from acap_runtime.errors import AcapError, InvalidRequest, NotReady, redacted
from acap_runtime.link.process import PROBE_TIME_S
from acap_runtime.plugins.installed import InstalledChip, Plugin, Plugins, chip_label
from acap_runtime.plugins.larod_chips import CHIPS, NO_CHIP
from acap_runtime.settings.model_source import parse_model
from acap_runtime.settings.options import Settings, add_arguments
from acap_runtime.settings.reading import read_settings
from acap_runtime.video.camera_process import probe_cameras

_EPILOG = """Without a chip it examines every installed plugin, and the cameras that --camera or the environment name.
A chip that says itself that something is missing on this machine is not ready; the exit code is 1 for that only if the
chip is named here, and for everything that failed."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if any check failed, or if something that was named is not ready."""
    parser = argparse.ArgumentParser(
        "acapruntime doctor", description="Examine the installed plugins.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("chip", nargs="*", help="only these, by number, name or alias; or plugins, by name")
    parser.add_argument(
        "--model", metavar="PATH[,OPTION=VALUE]", help="run this model once on the chips for inference, on zeros"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(parser, ["cameras", "blocked"])
    given = parser.parse_args(arguments)
    settings = read_settings(vars(given))
    try:
        model = None if given.model is None else parse_model(given.model)
    except InvalidRequest as error:
        parser.error(f"--model: {error}")
    plugins = _discovered(settings.blocked)
    asked = [_asked_for(word, plugins) for word in given.chip]
    findings = asyncio.run(_examined(asked, Doctor(plugins, model), plugins))
    if not given.chip or "cameras" in vars(given):
        findings += asyncio.run(_cameras(settings, plugins))
    _show_json(findings) if given.json else _show(findings)
    return int(any(each.broken for each in findings))


def _discovered(blocked: Sequence[str]) -> Plugins:
    """Discover every plugin. A plugin is imported only if this process survives the import."""
    fatal = asyncio.run(fatal_imports(blocked))
    found = discover({*blocked, *(name for name, _ in fatal)})
    rows = []
    for row in found.rows:
        if (row.name, row.address) in fatal:
            rows.append(replace(row, problem=fatal[row.name, row.address], blocked=False))
        elif row.blocked and row.name not in blocked and row.distribution not in blocked:
            rows.append(replace(row, problem=f"not imported: another plugin has its name, {row.name}, and is fatal"))
        else:
            rows.append(row)
    return Plugins(tuple(rows))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The meaning of a word on the command line: a plugin, optionally with one chip of it, or a chip that has no
    plugin.
    """

    plugin: Plugin | None
    chips: tuple[InstalledChip, ...]
    chips_only: bool = False
    missing: Findings | None = None


def _asked_for(word: str, plugins: Plugins) -> _Asked:
    wanted = word.strip().casefold()
    for chip in plugins.chips:
        if wanted in chip.words:
            return _Asked(chip.plugin, (chip,), chips_only=True)
    for plugin in plugins.rows:
        if wanted in (plugin.name.casefold(), plugin.distribution.casefold()):
            return _Asked(plugin, tuple(chip for chip in plugins.chips if chip.plugin == plugin))
    for known in (NO_CHIP, *CHIPS):
        if wanted in known.words:
            label = chip_label(known.id, known.name)
            check = Check(label, "import", "not ready", plugins.missing(known))
            if known is NO_CHIP:
                check = Check(label, "probe", "ok", "the server runs without inference")
            return _Asked(None, (), missing=Findings(None, known.distribution, None, named=True, checks=[check]))
    raise InvalidRequest(f"chip {word!r} is unknown; acapruntime chips lists all, acapruntime plugins the plugins")


async def _examined(asked: Sequence[_Asked], doctor: Doctor, plugins: Plugins) -> list[Findings]:
    if not asked:
        return await doctor.examine(plugins.rows, plugins.chips)
    findings = []
    for each in asked:
        if each.missing is not None:
            findings.append(each.missing)
        if each.plugin is not None:
            findings += await doctor.examine([each.plugin], each.chips, named=True, chips_only=each.chips_only)
    return findings


async def _cameras(settings: Settings, plugins: Plugins) -> list[Findings]:
    """Check the cameras that clients would get. The device's own cameras, which nobody named, need not be ready."""
    findings = []
    installed = []
    for source in settings.cameras:
        try:
            installed.append(plugins.camera(source.name, source.source))
        except AcapError as error:
            check = Check(f"camera {source.name}", "import", "not ready", str(error))
            findings.append(Findings(None, "none", None, named=True, checks=[check]))
    named = bool(settings.cameras)
    installed += [] if named else plugins.own_cameras()
    for camera, problem in zip(installed, await probe_cameras(installed, PROBE_TIME_S), strict=True):
        label, where = str(camera), redacted(camera.source)
        check = Check(label, "probe", "ok", f"{where} is ready")
        if problem is not None:
            result: Result = "not ready" if isinstance(problem, NotReady) else "failed"
            check = Check(label, "probe", result, str(problem).removeprefix(f"{label} is not ready: "))
        plugin = camera.plugin
        findings.append(Findings(plugin.name, plugin.distribution, plugin.version, named=named, checks=[check]))
    return findings


def _show_json(findings: Sequence[Findings]) -> None:
    _write(
        json.dumps(
            {
                "acap_runtime": version("acap-runtime"),
                "ok": not any(each.broken for each in findings),
                "plugins": [dataclasses.asdict(each) | {"broken": each.broken} for each in findings],
            },
            indent=2,
        )
    )


def _show(findings: Sequence[Findings]) -> None:
    lines = []
    for each in findings:
        lines.append(_heading(each))
        labels = [f"{check.about}: {check.check}".removeprefix(": ") for check in each.checks]
        width = max(map(len, labels), default=0)
        for check, label in zip(each.checks, labels, strict=True):
            parts: Sequence[Any] = check.libraries or (check.detail,)
            lines += [f"  {check.result:9}  {label:{width}}  {parts[0]}"]
            lines += [f"  {'':9}  {'':{width}}  {part}" for part in parts[1:]]
    broken = [each.plugin or each.distribution for each in findings if each.broken]
    lines.append(f"broken: {', '.join(dict.fromkeys(broken))}" if broken else "nothing is broken")
    _write("\n".join(lines))


def _heading(findings: Findings) -> str:
    if findings.plugin is None:
        return f"{findings.distribution}, not installed" if findings.distribution != "none" else "no plugin"
    return f"{findings.distribution} {findings.version}, plugin {findings.plugin}"


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # here a closed pipe can still be told from other errors
