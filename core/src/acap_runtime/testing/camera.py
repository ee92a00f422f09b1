"""The rules that every camera must follow.

The complete tests of a plugin, for a camera that gives raw pictures:

    class TestMyCamera(CameraContract):
        formats = acap.IMAGE_FORMATS

        @pytest.fixture
        def camera(self):
            return MyCamera()

        @pytest.fixture
        def source(self):
            return "my-camera:/dev/my0"

        @pytest.fixture
        def bad_source(self):
            return "my-camera:/no/such/device"
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any, ClassVar

import numpy as np
import pytest

import acap_runtime as acap
from acap_runtime.testing.access_unit import check_encoded
from acap_runtime.testing.contract import Contract, Kind
from acap_runtime.testing.discovery import (
    check_found,
    check_no_library,
    check_nothing_heavy,
    discover,
    package_of,
    require_ready,
)
from acap_runtime.testing.held import Held
from acap_runtime.testing.lateness import Lateness

_WHERE = "probe or open"
_MARGIN = 4096
"""Bytes before and after a picture that must stay as they are."""
_READS = 5
"""The number of reads. A written byte equals the earlier one in all of them by chance once in 2**40 times."""


class CameraContract(Contract):
    """Subclass it as ``Test…``, override `camera` and `source`, and set the attributes for what the camera cannot do.

    A check that needs video uses the `ready` fixture. If the source is missing, `ready` skips the check with `probe`'s
    own reason, or fails it if ``ACAPRUNTIME_REQUIRE_HARDWARE=1`` requires the source.
    """

    kind: ClassVar[Kind] = "camera"
    capabilities: ClassVar[tuple[str, ...]] = ("keyframes_on_request",)
    formats: ClassVar[tuple[acap.StreamFormat, ...]] = acap.STREAM_FORMATS
    """The formats that the camera gives from `source`. It must refuse all others."""
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((320, 240), (640, 480), (322, 182))
    """The widths and heights that it gives. Sizes that a format cannot have are skipped for that format."""
    framerate: ClassVar[int] = 20
    """A frame rate that it gives, in frames per second."""
    oldest_frame: ClassVar[float] = 1.0
    """The largest age of a frame in seconds when `read` returns it."""
    keyframes_on_request: ClassVar[bool] = True
    """False for a camera that passes on frames encoded elsewhere."""
    foreign_sources: ClassVar[tuple[str, ...]] = ("", "no-such-kind", "no-such-kind:thing")
    """Sources that do not belong to it."""
    rounds: ClassVar[int] = 10
    """The number of times a stream of each format is opened and closed for the check that everything is given back."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "settings" in metafunc.fixturenames:
            metafunc.parametrize("settings", self.supported(), ids=str)
        if "format_settings" in metafunc.fixturenames:
            metafunc.parametrize("format_settings", self.one_of_each_format(), ids=str)

    def shows(self, check: str, arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        settings = arguments.get("settings", arguments.get("format_settings"))
        if isinstance(settings, acap.StreamSettings):
            yield "formats", settings.format
            yield "sizes", f"{settings.width}x{settings.height}"
            if check == "test_a_keyframe_comes_when_it_is_asked_for" and settings.encoded:
                yield "capabilities", "keyframes_on_request"

    def supported(self) -> list[acap.StreamSettings]:
        """Return every format in every size. Override it if `formats` and `sizes` cannot express the settings."""
        return [each for name in self.formats for size in self.sizes if (each := _settings(name, size, self.framerate))]

    def one_of_each_format(self) -> list[acap.StreamSettings]:
        """Return the first settings of each format."""
        return list({each.format: each for each in reversed(self.supported())}.values())[::-1]

    @pytest.fixture
    def camera(self) -> acap.Camera:
        """Override this: return a new camera."""
        raise NotImplementedError("give the subclass a `camera` fixture")

    @pytest.fixture
    def source(self) -> str:
        """Override this: return a source that gives video for as long as it is read."""
        raise NotImplementedError("give the subclass a `source` fixture")

    @pytest.fixture
    def bad_source(self) -> str | None:
        """Return a source that is well-formed and does not exist."""
        return None

    @pytest.fixture
    def malformed_source(self, camera: acap.Camera) -> str | None:
        """Return a malformed source that the camera claims, or None if every text is well-formed."""
        return f"{camera.name}:" + "%=\0,"

    @pytest.fixture
    def ready(self, camera: acap.Camera, source: str) -> None:
        require_ready(camera.name, lambda: camera.probe(source))

    def test_it_tells_who_it_is(self, camera: acap.Camera) -> None:
        assert isinstance(camera, acap.Camera), f"{camera}: expected a Camera"
        for what, text in (("name", camera.name), ("sources", camera.sources)):
            assert isinstance(text, str), f"{what} {text!r}: expected a str"
            assert text, f"{what}: expected a text that is not empty"
        assert not any(letter.isspace() for letter in camera.name), f"name {camera.name!r}: expected no white space"
        own = camera.own_source
        assert own is None or isinstance(own, str), f"own_source {own!r}: expected a str or None"

    def test_it_claims_its_own_sources(self, camera: acap.Camera, source: str) -> None:
        for own in (source, camera.own_source):
            if own is not None:
                assert camera.claims(own) is True, (
                    f"source {own!r}: expected True from claims, got {camera.claims(own)}"
                )

    def test_it_claims_no_others(self, camera: acap.Camera) -> None:
        for foreign in self.foreign_sources:
            claimed = camera.claims(foreign)
            assert claimed is False, f"source {foreign!r}: expected False from claims, got {claimed!r}"

    def test_its_plugin_is_found_by_an_entry_point(self, camera: acap.Camera) -> None:
        package = package_of(camera)
        check_found(camera.name, discover(package).cameras, package)

    def test_discovery_loads_no_native_library(self, camera: acap.Camera) -> None:
        check_no_library(package_of(camera), _WHERE)

    def test_discovery_imports_nothing_heavy(self, camera: acap.Camera) -> None:
        check_nothing_heavy(package_of(camera), self.may_import, _WHERE)

    @pytest.mark.usefixtures("ready")
    def test_probing_again_gives_the_same_answer(self, camera: acap.Camera, source: str) -> None:
        camera.probe(source)

    def test_a_source_that_does_not_exist_is_not_ready(self, camera: acap.Camera, bad_source: str | None) -> None:
        if bad_source is None:
            pytest.skip("the subclass has no `bad_source` fixture")
        try:
            camera.probe(bad_source)
        except acap.NotReady as reason:
            assert str(reason), f"NotReady for source {bad_source!r}: expected a reason"
        else:
            pytest.fail(f"probe passes for source {bad_source!r}: expected NotReady")

    def test_a_malformed_source_is_refused(self, camera: acap.Camera, malformed_source: str | None) -> None:
        if malformed_source is None:
            pytest.skip("every text is a source, says the subclass")
        try:
            camera.probe(malformed_source)
        except (acap.InvalidRequest, acap.NotReady) as reason:
            assert str(reason), f"{type(reason).__name__} for source {malformed_source!r}: expected a reason"
        else:
            pytest.fail(f"probe passes for source {malformed_source!r}: expected InvalidRequest or NotReady")

    @pytest.mark.usefixtures("ready")
    def test_formats_that_it_does_not_give_are_refused(self, camera: acap.Camera, source: str) -> None:
        for name in set(acap.STREAM_FORMATS) - set(self.formats):
            settings = acap.StreamSettings(name, *_EVEN_SIZE, self.framerate)
            try:
                camera.open(source, settings).close()
            except acap.InvalidRequest as refusal:
                assert name in str(refusal), f"the refusal does not name format {name}: {refusal}"
            else:
                pytest.fail(f"{settings} is opened: expected InvalidRequest, or {name} in `formats`")

    @pytest.mark.usefixtures("ready")
    def test_a_frame_fills_its_picture_and_nothing_else(
        self, camera: acap.Camera, source: str, settings: acap.StreamSettings
    ) -> None:
        generator = np.random.default_rng(0)
        before, after = _Slot(settings, generator), _Slot(settings, generator)
        untouched = np.ones(before.picture.shape, bool)
        with _opened(camera, source, settings) as stream:
            for _ in range(_READS):
                after.spoil()
                was = before.memory.copy()
                frame = stream.read(after.picture)
                assert np.array_equal(before.memory, was), (
                    f"{settings}: the picture of one frame changed while the next was read: expected that it stays"
                )
                after.check_margins()
                untouched &= after.picture == after.noise
                before, after = after, before
        if not frame.has_picture:
            assert settings.encoded, f"{settings}: has_picture False, but the raw picture is the frame itself"
            return
        left = np.argwhere(untouched)
        assert not left.size, (
            f"{settings}: {len(left)} of {untouched.size} bytes are never written, the first at {left[0]}: expected "
            f"that read writes the whole picture, of shape {untouched.shape}"
        )

    @pytest.mark.usefixtures("ready")
    def test_frames_are_what_they_say(self, camera: acap.Camera, source: str, settings: acap.StreamSettings) -> None:
        picture = _picture(settings)
        with _opened(camera, source, settings) as stream:
            for number in range(_READS):
                # Several in a row: a codec treats the second frame differently from the first.
                frame = stream.read(picture)
                self._check_frame(frame, settings)
                assert number or frame.keyframe, f"{settings}: the first frame is no keyframe: nobody could decode it"

    @pytest.mark.usefixtures("ready")
    def test_frames_come_with_the_time_they_were_taken(
        self, camera: acap.Camera, source: str, format_settings: acap.StreamSettings
    ) -> None:
        picture = _picture(format_settings)
        times = []
        with _opened(camera, source, format_settings) as stream:
            for _ in range(_READS):
                times.append(stream.read(picture).captured_ns)
                age = (time.monotonic_ns() - times[-1]) / 1e9
                assert 0 <= age <= self.oldest_frame, (
                    f"captured_ns {times[-1]}: {age:.3f} s before read returned: expected time.monotonic_ns() of when "
                    f"the frame was taken, 0 to {self.oldest_frame} s before"
                )
        assert all(one < other for one, other in pairwise(times)), f"captured_ns {times}: expected growing numbers"

    @pytest.mark.usefixtures("ready")
    def test_a_keyframe_comes_when_it_is_asked_for(
        self, camera: acap.Camera, source: str, format_settings: acap.StreamSettings
    ) -> None:
        if format_settings.encoded and not self.keyframes_on_request:
            pytest.skip("its keyframes come when they come, says the subclass")
        picture = _picture(format_settings)
        with _opened(camera, source, format_settings) as stream:
            for _ in range(_READS):
                stream.read(picture)
            frame = stream.read(picture, keyframe=True)
        assert frame.keyframe, f"{format_settings}: read(keyframe=True) gave a frame that is no keyframe"
        self._check_frame(frame, format_settings)

    @pytest.mark.usefixtures("ready")
    def test_frames_come_at_the_frame_rate(
        self, camera: acap.Camera, source: str, format_settings: acap.StreamSettings
    ) -> None:
        picture = _picture(format_settings)
        with _opened(camera, source, format_settings) as stream:
            # The first frames may queue up while the source starts.
            for _ in range(_READS):
                stream.read(picture)
            with Lateness() as lateness:
                started = time.monotonic()
                for _ in range(self.framerate):
                    stream.read(picture)
                took = time.monotonic() - started
        assert 1 / 1.1 <= took <= 1 / 0.9 + lateness.total_s, (
            f"{format_settings}: {self.framerate} frames take {took:.2f} s, which is {self.framerate / took:.1f} per "
            f"second: expected {self.framerate}, within 10 % (this machine was busy for {lateness.total_s:.2f} s)"
        )

    @pytest.mark.usefixtures("ready")
    def test_streams_run_side_by_side(self, camera: acap.Camera, source: str) -> None:
        each = self.one_of_each_format()
        together = threading.Barrier(2, timeout=60)
        problems: list[BaseException] = []

        def watch(settings: acap.StreamSettings) -> None:
            try:
                together.wait()
                with _opened(camera, source, settings) as stream:
                    picture = _picture(settings)
                    together.wait()
                    for _ in range(_READS * 2):
                        self._check_frame(stream.read(picture), settings)
                    together.wait()
            except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
                problems.append(error)
                together.abort()

        threads = [threading.Thread(target=watch, args=(settings,)) for settings in (each[0], each[-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    @pytest.mark.usefixtures("ready")
    def test_close_gives_everything_back(
        self, camera: acap.Camera, source: str, format_settings: acap.StreamSettings
    ) -> None:
        picture = _picture(format_settings)

        def open_read_and_close(rounds: int) -> None:
            for number in range(rounds):
                with _opened(camera, source, format_settings) as stream:
                    if number % 2:  # closes a stream that nobody reads, too
                        stream.read(picture)

        open_read_and_close(2)
        before = Held.now()
        open_read_and_close(self.rounds)
        before.check_given_back(f"{self.rounds} streams of {format_settings}", self.rounds)
        self.proven = {"streams of each format": (self.rounds, self.rounds)}

    def _check_frame(self, frame: acap.Frame, settings: acap.StreamSettings) -> None:
        assert isinstance(frame, acap.Frame), f"read gave {frame!r:.80}: expected a Frame"
        assert type(frame.captured_ns) is int, f"captured_ns {frame.captured_ns!r}: expected an int"
        if settings.encoded:
            check_encoded(frame, settings)
            return
        assert frame.encoded == b"", f"{settings}: {len(frame.encoded)} bytes in encoded: a raw frame is its picture"
        assert frame.keyframe, f"{settings}: keyframe False: every raw frame is one"
        assert frame.has_picture, f"{settings}: has_picture False, but the raw picture is the frame itself"


_EVEN_SIZE = (320, 240)


def _settings(name: acap.StreamFormat, size: tuple[int, int], framerate: int) -> acap.StreamSettings | None:
    try:
        return acap.StreamSettings(name, *size, framerate)
    except acap.InvalidRequest:  # odd sizes
        return None


@contextmanager
def _opened(camera: acap.Camera, source: str, settings: acap.StreamSettings) -> Iterator[acap.Stream]:
    stream = camera.open(source, settings)
    assert isinstance(stream, acap.Stream), f"open gave {stream!r}: expected a Stream"
    try:
        yield stream
    finally:
        stream.close()


def _picture(settings: acap.StreamSettings) -> acap.Array:
    return np.zeros(settings.picture.shape[1:], np.uint8)


class _Slot:
    """Memory for a picture, with margins around it, filled with noise beforehand."""

    def __init__(self, settings: acap.StreamSettings, generator: np.random.Generator) -> None:
        shape = settings.picture.shape[1:]
        self._settings = settings
        self._generator = generator
        self.memory: acap.Array = np.zeros(prod(shape) + 2 * _MARGIN, np.uint8)
        self.picture = self.memory[_MARGIN:-_MARGIN].reshape(shape)
        self._before = self.memory

    def spoil(self) -> None:
        self.memory[...] = self._generator.integers(0, 256, self.memory.size, np.uint8)
        self._before = self.memory.copy()

    @property
    def noise(self) -> acap.Array:
        return self._before[_MARGIN:-_MARGIN].reshape(self.picture.shape)

    def check_margins(self) -> None:
        for where, part in (("before", slice(_MARGIN)), ("after", slice(-_MARGIN, None))):
            assert np.array_equal(self.memory[part], self._before[part]), (
                f"{self._settings}: bytes {where} the picture are written: expected rows without padding, and no more "
                f"than {self.picture.shape}"
            )
