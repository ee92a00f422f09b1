"""``acapruntime predict``: runs a model of a running server on pictures."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from acap_runtime.answers.interpretation import Classes, Interpretation, Numbers, interpret
from acap_runtime.answers.labels import read_labels
from acap_runtime.cli import connection
from acap_runtime.cli.argument_types import argument, positive
from acap_runtime.cli.table import write
from acap_runtime.contract.backend import Array
from acap_runtime.contract.conversions import image_of
from acap_runtime.errors import AcapError, InvalidRequest, NotReady
from acap_runtime.settings.option_values import integer
from acap_runtime.trials.samples import Scaling, input_from

if TYPE_CHECKING:
    # The server imports this module too. It must not need an extra, and its malloc settings come before gRPC's buffers.
    from PIL import Image

    from acap_runtime.client import Client, ModelDescription

_TIMEOUT_S: Final = 60.0
_EPILOG = """Scores are real numbers where the model says what its integers stand for, and otherwise what it gives. A
model of bytes gets each picture in its own size, which the server stretches; for others it is stretched and scaled
here. The exit code is 1 if any picture failed; the reason of each is on stderr, and in the JSON."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if any picture failed."""
    parser = _parser()
    given = parser.parse_args(arguments)
    targets = _targets(parser, given)
    labels = _Labels({} if given.labels is None else read_labels(given.labels), given.label_offset)
    _check_pillow()
    with connection.connected(parser, given) as client:
        runs = _Runs(client, client.model(given.model), given, labels)
        results = []
        for number, path in enumerate(given.image, 1):
            result = runs.result(path, targets.get(path))
            results.append(result)
            if result.error is not None:
                _say(f"acapruntime: {path}: {result.error.removeprefix(f'{path}: ')}")
            elif not given.json:
                write("\n".join(_lines(result, labels)))
            runs.tell_progress(number)
    if given.json:
        head = {"model": runs.model.name, "version": runs.model.version, "chip": runs.model.chip}
        write(json.dumps(head | {"pictures": [_packed(result, labels) for result in results]}, indent=2))
    if given.labels is not None:
        labels.tell_doubts(results, given.labels)
    return int(any(result.error is not None for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "acapruntime predict",
        description="Run a model of a running server on pictures.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("model", help="its name, or on the unix socket the path of its file")
    parser.add_argument(
        "--image", type=Path, nargs="+", action="extend", required=True, metavar="FILE", help="pictures, any number"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of classes: a list, or a label map")
    parser.add_argument(
        "--label-offset",
        type=int,
        default=0,
        metavar="N",
        help="what a label's number is above its class's (%(default)s); -1 for a list without the model's background",
    )
    parser.add_argument(
        "--top", type=argument(integer(1, 100000)), default=5, metavar="N", help="best classes to show (%(default)s)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="least score of what was detected (%(default)s)"
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="DIR|FILE",
        help="write copies of the pictures with boxes around what was detected; a FILE for one picture",
    )
    parser.add_argument("--mean", type=float, default=0.0, help="what is taken from a pixel's level (%(default)s), and")
    parser.add_argument(
        "--std", type=positive, default=255.0, help="what it is divided by (%(default)s), for floating-point inputs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    connection.add_arguments(parser, _TIMEOUT_S)
    return parser


def _targets(parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[Path, Path]:
    """Return the file to draw into for each picture."""
    if given.draw is None:
        return {}
    if not given.draw.is_dir() and len(given.image) > 1:
        parser.error(f"--draw: expected a folder that exists for {len(given.image)} pictures, got {given.draw}")
    targets = {path: given.draw / path.name if given.draw.is_dir() else given.draw for path in given.image}
    if len(set(targets.values())) < len(targets):
        parser.error("--draw: expected pictures of different names, since their copies have the same")
    for path, target in targets.items():
        if target.resolve() == path.resolve():
            parser.error(f"--draw: expected another place than that of the picture, {path}")
    return targets


def _check_pillow() -> None:
    try:
        import PIL  # noqa: F401, PLC0415 - an extra, which only this command needs
    except ModuleNotFoundError:
        raise NotReady("pictures need Pillow, which is not installed: pip install 'acap-runtime[images]'") from None


@dataclass(frozen=True, slots=True)
class _Result:
    """The result for one picture: an error, or the interpretation of the model's outputs. `size` is (width, height) in
    pixels.
    """

    picture: Path
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    made: Interpretation = field(default_factory=Interpretation)


@dataclass(frozen=True, slots=True)
class _Labels:
    names: Mapping[int, str]
    offset: int

    def of(self, number: int) -> str | None:
        return self.names.get(number + self.offset)

    def named(self, number: int) -> str:
        return f"{number}  {self.of(number) or ''}".rstrip()

    def tell_doubts(self, results: Iterable[_Result], path: Path) -> None:
        """Warn if the labels seem to belong to other class numbers. Only the user can be sure of that."""
        for result in results:
            for output in result.made.outputs:
                if isinstance(output, Classes) and len(self.names) != output.count:
                    hint = "; --label-offset -1 if class 0 is a background" * (len(self.names) == output.count - 1)
                    _say(f"{path}: {len(self.names)} labels for {output.count} classes{hint * (not self.offset)}")
                    return
            if result.made.detections is not None and min(self.names) == 1 and not self.offset:
                _say(f"{path}: labels begin at 1, and classes of most detection models at 0: --label-offset 1")
                return


@dataclass(slots=True)
class _Runs:
    """Runs a model on one picture after another."""

    client: Client
    model: ModelDescription
    given: argparse.Namespace
    labels: _Labels
    _told: float = field(default_factory=time.monotonic)

    def result(self, path: Path, target: Path | None) -> _Result:
        from acap_runtime.client import CallFailed  # noqa: PLC0415 - it brings gRPC

        try:
            return self._result(path, target)
        except (AcapError, CallFailed) as error:
            return _Result(path, str(error))

    def tell_progress(self, number: int) -> None:
        """Print the progress every second, if a user watches and sees no results."""
        if sys.stderr.isatty() and (self.given.json or not sys.stdout.isatty()) and time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            _say(f"picture {number} of {len(self.given.image)}")

    def _result(self, path: Path, target: Path | None) -> _Result:
        from acap_runtime.trials.picture_files import opened  # noqa: PLC0415 - what it needs is an extra

        with opened(path) as picture:
            outputs = self.client.predict(self.model.name, self._inputs(path, np.asarray(picture)))
            made = interpret(self.model.outputs, outputs, top=self.given.top, threshold=self.given.threshold)
            if target is not None:
                self._draw(picture, target, made)
            return _Result(path, size=picture.size, made=made)

    def _inputs(self, path: Path, pixels: Array) -> Mapping[str, Array]:
        specs = self.model.inputs
        if len(specs) == 1 and image_of(specs[0].dtype, specs[0].shape) is not None:
            return {specs[0].name: pixels[None]}
        return input_from(path, specs, Scaling(self.given.mean, self.given.std))

    def _draw(self, picture: Image.Image, target: Path, made: Interpretation) -> None:
        from acap_runtime.cli.predict.drawing import draw_detections  # noqa: PLC0415 - what it needs is an extra

        if made.detections is None:
            shapes = ", ".join(f"{spec.name} {spec}" for spec in self.model.outputs)
            raise InvalidRequest(f"--draw: expected a detection model's boxes, classes, scores and count, got {shapes}")
        captions = [f"{self.labels.of(each.number) or each.number} {each.score:.2f}" for each in made.detections]
        draw_detections(picture, target, zip(made.detections, captions, strict=True))


def _lines(result: _Result, labels: _Labels) -> Iterable[str]:
    yield str(result.picture)
    made = result.made
    for each in made.detections or ():
        left, top, right, bottom = each.box.within(*result.size)
        yield f"  {each.score:.4f}  {labels.named(each.number)}  ({left}, {top}) to ({right}, {bottom})"
    if made.detections is not None and not made.detections:
        yield "  nothing"
    for output in made.outputs:
        if isinstance(output, Numbers):
            summary = ", ".join(f"{name} {value:.6g}" for name, value in output.summary.items())
            yield f"  {output.output}  {output.dtype} {list(output.shape)}: {summary or 'empty'}"
            continue
        if len(made.outputs) > 1:
            yield f"  {output.output}"
        for number, score in output.best:
            yield f"  {score:.4f}  {labels.named(number)}"


def _packed(result: _Result, labels: _Labels) -> dict[str, Any]:
    """Return a picture's part of the JSON output."""
    found = result.made.detections
    return {
        "picture": str(result.picture),
        "error": result.error,
        "detections": None
        if found is None
        else [
            _packed_class(each.number, each.score, labels)
            | {"box": dict(zip(("left", "top", "right", "bottom"), each.box.within(*result.size), strict=True))}
            for each in found
        ],
        "outputs": [_packed_output(output, labels) for output in result.made.outputs],
    }


def _packed_output(output: Classes | Numbers, labels: _Labels) -> dict[str, Any]:
    if isinstance(output, Classes):
        return {"output": output.output, "classes": [_packed_class(*each, labels) for each in output.best]}
    summary = {name: _finite(value) for name, value in output.summary.items()}
    return {"output": output.output, "dtype": output.dtype, "shape": list(output.shape), **summary}


def _packed_class(number: int, score: float, labels: _Labels) -> dict[str, Any]:
    return {"class": number, "label": labels.of(number), "score": _finite(score)}


def _finite(value: float) -> float | None:
    # JSON has no NaN and no infinity.
    return value if math.isfinite(value) else None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
