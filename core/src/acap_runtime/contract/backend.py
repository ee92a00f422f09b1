"""The contract for chips: the classes that a plugin implements, and the guarantees that it may rely on.

A backend is built in the front, which only reads its names and its static properties. ``probe``, ``load``, ``prepare``
and all methods of a `Model` run in the chip's own worker process. A complete inference backend:

    from pathlib import Path

    import acap_runtime as acap
    import numpy as np

    class DoublerModel(acap.Model):
        inputs = (acap.TensorSpec("data", np.dtype("uint8"), (1, -1)),)
        outputs = (acap.TensorSpec("doubled", np.dtype("uint16"), (1, -1)),)

        def run(self, inputs):
            return {"doubled": inputs["data"].astype("uint16") * 2}

    class Doubler(acap.InferenceBackend):
        chip_id, name, aliases = None, "doubler", ()

        def probe(self):
            if not Path("/dev/doubler").exists():
                raise acap.NotReady("/dev/doubler does not exist: is the driver loaded?")

        def load(self, path, options):
            return DoublerModel()

    @acap.hookimpl
    def acap_runtime_backends():
        return [Doubler()]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from acap_runtime.errors import InvalidRequest

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ImageFormat = Literal["nv12", "rgb-interleaved", "rgb-planar"]
"""larod's names for image formats: ``nv12`` is tight 4:2:0, a Y plane and then a plane of interleaved U and V;
``rgb-interleaved`` is R, G, B per pixel; ``rgb-planar`` is a plane each of R, G and B."""

IMAGE_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The mapping of integers to real numbers: ``real = scale * (integer - zero_point)``.

    There is one scale and zero point for the whole tensor, or one per slice along `axis`.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    `shape` has ``-1`` for every dimension that a request may choose, from 1 up. `quantisation` is None if the integers
    stand for themselves.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    quantisation: Quantisation | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return True if a tensor of `shape` fits as it is."""
        return len(shape) == len(self.shape) and all(
            size == wanted or (wanted == -1 and size > 0) for wanted, size in zip(self.shape, shape, strict=True)
        )

    @property
    def nbytes(self) -> int | None:
        """The size of such a tensor in bytes, or None while a dimension is open."""
        return None if -1 in self.shape else prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Image:
    """The form of an image: its format, and its width and height in pixels."""

    format: ImageFormat
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.format not in IMAGE_FORMATS:
            raise InvalidRequest(f"image format {self.format!r}: expected one of {', '.join(IMAGE_FORMATS)}")
        if self.width < 1 or self.height < 1:
            raise InvalidRequest(f"image size {self.width}x{self.height}: expected at least 1x1 pixel")
        if self.format == "nv12" and (self.width % 2 or self.height % 2):
            raise InvalidRequest(f"image size {self.width}x{self.height}: nv12 needs an even width and height")

    @property
    def shape(self) -> tuple[int, ...]:
        """The uint8 tensor that holds such an image: (1, h, w, 3), (1, 3, h, w), or (1, h * 3/2, w) for nv12."""
        if self.format == "rgb-interleaved":
            return (1, self.height, self.width, 3)
        if self.format == "rgb-planar":
            return (1, 3, self.height, self.width)
        return (1, self.height * 3 // 2, self.width)

    def __str__(self) -> str:
        return f"{self.format} {self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion of one image into another: format, size, and the part of the input to take (None for all of it)."""

    input: Image
    output: Image
    crop: Crop | None = None

    def __post_init__(self) -> None:
        crop = self.crop
        if crop is None:
            return
        inside = 0 <= crop.x < crop.x + crop.width <= self.input.width
        inside = inside and 0 <= crop.y < crop.y + crop.height <= self.input.height
        if not inside:
            raise InvalidRequest(f"crop {crop}: expected a part of the input image, {self.input}")
        if self.input.format == "nv12" and (crop.x % 2 or crop.y % 2 or crop.width % 2 or crop.height % 2):
            raise InvalidRequest(f"crop {crop}: nv12 needs even numbers")

    @property
    def region(self) -> Crop:
        """The part of the input image that becomes the output."""
        return self.crop or Crop(0, 0, self.input.width, self.input.height)

    @property
    def inputs(self) -> tuple[TensorSpec]:
        """The inputs of a model for this conversion."""
        return (TensorSpec("input", np.dtype(np.uint8), self.input.shape),)

    @property
    def outputs(self) -> tuple[TensorSpec]:
        """The outputs of a model for this conversion."""
        return (TensorSpec("output", np.dtype(np.uint8), self.output.shape),)

    def __str__(self) -> str:
        return f"{self.input} to {self.output}" + (f", crop {self.crop}" if self.crop else "")


class Model(ABC):
    """A model that is loaded on a chip and turns arrays into arrays.

    One thread, the one that loaded the model, calls its `run` and `close`. Several models of a backend run in parallel,
    in threads of one process.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Compute every output.

        `inputs` has one read-only, C-contiguous array per spec, of that dtype and of a shape that the spec accepts. Do
        not keep references to them. The result has one array per output. It may be a view of an input, or of memory
        that stays unchanged until the next `run` or `close`. Raises `DeviceError` if the chip fails, `InvalidRequest`
        if these inputs cannot be run.
        """

    def close(self) -> None:  # noqa: B027 - a model that holds nothing on a chip has nothing to free
        """Free all resources on the chip. Called once; no call follows."""


class Backend(ABC):
    """The code that drives one chip."""

    chip_id: ClassVar[int | None]
    """larod's number of the chip, or None for a chip that has none."""
    name: ClassVar[str]
    """larod's device name, such as ``cpu-tflite``."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names for the chip, such as ``LAROD_CHIP_TFLITE_CPU``."""
    options: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The load options that the backend knows, and the meaning of each. Others are refused before `load` is called."""
    suffixes: ClassVar[tuple[str, ...]]
    """The suffixes of its model files, which are used to find models in a folder."""

    @abstractmethod
    def probe(self) -> None:
        """Raise `NotReady` with the reason if this chip cannot be used here and now."""


class InferenceBackend(Backend):
    """A chip that runs models from files."""

    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)

    @abstractmethod
    def load(self, path: Path, options: Mapping[str, str]) -> Model:
        """Load a model file. The file existed and was readable a moment ago.

        `options` holds only names in `self.options`. Raises `InvalidRequest` for a file that is not a model for this
        chip or for an option whose value does not parse, `DeviceError` if the chip fails.
        """


class ProcessingBackend(Backend):
    """A chip that converts images."""

    suffixes: ClassVar[tuple[str, ...]] = (".toml",)

    def converts(self, conversion: Conversion) -> bool:  # noqa: ARG002 - a chip without limits ignores the conversion
        """Return True if this chip does such conversions. This looks at the numbers alone. It runs in the front, before
        the chip is chosen to convert for another chip. `prepare` may still refuse a conversion that this method allows.
        """
        return True

    @abstractmethod
    def prepare(self, conversion: Conversion) -> Model:
        """Make a model with `conversion.inputs` and `conversion.outputs`.

        The picture is stretched to the output's size with bilinear interpolation, as in the original runtime. The
        compliance kit allows a difference of a few levels of 255. The output is C-contiguous, since it may be the input
        of another model. Raises `InvalidRequest` for a conversion that this chip cannot do.
        """
