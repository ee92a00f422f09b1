"""Finds installed plugins and their contributions, and selects the one that drives a requested chip, camera or store.

A plugin that cannot be imported, or whose hooks are wrong, is set aside with the reason. It never stops the others. A
plugin that needs another version of the core than this one is not even imported.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, distributions, entry_points

import pluggy

from acap_runtime.contract import hookspecs
from acap_runtime.contract.backend import Backend, Conversion, InferenceBackend, ProcessingBackend
from acap_runtime.contract.camera import Camera
from acap_runtime.contract.parameter_store import ParameterStore
from acap_runtime.contract.unexpected import log_traceback, unexpected
from acap_runtime.errors import AcapError, InvalidRequest, NotReady, redacted
from acap_runtime.plugins.larod_chips import CHIPS, LIBYUV, NO_CHIP, Chip, words
from acap_runtime.plugins.requirement import check_requirements

_LOG = logging.getLogger(__name__)


class WrongHook(AcapError, TypeError):
    """A hook of a plugin returned something that does not match its specification."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """The objects that a plugin brings, hook by hook."""

    backends: tuple[Backend, ...] = ()
    cameras: tuple[Camera, ...] = ()
    stores: tuple[ParameterStore, ...] = ()


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point in group ``acap_runtime``. `problem` is the reason why it is not used; such a plugin brings
    nothing.

    `requires` lists the requirements of its distribution, both our packages and others.
    """

    name: str
    distribution: str
    version: str
    address: str
    brings: Contribution = Contribution()
    problem: str | None = None
    blocked: bool = False
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstalledChip:
    """A chip and the plugin that drives it."""

    backend: Backend
    plugin: Plugin

    @property
    def processes_images(self) -> bool:
        return isinstance(self.backend, ProcessingBackend)

    def converts(self, conversion: Conversion) -> bool:
        return isinstance(self.backend, ProcessingBackend) and self.backend.converts(conversion)

    @property
    def words(self) -> frozenset[str]:
        return words(self.backend.chip_id, self.backend.name, self.backend.aliases)

    def __str__(self) -> str:
        return chip_label(self.backend.chip_id, self.backend.name)


@dataclass(frozen=True, slots=True)
class InstalledCamera:
    """A source of video, the operator's name for it, and the plugin that opens it."""

    name: str
    source: str
    camera: Camera
    plugin: Plugin

    def __str__(self) -> str:
        return f"camera {self.name}"


@dataclass(frozen=True, slots=True)
class InstalledStore:
    """A parameter store and the plugin that reads it."""

    store: ParameterStore
    plugin: Plugin

    def __str__(self) -> str:
        return f"parameter store {self.store.name}"


def chip_label(chip_id: int | None, name: str) -> str:
    """Return the name of a chip for messages, such as ``chip 2 (tflite-cpu)``."""
    return f"chip {name}" if chip_id is None else f"chip {chip_id} ({name})"


