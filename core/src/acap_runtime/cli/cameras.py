"""``acapruntime cameras``: lists every camera that clients would get, ready or with the reason why not."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from acap_runtime.cli.discovery import discover
from acap_runtime.cli.table import show
from acap_runtime.errors import AcapError, redacted
from acap_runtime.link.process import PROBE_TIME_S
from acap_runtime.plugins.installed import InstalledCamera, Plugins
from acap_runtime.settings.camera_source import CameraSource, parse_camera
from acap_runtime.settings.options import Settings, add_arguments
from acap_runtime.settings.reading import read_settings
from acap_runtime.video.camera_process import probe_cameras

_EPILOG = """Without a camera here, in --camera or in the environment, it lists the device's own, and says what the
installed plugins can open."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if a camera that was given is not ready."""
    parser = argparse.ArgumentParser(
        "acapruntime cameras", description="List cameras and probe them.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("camera", nargs="*", help="these, each as for --camera: [NAME=]SOURCE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(parser, ["cameras", "blocked"])
    given = parser.parse_args(arguments)
    settings = read_settings(vars(given))
    plugins = discover(settings.blocked)
    sources = _sources(given.camera, settings)
    rows = asyncio.run(_probed(sources, plugins))
    show(rows, as_json=given.json)
    if not rows and not given.json:
        show(_kinds(plugins), as_json=False)
    return int(bool(sources) and not all(row["ready"] for row in rows))


def _sources(given: Sequence[str], settings: Settings) -> Sequence[CameraSource]:
    return [parse_camera(text) for text in given] or settings.cameras


async def _probed(sources: Sequence[CameraSource], plugins: Plugins) -> list[dict[str, Any]]:
    found: list[InstalledCamera | AcapError] = []
    for source in sources:
        try:
            found.append(plugins.camera(source.name, source.source))
        except AcapError as error:
            found.append(error)
    found += [] if sources else plugins.own_cameras()
    cameras = [each for each in found if isinstance(each, InstalledCamera)]
    problems = iter(await probe_cameras(cameras, PROBE_TIME_S))
    rows = []
    for number, each in enumerate(found, 1):
        problem = next(problems) if isinstance(each, InstalledCamera) else each
        named = each if isinstance(each, InstalledCamera) else sources[number - 1]
        rows.append(
            {
                "number": number,
                "name": named.name,
                "source": redacted(named.source),
                "distribution": each.plugin.distribution if isinstance(each, InstalledCamera) else None,
                "ready": problem is None,
                "reason": None if problem is None else str(problem),
            }
        )
    return rows


def _kinds(plugins: Plugins) -> list[dict[str, Any]]:
    return [
        {"camera": camera.name, "sources": camera.sources, "distribution": plugin.distribution}
        for plugin in plugins.rows
        for camera in plugin.brings.cameras
    ]
