"""``acapruntime verify``: checks that a model gives the same outputs on one chip as on another."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acap_runtime.chips.supervisor import WorkerLimits
from acap_runtime.cli.argument_types import positive
from acap_runtime.cli.discovery import discover
from acap_runtime.cli.table import show
from acap_runtime.cli.verify.recording import Recording, read, save
from acap_runtime.cli.verify.verification import Comparison, Limits, Outputs, compare, flaws
from acap_runtime.contract.backend import Array, TensorSpec
from acap_runtime.errors import AcapError, InvalidRequest
from acap_runtime.plugins.installed import InstalledChip, Plugins
from acap_runtime.settings.model_source import ModelSource, parse_model
from acap_runtime.settings.options import add_arguments
from acap_runtime.settings.reading import read_settings
from acap_runtime.trials.samples import Scaling, inputs_from, random_inputs
from acap_runtime.trials.trial import Trial, loaded

_EPILOG = """The first chip is the reference, or the recording of --against, with whose inputs the chips are run.
Integers that stand for real numbers are compared as those. The cosine of the worst run counts. An output that is not
finite, all zero or constant on one chip alone is a failure, too."""
_SHOWN = 6
"""The digits of a measured number in the table."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if a chip exceeds the limits."""
    parser = _parser()
    given = parser.parse_args(arguments)
    words = [word for word in given.chips.split(",") if word.strip()]
    if given.against is None and given.record is None and len(words) < 2:  # noqa: PLR2004 - one against another
        parser.error(f"--chips: expected at least two, such as 2,4, or --record or --against; got {given.chips!r}")
    if given.against is not None and given.images is not None:
        parser.error("--against: its inputs are in the recording; leave out --images")
    if given.record is not None and not given.record.absolute().parent.is_dir():
        parser.error(f"--record: expected a file in a folder that exists, got {given.record}")
    settings = read_settings(vars(given))
    logging.basicConfig(level=logging.WARNING, format="acapruntime: %(message)s", stream=sys.stderr)
    try:
        models = _models(given, words)
    except InvalidRequest as error:
        parser.error(str(error))
    chips = _chips(words, discover(settings.blocked))
    timeouts = WorkerLimits(run_timeout_s=settings.run_timeout_s, load_timeout_s=settings.load_timeout_s)
    recordings = asyncio.run(_recorded(given, list(zip(chips, models, strict=True)), timeouts))
    if given.record is not None:
        save(given.record, recordings[0])
        _say(f"recorded in {given.record}")
    reference, *others = (recording.outputs for recording in recordings)
    limits = Limits(given.min_cosine, given.min_top1, given.max_difference)
    comparisons = [each for other in others for each in compare(reference, other, limits)]
    alone = {} if others else {spec.name: flaws(reference.real(spec.name)) for spec in reference.specs}
    failed = any(each.problems for each in comparisons) or any(alone.values())
    _show(given, recordings, comparisons, alone, ok=not failed)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "acapruntime verify",
        description="Run a model on the same inputs on several chips, and compare what they give.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="PATH[,OPTION=VALUE]", help="the model file")
    parser.add_argument("--chips", required=True, metavar="CHIP,CHIP", help="by number, name or alias")
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="CHIP=PATH[,OPTION=VALUE]",
        help="another file for one of the chips, such as the model compiled for it",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures or .npy files, instead of random numbers")
    parser.add_argument("--mean", type=float, default=0.0, help="what is taken from a pixel's level (%(default)s), and")
    parser.add_argument(
        "--std", type=positive, default=255.0, help="what it is divided by (%(default)s), for floating-point inputs"
    )
    parser.add_argument("--runs", type=_count, default=10, metavar="N", help="random inputs (%(default)s)")
    parser.add_argument("--seed", type=_count_from_0, default=0, metavar="N", help="of random inputs (%(default)s)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--record", type=Path, metavar="FILE.npz", help="keep inputs and outputs of the first chip")
    kept.add_argument("--against", type=Path, metavar="FILE.npz", help="compare with what --record kept")
    parser.add_argument("--min-cosine", type=float, default=0.99, metavar="X", help="of each output (%(default)s)")
    parser.add_argument(
        "--min-top1", type=float, default=0.9, metavar="X", help="share of runs with the same best class (%(default)s)"
    )
    parser.add_argument("--max-difference", type=float, metavar="X", help="of any number, in real units (any)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_arguments(parser, ["blocked", "run_timeout_s", "load_timeout_s"])
    return parser


def _count(text: str) -> int:
    if (number := _count_from_0(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return number


def _count_from_0(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _models(given: argparse.Namespace, words: Sequence[str]) -> list[ModelSource]:
    """Return the model file of each chip."""
    shared = parse_model(given.model)
    own = {}
    for text in given.on:
        word, separator, rest = text.partition("=")
        if not separator or word not in words:
            raise InvalidRequest(f"--on: expected CHIP=PATH with a chip of --chips, {', '.join(words)}; got {text!r}")
        own[word] = parse_model(rest)
    return [own.get(word, shared) for word in words]


def _chips(words: Sequence[str], plugins: Plugins) -> list[InstalledChip]:
    chips = []
    for word in words:
        chip = plugins.select(word)
        if chip is None:
            raise InvalidRequest(f"--chips: {word} is no chip: it runs no models")
        if chip in chips:
            raise InvalidRequest(f"--chips: expected each chip once, got {chip} again")
        chips.append(chip)
    return chips


async def _recorded(
    given: argparse.Namespace, places: Sequence[tuple[InstalledChip, ModelSource]], limits: WorkerLimits
) -> list[Recording]:
    """Return the recording of --against and one of each chip. The reference comes first."""
    recordings = [] if given.against is None else [read(given.against)]
    for chip, source in places:
        try:
            async with loaded(chip, source, limits) as trial:
                if recordings:
                    inputs, described = recordings[0].inputs, recordings[0].source
                    _check_inputs(trial, recordings[0])
                else:
                    inputs, described = _inputs(given, trial.inputs)
                recordings.append(Recording(described, inputs, await _run(trial, inputs)))
        except AcapError as error:
            message = str(error)
            raise type(error)(message if str(chip) in message else f"{chip}: {message}") from None
    return recordings


def _inputs(given: argparse.Namespace, specs: tuple[TensorSpec, ...]) -> tuple[tuple[Mapping[str, Array], ...], str]:
    if given.images is not None:
        inputs, described = inputs_from(given.images, specs, Scaling(given.mean, given.std))
        return tuple(inputs), described
    return tuple(random_inputs(specs, given.runs, given.seed)), f"{given.runs} random inputs, seed {given.seed}"


def _check_inputs(trial: Trial, reference: Recording) -> None:
    """Raise `InvalidRequest` if a chip's model does not take the reference's inputs."""
    wanted = {spec.name: spec for spec in trial.inputs}
    for inputs in reference.inputs:
        here = ", ".join(f"{name} {spec}" for name, spec in wanted.items())
        there = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in inputs.items())
        fits = wanted.keys() == inputs.keys() and all(
            wanted[name].dtype == array.dtype and wanted[name].accepts(array.shape) for name, array in inputs.items()
        )
        if not fits:
            raise InvalidRequest(
                f"{trial.chip} takes other inputs than {reference.outputs.where}: expected {here}; got {there}"
            )


async def _run(trial: Trial, inputs: Sequence[Mapping[str, Array]]) -> Outputs:
    runs, took = [], 0.0
    reported = time.monotonic()
    for number, each in enumerate(inputs, 1):
        outputs, seconds = await trial.run(each)
        runs.append(outputs)
        took += seconds
        if time.monotonic() - reported > 1:
            reported = time.monotonic()
            _say(f"{trial.chip}: run {number} of {len(inputs)}")
    _say(f"{trial.chip}: {len(inputs)} runs, {1000 * took / len(inputs):.1f} ms each")
    return Outputs(str(trial.chip), trial.outputs, tuple(runs))


def _show(
    given: argparse.Namespace,
    recordings: Sequence[Recording],
    comparisons: Sequence[Comparison],
    alone: Mapping[str, Sequence[str]],
    *,
    ok: bool,
) -> None:
    rows = [dataclasses.asdict(each) for each in comparisons]
    rows += [{"output": name, "chip": recordings[0].outputs.where, "problems": found} for name, found in alone.items()]
    if given.json:
        head = {"model": given.model, "inputs": recordings[0].source, "reference": recordings[0].outputs.where}
        sys.stdout.write(json.dumps({**head, "ok": ok, "outputs": list(map(_finite, rows))}, indent=2) + "\n")
        sys.stdout.flush()
        return
    show([_cells(row) for row in rows], as_json=False)
    _say(f"{recordings[0].source}: {'equal within the limits' if ok else 'NOT within the limits'}")


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no NaN and no infinity.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    def cell(value: Any) -> Any:
        return f"{value:.{_SHOWN}g}" if isinstance(value, float) else value

    return {name: cell(value) for name, value in row.items() if name != "problems"} | {
        "result": "failed" if row["problems"] else "ok",
        "why": "; ".join(row["problems"]) or None,
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
