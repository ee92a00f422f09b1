"""Diagnoses the installed plugins by trying each one in processes of its own.

A plugin may crash, hang or print at any step. So this process takes no step of a plugin before another process has
survived it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal

from acap_runtime.cli.doctor.libraries import Library, find_versions, libraries_in, mapped_libraries
from acap_runtime.cli.doctor.smoke import smoke_conversion, smoke_inference
from acap_runtime.contract import hookspecs
from acap_runtime.errors import AcapError, InvalidRequest, NotReady
from acap_runtime.link.process import PROBE_TIME_S, WorkerProcess
from acap_runtime.plugins.installed import InstalledChip, InstalledStore, Plugin, Plugins
from acap_runtime.plugins.requirement import check_requirements
from acap_runtime.settings.model_source import ModelSource

Result = Literal["ok", "failed", "not ready", "skipped", "unknown"]
"""``not ready``: the plugin itself reports that something is missing on this machine; ``failed``: something is wrong.
"""

_LONGEST_IMPORT_S: Final = 20.0
_AT_ONCE: Final = 4
_SURVIVED: Final = 87
"""An exit code with which no plugin ends its process by chance."""
_IMPORT: Final = f"""
import os, sys
from acap_runtime.plugins.installed import load_plugin
for address in sys.argv[1:]:
    try:
        load_plugin(address)
    except BaseException:
        pass
os._exit({_SURVIVED})
"""
_WORKERS_OWN: Final = "import sys, acap_runtime.worker.child\nsys.stdout.write(open('/proc/self/maps').read())"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `about` is a chip, camera or store, or empty for the plugin itself."""

    about: str
    check: str
    result: Result
    detail: str
    libraries: tuple[Library, ...] = ()


@dataclass(slots=True)
class Findings:
    """A plugin, or a chip that has none, and the results of its checks."""

    plugin: str | None
    distribution: str
    version: str | None
    named: bool
    checks: list[Check] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """True if any check failed, or if something that was asked for by name is not ready."""
        results = {check.result for check in self.checks}
        return "failed" in results or (self.named and "not ready" in results)


async def fatal_imports(blocked: Collection[str]) -> dict[tuple[str, str], str]:
    """Return the plugins that end or block the process that imports them, by name and address, with a description of
    the end.

    A plugin that raises an exception is not among them: `discover` reports the exception.
    """
    try:
        points = [
            point for point in entry_points(group=hookspecs.PROJECT) if not _is_blocked(point, blocked) and _fits(point)
        ]
    except Exception:  # noqa: BLE001 - an installed package is damaged; discover reports it
        return {}
    if await _end_of_import(*(point.value for point in points)) is None:
        return {}
    turn = asyncio.Semaphore(_AT_ONCE)

    async def end(address: str) -> str | None:
        async with turn:
            return await _end_of_import(address)

    ends = await asyncio.gather(*(end(point.value) for point in points))
    return {(point.name, point.value): how for point, how in zip(points, ends, strict=True) if how}


def _is_blocked(point: EntryPoint, blocked: Collection[str]) -> bool:
    return point.name in blocked or (point.dist is not None and point.dist.name in blocked)


def _fits(point: EntryPoint) -> bool:
    """Return True if `discover` would import the plugin at all."""
    try:
        check_requirements("", (point.dist.requires if point.dist else None) or ())
    except NotReady:
        return False
    return True


