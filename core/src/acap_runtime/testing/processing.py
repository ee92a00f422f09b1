"""The rules that every backend for image conversion must follow.

The complete tests of a plugin, for a chip that converts one pair of formats and cannot crop:

    class TestMyChip(ProcessingContract):
        formats = frozenset({("nv12", "rgb-planar")})
        crops = False

        @pytest.fixture
        def backend(self):
            return MyChip()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import acap_runtime as acap
from acap_runtime.testing.backend import BackendContract
from acap_runtime.testing.contract import Kind
from acap_runtime.testing.pictures import flat, noise, waves
from acap_runtime.testing.reference import Reference
from acap_runtime.testing.serving import ServedModel

COLOURS = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 60, 40), (40, 200, 60), (60, 40, 200))
"""Black, white, grey, and three that show a swap of any two channels."""

ALL_FORMATS: frozenset[tuple[str, str]] = frozenset(product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS))

_FORMS: tuple[tuple[tuple[int, int], tuple[int, int], acap.Crop | None], ...] = (
    ((64, 48), (64, 48), None),
    ((320, 240), (200, 150), None),
    ((400, 300), (60, 60), None),
    ((64, 48), (100, 80), None),
    ((63, 47), (31, 23), None),
    ((64, 48), (32, 24), acap.Crop(16, 8, 32, 24)),
    ((320, 240), (112, 112), acap.Crop(40, 10, 240, 220)),
    ((63, 47), (21, 33), acap.Crop(11, 5, 21, 33)),
)


def _odd(*sizes: int) -> bool:
    return any(size % 2 for size in sizes)


CONVERSIONS: tuple[acap.Conversion, ...] = tuple(
    acap.Conversion(acap.Image(came, *source), acap.Image(wanted, *target), crop)
    for source, target, crop in _FORMS
    for came, wanted in product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS)
    if not (_odd(*source, *target) and "nv12" in (came, wanted))
)
"""Every pair of formats: as it is, smaller, much smaller, larger, cropped, cropped and scaled, with odd sizes."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The allowed distance from the reference, in levels of 255: on average, and at any place."""

    mean: float
    peak: int

    def check(self, result: acap.Array, wanted: acap.Array) -> None:
        """Fail with the measured distance if it is too large."""
        distance = np.abs(result.astype(int) - wanted)
        assert distance.max() <= self.peak, f"a pixel differs by {distance.max()} levels: at most {self.peak} allowed"
        assert distance.mean() <= self.mean, f"differs by {distance.mean():.2f} on average: {self.mean} allowed"