def load_plugin(address: str) -> Contribution:
    """Import the plugin at an entry point's address (``module`` or ``module:attribute``) and collect its contribution.

    Raises any error that the plugin raises, `pluggy.PluginValidationError` for a hook that does not exist, `WrongHook`
    for a result that does not match the hook's specification.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(EntryPoint(address, address, hookspecs.PROJECT).load(), address)
    manager.check_pending()
    hook = manager.hook
    brings = Contribution(
        tuple(backend for result in hook.acap_runtime_backends() for backend in result),
        tuple(camera for result in hook.acap_runtime_cameras() for camera in result),
        tuple(store for result in hook.acap_runtime_parameter_stores() for store in result),
    )
    for backend in brings.backends:
        _check_identity(backend)
    for camera in brings.cameras:
        _check_named("acap_runtime_cameras", camera, Camera)
    for store in brings.stores:
        _check_named("acap_runtime_parameter_stores", store, ParameterStore)
    return brings


def _check_named(hook: str, each: object, kind: type[Camera | ParameterStore]) -> None:
    if not isinstance(each, kind):
        raise WrongHook(f"hook {hook}: expected {kind.__name__} objects, got {each!r}")
    if not isinstance(getattr(each, "name", None), str) or not each.name:
        raise WrongHook(f"{type(each).__name__}.name: expected a name, got {getattr(each, 'name', None)!r}")
    if isinstance(each, Camera) and not isinstance(getattr(each, "sources", None), str):
        raise WrongHook(f"{type(each).__name__}.sources: expected how sources are written, got nothing")


def _check_identity(backend: object) -> None:
    if not isinstance(backend, InferenceBackend | ProcessingBackend):
        raise WrongHook(
            f"hook acap_runtime_backends: expected InferenceBackend or ProcessingBackend objects, got {backend!r}"
        )
    name = type(backend).__name__
    if not isinstance(getattr(backend, "name", None), str) or not backend.name:
        raise WrongHook(f"{name}.name: expected larod's device name, got {getattr(backend, 'name', None)!r}")
    if not hasattr(backend, "chip_id") or not isinstance(backend.chip_id, int | None):
        raise WrongHook(f"{name}.chip_id: expected larod's number or None, got {getattr(backend, 'chip_id', None)!r}")
    if not isinstance(backend.aliases, tuple) or not all(isinstance(alias, str) for alias in backend.aliases):
        raise WrongHook(f"{name}.aliases: expected a tuple of names, got {backend.aliases!r}")


def discover(blocked: Collection[str] = ()) -> Plugins:
    """Find and import every installed plugin, except those whose plugin or distribution name is in `blocked`, and those
    that need another version of the core or of another plugin.
    """
    points, broken = _entry_points()
    found = sorted(map(_described, points), key=lambda plugin: (plugin.name, plugin.distribution))
    return Plugins((*(_load(plugin, blocked) for plugin in found), *broken))


def _entry_points() -> tuple[list[EntryPoint], list[Plugin]]:
    """Return the entry points of our group, and a row for every distribution whose entry points cannot be read."""
    try:
        return list(entry_points(group=hookspecs.PROJECT)), []
    except Exception:  # noqa: BLE001 - an installed package is damaged; the slow way finds it
        points: list[EntryPoint] = []
        broken = []
        for distribution in distributions():
            try:
                points += distribution.entry_points.select(group=hookspecs.PROJECT)
            except Exception as error:  # noqa: BLE001 - the row says what it is
                problem = f"its entry points cannot be read: {unexpected(error)}"
                broken.append(Plugin("unknown", distribution.name, distribution.version, "", problem=problem))
        return points, broken


def _described(point: EntryPoint) -> Plugin:
    if point.dist is None:
        return Plugin(point.name, "unknown", "unknown", point.value)
    metadata = point.dist.metadata  # read from its file, and parsed, on each access
    requires = tuple(metadata.get_all("Requires-Dist", []))
    return Plugin(point.name, metadata["Name"], metadata["Version"], point.value, requires=requires)


def _load(plugin: Plugin, blocked: Collection[str]) -> Plugin:
    if plugin.name in blocked or plugin.distribution in blocked:
        return replace(plugin, problem="blocked by --block", blocked=True)
    try:
        check_requirements(plugin.distribution, plugin.requires)
    except NotReady as error:
        return replace(plugin, problem=str(error))
    try:
        return replace(plugin, brings=load_plugin(plugin.address))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may fail in any way; its row says how
        log_traceback(_LOG, f"plugin {plugin.name} is not used", error)
        return replace(plugin, problem=unexpected(error))


@dataclass(frozen=True)
class Plugins:
    """The plugins that `discover` found."""

    rows: tuple[Plugin, ...]

    @cached_property
    def chips(self) -> tuple[InstalledChip, ...]:
        """Every chip that a working plugin brings, including chips that two plugins claim."""
        return tuple(InstalledChip(backend, plugin) for plugin in self.rows for backend in plugin.brings.backends)

    def rivals(self, chip: InstalledChip) -> tuple[InstalledChip, ...]:
        """Return the other chips that share a number or a name with `chip`."""
        return tuple(other for other in self.chips if other is not chip and chip.words & other.words)

    def conflict(self, chip: InstalledChip) -> str | None:
        """Return the reason why `chip` is refused if several plugins claim it."""
        rivals = self.rivals(chip)
        if not rivals:
            return None
        return f"{chip} is claimed more than once: by {_claimants([chip, *rivals])}"

    def select(self, word: str) -> InstalledChip | None:
        """Return the chip that `word` selects by number, name or alias; None for larod's number of no chip, 0.

        Raises `InvalidRequest` for a word that selects no chip, `NotReady` if no plugin drives the chip or several
        claim it.
        """
        wanted = word.strip().casefold()
        if wanted in NO_CHIP.words:
            return None
        for chip in self.chips:
            if wanted in chip.words:
                if problem := self.conflict(chip):
                    raise NotReady(problem)
                return chip
        known = next((chip for chip in CHIPS if wanted in chip.words), None)
        if known is None:
            raise InvalidRequest(f"chip {word!r} is unknown; expected a number, name or alias of: {self._choices()}")
        raise NotReady(self.missing(known))

    def missing(self, chip: Chip) -> str:
        """Return the reason why no plugin drives a chip of larod's table, and the remedy."""
        for plugin in self.rows:
            if plugin.distribution == chip.distribution and plugin.problem:
                return f"plugin {plugin.name} of {plugin.distribution} is not used: {plugin.problem}"
        return f"{chip_label(chip.id, chip.name)} has no plugin here: pip install {chip.distribution}"

    def camera(self, name: str, source: str) -> InstalledCamera:
        """Return the camera that opens `source`. Raises `NotReady` if no plugin opens it, or if several would."""
        found = [
            InstalledCamera(name, source, camera, plugin)
            for plugin in self.rows
            for camera in plugin.brings.cameras
            if camera.claims(source)
        ]
        if not found:
            kinds = sorted(camera.sources for plugin in self.rows for camera in plugin.brings.cameras)
            raise NotReady(
                f"camera {name}: no plugin here opens {redacted(source)!r}; it has: {', '.join(kinds) or 'none'}; "
                f"pip install acap-runtime-video for files, RTSP and V4L2, acap-runtime-debug for test pictures"
            )
        if len(found) > 1:
            raise NotReady(f"camera {name}: {redacted(source)!r} is claimed more than once: by {_claimants(found)}")
        return found[0]

    def own_cameras(self) -> tuple[InstalledCamera, ...]:
        """Return the device's own cameras, as far as plugins know any. Raises `NotReady` if two have the same name."""
        found = tuple(
            InstalledCamera(camera.name, camera.own_source, camera, plugin)
            for plugin in self.rows
            for camera in plugin.brings.cameras
            if camera.own_source is not None
        )
        if len({camera.name for camera in found}) < len(found):
            names = ", ".join(each.name for each in found)
            raise NotReady(f"this device's own cameras share a name: {names}, from {_claimants(found)}")
        return found

    def stores(self) -> tuple[InstalledStore, ...]:
        """Return every parameter store that a working plugin brings."""
        return tuple(InstalledStore(store, plugin) for plugin in self.rows for store in plugin.brings.stores)

    def converters(self) -> tuple[InstalledChip, ...]:
        """Return the chips that can convert images, with larod's own default (11, libyuv) first."""
        chips = [chip for chip in self.chips if chip.processes_images and not self.rivals(chip)]
        return tuple(sorted(chips, key=lambda chip: chip.backend.chip_id != LIBYUV))

    def _choices(self) -> str:
        numbered = [f"{chip.id} {chip.name}" for chip in CHIPS if chip.id is not None]
        others = {chip.name for chip in CHIPS if chip.id is None}
        others |= {chip.backend.name for chip in self.chips if chip.backend.chip_id is None}
        return ", ".join(["0 (no chip)", *numbered, *sorted(others)])


def _claimants(found: Sequence[InstalledChip | InstalledCamera]) -> str:
    """Name the plugins that claim the same thing, and the remedy."""
    plugins = sorted({f"{each.plugin.distribution} (plugin {each.plugin.name})" for each in found})
    return f"{' and '.join(plugins)}; uninstall one, or start with --block and its plugin or distribution name"


def chosen_chips(words: Sequence[str], plugins: Plugins) -> tuple[InstalledChip | None, InstalledChip | None]:
    """Return the chips that ``-j`` asks for: the chip that runs models, and the chip that converts images for it.

    Raises `InvalidRequest` and `NotReady` as `Plugins.select` does.
    """
    chips = [chip for chip in map(plugins.select, words) if chip is not None]
    running = [chip for chip in chips if not chip.processes_images] or chips[:1]
    converting = [chip for chip in chips if chip not in running]
    if len(running) > 1 or len(converting) > 1:
        raise InvalidRequest(
            f"--chip: expected one chip for inference and one for image conversion, got {', '.join(map(str, chips))}"
        )
    return (running[0] if running else None), (converting[0] if converting else None)