async def _end_of_import(*addresses: str) -> str | None:
    """Describe the end of a process that imports plugins. Returns None if the process survives the import."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _IMPORT, *addresses),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_LONGEST_IMPORT_S):
            code = await process.wait()
    except TimeoutError:
        return f"its import does not end within {_LONGEST_IMPORT_S:g} s; use the driver in probe instead"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code == _SURVIVED:
        return None
    how = f"exit code {code}" if code >= 0 else _signal_name(-code)
    return f"its import ends the process with {how}; use the driver in probe instead"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Doctor:
    """Examines plugins. Inference chips run `model` as their smoke test."""

    def __init__(self, plugins: Plugins, model: ModelSource | None = None) -> None:
        self._plugins = plugins
        self._model = model
        self._usual: frozenset[str] = frozenset()

    async def examine(
        self,
        plugins: Sequence[Plugin],
        chips: Collection[InstalledChip],
        *,
        named: bool = False,
        chips_only: bool = False,
    ) -> list[Findings]:
        """Examine each of `plugins`, and those of its chips that are in `chips`. `named` is True if the operator asked
        for them by name. `chips_only` leaves out everything else that the plugins bring.

        Chips are tried one after another, since two may be the same device.
        """
        self._usual = self._usual or await _usual_libraries()
        findings = []
        for plugin in plugins:
            findings.append(await self._examine(plugin, chips, named=named))
            if not chips_only:
                findings[-1].checks += await self._others(plugin)
        return findings

    async def _examine(self, plugin: Plugin, chips: Collection[InstalledChip], *, named: bool) -> Findings:
        found = Findings(plugin.name, plugin.distribution, plugin.version, named)
        if plugin.blocked:
            found.checks.append(Check("", "import", "skipped", str(plugin.problem)))
            return found
        version = _version(plugin)
        found.checks += [_import(plugin, version), version]
        for chip in self._plugins.chips:
            if chip.plugin == plugin and chip in chips:
                found.checks += await self._chip(chip, named=named)
        return found

    async def _others(self, plugin: Plugin) -> list[Check]:
        """Check all that a plugin brings except chips. Its cameras are tried only if the operator names a source."""
        checks = [
            Check(f"camera {camera.name}", "probe", "skipped", f"give --camera {camera.sources} to try one")
            for camera in plugin.brings.cameras
        ]
        for store in self._plugins.stores():
            if store.plugin == plugin:
                checks += await self._probe(str(store), _store_config(store))
        return checks

    async def _chip(self, chip: InstalledChip, *, named: bool) -> list[Check]:
        if conflict := self._plugins.conflict(chip):
            return [Check(str(chip), "claim", "failed", conflict)]
        checks = await self._probe(str(chip), _chip_config(chip))
        if checks[0].result == "ok":
            return [*checks, await self._smoke(chip, named=named)]
        return [*checks, Check(str(chip), "smoke", "skipped", "the probe did not pass")]

    async def _probe(self, label: str, config: dict[str, Any]) -> list[Check]:
        try:
            async with asyncio.timeout(PROBE_TIME_S):
                process = await WorkerProcess.start(label, config)
        except TimeoutError:
            return [Check(label, "probe", "failed", f"it does not end within {PROBE_TIME_S:g} s")]
        except AcapError as error:
            result: Result = "not ready" if isinstance(error, NotReady) else "failed"
            return [Check(label, "probe", result, str(error).removeprefix(f"{label} is not ready: "))]
        try:
            files = mapped_libraries(process.pid) - self._usual
        except OSError as error:
            return [Check(label, "probe", "failed", f"its process ended after the probe: {error}")]
        finally:
            await process.end()
        libraries = tuple(each for each in find_versions(files) if not (each.version or "").startswith("numpy "))
        said = ", ".join(map(str, libraries)) or "none that Python itself does not have"
        return [Check(label, "probe", "ok", "ready"), Check(label, "libraries", "ok", said, libraries)]

    async def _smoke(self, chip: InstalledChip, *, named: bool) -> Check:
        label = str(chip)
        try:
            if chip.processes_images:
                said = await smoke_conversion(chip)
            elif self._model is None:
                return Check(label, "smoke", "skipped", "give --model FILE to run one")
            else:
                said = await smoke_inference(chip, self._model)
        except InvalidRequest as error:
            # A model runs on some chips only. A chip that was named together with the model must take it.
            must = named and not chip.processes_images
            return Check(label, "smoke", "failed" if must else "skipped", str(error))
        except AcapError as error:
            return Check(label, "smoke", "failed", str(error))
        return Check(label, "smoke", "ok", said)


async def _usual_libraries() -> frozenset[str]:
    """Return the libraries that every worker has mapped before it does anything for a plugin."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _WORKERS_OWN, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return libraries_in(os.fsdecode(out))


def _import(plugin: Plugin, version: Check) -> Check:
    if version.result == "failed":
        return Check("", "import", "skipped", "a version does not fit")
    if plugin.problem is None:
        return Check("", "import", "ok", plugin.address)
    advice = f"mend or upgrade it (pip install --upgrade {plugin.distribution}), or start with --block {plugin.name}"
    return Check("", "import", "failed", f"{plugin.problem}; {advice}")


def _version(plugin: Plugin) -> Check:
    try:
        said = check_requirements(plugin.distribution, plugin.requires)
    except NotReady as error:
        return Check("", "version", "failed", str(error))
    if not said:
        return Check("", "version", "unknown", "its metadata do not say which acap-runtime it needs")
    return Check("", "version", "ok", "; ".join(said))


def _chip_config(chip: InstalledChip) -> dict[str, Any]:
    return {"kind": "chip", "address": chip.plugin.address, "name": chip.backend.name, "verbose": False}


def _store_config(store: InstalledStore) -> dict[str, Any]:
    return {"kind": "store", "address": store.plugin.address, "name": store.store.name, "verbose": False}