class ProcessingContract(BackendContract):
    """Subclass it as ``Test…``, override `backend`, and set the attributes for what the chip cannot do.

    The chip must do the `conversions` that `supports` accepts correctly, and refuse the others.
    """

    kind: ClassVar[Kind] = "processing"
    capabilities: ClassVar[tuple[str, ...]] = ("scales", "crops", "odd_sizes")
    conversions: ClassVar[tuple[acap.Conversion, ...]] = CONVERSIONS
    formats: ClassVar[frozenset[tuple[str, str]]] = ALL_FORMATS
    """Pairs of input and output format."""
    scales: ClassVar[bool] = True
    crops: ClassVar[bool] = True
    odd_sizes: ClassVar[bool] = True
    """True if widths, heights and crops may be odd wherever the formats allow it."""
    reference: ClassVar[Reference] = Reference()
    tolerance: ClassVar[Tolerance] = Tolerance(mean=2, peak=8)
    rounds: ClassVar[int] = 1000
    """The number of times a model is made, run and closed for the check that everything is given back."""

    def supports(self, conversion: acap.Conversion) -> bool:
        """Return True if the chip can do a conversion. Override it if the attributes cannot express that."""
        formats = (conversion.input.format, conversion.output.format)
        return formats in self.formats and all(getattr(self, name) for name in _needed(conversion))

    def shows(self, check: str, arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        del check
        if isinstance(conversion := arguments.get("conversion"), acap.Conversion):
            region, target = conversion.region, conversion.output
            yield "formats", f"{conversion.input.format} to {conversion.output.format}"
            yield "sizes", f"{region.width}x{region.height} to {target.width}x{target.height}"
            yield "conversions", str(conversion)
            yield from (("capabilities", name) for name in _needed(conversion))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "conversion" in metafunc.fixturenames:
            metafunc.parametrize("conversion", self._supported(), ids=str)

    def _supported(self) -> list[acap.Conversion]:
        return [conversion for conversion in self.conversions if self.supports(conversion)]

    @pytest.fixture
    def backend(self) -> acap.ProcessingBackend:
        """Override this: return a new backend."""
        raise NotImplementedError("give the subclass a `backend` fixture")

    @pytest.fixture
    def model(
        self,
        ready: None,  # noqa: ARG002
        backend: acap.ProcessingBackend,
        conversion: acap.Conversion,
    ) -> Iterator[acap.Model]:
        model = backend.prepare(conversion)
        yield model
        model.close()

    def test_a_model_has_the_specs_of_its_conversion(self, model: acap.Model, conversion: acap.Conversion) -> None:
        assert model.inputs == conversion.inputs, f"inputs {model.inputs}: expected {conversion.inputs}"
        assert model.outputs == conversion.outputs, f"outputs {model.outputs}: expected {conversion.outputs}"

    def test_the_result_has_the_form_of_its_spec(self, model: acap.Model, conversion: acap.Conversion) -> None:
        results = model.run({"input": noise(conversion.input)})
        assert list(results) == ["output"], f"results {list(results)}: expected output"
        result = results["output"]
        assert isinstance(result, np.ndarray), f"output is a {type(result)}: expected a numpy array"
        assert result.dtype == np.uint8, f"output has dtype {result.dtype}: expected uint8"
        assert result.shape == conversion.output.shape, f"output {result.shape}: expected {conversion.output.shape}"
        assert result.flags.c_contiguous, "output is not C-contiguous"

    def test_the_picture_is_right(self, model: acap.Model, conversion: acap.Conversion) -> None:
        region, target = conversion.region, conversion.output
        period = 24 * max(1, region.width / target.width, region.height / target.height)
        picture = waves(conversion.input, period)
        self.tolerance.check(_converted(model, picture), self.reference(picture, conversion))

    def test_a_flat_picture_keeps_its_colour(self, model: acap.Model, conversion: acap.Conversion) -> None:
        for colour in COLOURS:
            wanted = flat(conversion.output, colour)
            result = _converted(model, flat(conversion.input, colour)).astype(int)
            np.testing.assert_allclose(result, wanted, rtol=0, atol=self.tolerance.peak, err_msg=f"colour {colour}")

    @pytest.mark.usefixtures("ready")
    def test_bytes_that_are_only_moved_stay_what_they_are(self, backend: acap.ProcessingBackend) -> None:
        for conversion in filter(_only_moves, self._supported()):
            picture = noise(conversion.input)
            model = backend.prepare(conversion)
            result = _converted(model, picture)
            model.close()
            np.testing.assert_array_equal(result, self.reference(picture, conversion), err_msg=str(conversion))

    def test_the_input_may_be_read_only_and_stays_as_it_is(
        self, model: acap.Model, conversion: acap.Conversion
    ) -> None:
        picture = noise(conversion.input)
        before = picture.copy()
        picture.flags.writeable = False
        _converted(model, picture)
        np.testing.assert_array_equal(picture, before)

    def test_the_input_may_lie_at_any_address(self, model: acap.Model, conversion: acap.Conversion) -> None:
        picture = noise(conversion.input)
        moved = np.frombuffer(b"\0" + picture.tobytes(), np.uint8, offset=1).reshape(picture.shape)
        np.testing.assert_array_equal(_converted(model, moved), _converted(model, picture))

    def test_a_run_leaves_nothing_behind_for_the_next(self, model: acap.Model, conversion: acap.Conversion) -> None:
        first = _converted(model, noise(conversion.input))
        _converted(model, flat(conversion.input, (255, 255, 255)))
        np.testing.assert_array_equal(_converted(model, noise(conversion.input)), first)

    @pytest.mark.usefixtures("ready")
    def test_a_result_lives_on_while_other_models_run(self, backend: acap.ProcessingBackend) -> None:
        conversion = self._supported()[0]
        model, other = backend.prepare(conversion), backend.prepare(conversion)
        result = model.run({"input": noise(conversion.input)})["output"]
        before = result.copy()
        other.run({"input": flat(conversion.input, (255, 255, 255))})
        other.close()
        np.testing.assert_array_equal(result, before)
        model.close()

    @pytest.mark.usefixtures("ready")
    def test_models_run_side_by_side(self, backend: acap.ProcessingBackend) -> None:
        supported = self._supported()

        def results(conversion: acap.Conversion) -> list[acap.Array]:
            picture = noise(conversion.input)
            model = backend.prepare(conversion)
            try:
                return [_converted(model, picture) for _ in range(20)]
            finally:
                model.close()

        for pair in ((supported[0], supported[0]), (supported[0], supported[-1])):
            alone = [results(conversion)[0] for conversion in pair]
            with ThreadPoolExecutor(len(pair)) as threads:
                together = list(threads.map(results, pair))
            for wanted, found in zip(alone, together, strict=True):
                for result in found:
                    np.testing.assert_array_equal(result, wanted)

    @pytest.mark.usefixtures("ready")
    def test_close_gives_everything_back(self, backend: acap.ProcessingBackend) -> None:
        conversion = self._largest()
        picture = noise(conversion.input)

        def prepare_run_and_close() -> None:
            model = backend.prepare(conversion)
            model.run({"input": picture})
            model.close()

        self._check_given_back(prepare_run_and_close, "loads", self.rounds)

    @pytest.mark.usefixtures("ready")
    def test_running_gives_everything_back(self, backend: acap.ProcessingBackend) -> None:
        conversion = self._largest()
        picture = noise(conversion.input)
        model = backend.prepare(conversion)

        def run() -> None:
            model.run({"input": picture})

        self._check_given_back(run, "runs", self.run_rounds)
        model.close()

    def _largest(self) -> acap.Conversion:
        return max(self._supported(), key=lambda conversion: prod(conversion.output.shape))

    @pytest.mark.usefixtures("ready")
    def test_predict_over_a_socket_gives_what_a_direct_run_does(
        self, backend: acap.ProcessingBackend, tmp_path: Path
    ) -> None:
        # The last conversion of each pair of formats, which has the most work.
        each = {(conversion.input.format, conversion.output.format): conversion for conversion in self._supported()}
        direct, models = {}, []
        for number, conversion in enumerate(each.values()):
            picture = noise(conversion.input)
            model = backend.prepare(conversion)
            direct[f"model{number}"] = _converted(model, picture)
            model.close()
            path = tmp_path / f"{number}.toml"
            path.write_text(_parameters(conversion), encoding="utf-8")
            models.append(ServedModel(f"model{number}", path, {"input": picture}))
        for name, outputs in self._predict_over_a_socket(backend, models).items():
            assert list(outputs) == ["output"], f"outputs of {name} over a socket: {list(outputs)}, expected output"
            np.testing.assert_array_equal(outputs["output"], direct[name], err_msg=f"{name} over a socket")

    @pytest.mark.usefixtures("ready")
    def test_what_the_chip_cannot_do_is_refused(self, backend: acap.ProcessingBackend) -> None:
        for conversion in self.conversions:
            if not self.supports(conversion):
                with pytest.raises(acap.InvalidRequest):
                    backend.prepare(conversion)


def _needed(conversion: acap.Conversion) -> Iterator[str]:
    """Yield the capabilities that a conversion needs."""
    region, source, target = conversion.region, conversion.input, conversion.output
    if (region.width, region.height) != (target.width, target.height):
        yield "scales"
    if conversion.crop is not None:
        yield "crops"
    sizes = (source.width, source.height, region.x, region.y, region.width, region.height)
    if _odd(*sizes, target.width, target.height):
        yield "odd_sizes"


def _parameters(conversion: acap.Conversion) -> str:
    """Return the model file of a conversion as operators write it: larod's parameters."""
    lines = []
    for side, image in (("input", conversion.input), ("output", conversion.output)):
        lines += [f'image.{side}.format = "{image.format}"', f"image.{side}.size = [{image.width}, {image.height}]"]
    if crop := conversion.crop:
        lines.append(f"image.input.crop = [{crop.x}, {crop.y}, {crop.width}, {crop.height}]")
    return "\n".join(lines)


def _only_moves(conversion: acap.Conversion) -> bool:
    region, source, target = conversion.region, conversion.input, conversion.output
    scaled = (region.width, region.height) != (target.width, target.height)
    return not scaled and (source.format == "nv12") == (target.format == "nv12")


def _converted(model: acap.Model, picture: acap.Array) -> acap.Array:
    return model.run({"input": picture})["output"].copy()
