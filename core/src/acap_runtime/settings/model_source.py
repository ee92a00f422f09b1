"""A model as the operator configures it: its name, the path of its versions, and its options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from acap_runtime.contract.batching import ALONE, Batching
from acap_runtime.errors import InvalidRequest
from acap_runtime.settings.option_values import integer, seconds

HIGHEST_VERSION: Final = 2**63 - 1
_LONGEST_BATCH_DELAY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The choice of a model's versions to serve: the `latest` ones by number, the `specific` ones, or else all.

    TensorFlow Serving calls this ServableVersionPolicy.
    """

    latest: int = 0
    specific: frozenset[int] = frozenset()

    def choose(self, versions: Collection[int]) -> list[int]:
        """Return the `versions` to serve, in rising order."""
        if self.specific:
            return sorted(self.specific.intersection(versions))
        return sorted(versions)[-self.latest :]

    def __str__(self) -> str:
        if self.specific:
            return "+".join(map(str, sorted(self.specific)))
        return f"latest:{self.latest}" if self.latest else "all"


LATEST: Final = VersionPolicy(latest=1)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model, and the name that clients call it by.

    `path` is a file, which is version 1, or a folder as TensorFlow Serving expects it: with one folder for each
    version, named by its number. `options` are those of the chip. `chip`, `instances` and `queue` are None for the
    server's default. `warm_up` lists the files to run before a version is served; None runs zeros, empty nothing.
    """

    name: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)
    chip: str | None = None
    instances: int | None = None
    queue: int | None = None
    versions: VersionPolicy = LATEST
    labels: Mapping[str, int] = field(default_factory=dict)
    warm_up: tuple[Path, ...] | None = ()
    batching: Batching = ALONE

    def loads_as(self, other: ModelSource) -> bool:
        """Return True if a version that was loaded for one of the two sources may serve for the other."""
        same = {"versions": self.versions, "labels": self.labels}
        return self == dataclasses.replace(other, **same)  # type: ignore[arg-type]  # both are ours


def parse_model(text: str) -> ModelSource:
    """Parse ``PATH`` or ``NAME=PATH``, then any number of ``,OPTION=VALUE``, of `MODEL_OPTIONS` or of the chip.

    Raises `InvalidRequest` naming the option.
    """
    first, *rest = re.split(r",(?=[a-z][a-z0-9_-]*=)", text)
    name, separator, path = first.partition("=")
    if not separator or "/" in name:
        name = path = first
    if not name or not path:
        raise InvalidRequest(f"expected PATH or NAME=PATH, got {text!r}")
    return make_source(name, path, dict(each.split("=", 1) for each in rest))


def make_source(name: str, path: str, options: Mapping[str, str]) -> ModelSource:
    """Make a model from the texts of its options. Raises `InvalidRequest` naming the option."""
    if not name.isprintable():
        raise InvalidRequest(f"expected a name of printable characters (NAME=PATH), got {name!r:.200}")
    if "\0" in path:
        raise InvalidRequest(f"model {name}: a path holds no NUL character")
    own: dict[str, Any] = {}
    for option, (_, parse) in MODEL_OPTIONS.items():
        if option in options:
            try:
                own[option] = parse(options[option])
            except InvalidRequest as error:
                raise InvalidRequest(f"{option}: {error}") from None
    batching = Batching(own.pop("batch", 1), own.pop("batch_delay", 0.0))
    left = {option: text for option, text in options.items() if option not in MODEL_OPTIONS}
    return ModelSource(name, Path(path).absolute(), left, batching=batching, **own)


def _word(text: str) -> str:
    if not text:
        raise InvalidRequest("expected a chip's number, name or alias, got nothing")
    return text


def _versions(text: str) -> VersionPolicy:
    if text == "all":
        return VersionPolicy()
    if text.startswith("latest"):
        count = text.removeprefix("latest").removeprefix(":")
        return VersionPolicy(latest=integer(1, 1000)(count)) if count else LATEST
    numbers = text.split("+")
    if not all(map(_is_version, numbers)):
        raise InvalidRequest(f"expected latest, latest:N, all, or numbers such as 1+3, got {text!r}")
    return VersionPolicy(specific=frozenset(map(int, numbers)))


def _labels(text: str) -> dict[str, int]:
    labels = {}
    for each in text.split("+"):
        label, _, number = each.rpartition(":")
        if not label or not _is_version(number):
            raise InvalidRequest(f"expected LABEL:VERSION, such as stable:2+canary:3, got {text!r}")
        labels[label] = int(number)
    return labels


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) <= HIGHEST_VERSION


def _warm_up(text: str) -> tuple[Path, ...] | None:
    if text in ("no", "zeros"):
        return () if text == "no" else None
    paths = text.split(":")
    if not all(paths):
        raise InvalidRequest(f"expected zeros, no, or files separated by colons, got {text!r}")
    return tuple(Path(path).absolute() for path in paths)


def _batch_delay(text: str) -> float:
    delay_s = seconds(0)(text)
    if delay_s > _LONGEST_BATCH_DELAY_S:
        raise InvalidRequest(f"expected at most {_LONGEST_BATCH_DELAY_S:g} seconds, got {text!r}")
    return delay_s


MODEL_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "chip": ("the chip that runs it, by number, name or alias; the server's first -j by default", _word),
    "instances": ("copies that run side by side; --instances by default", integer(1, 64)),
    "queue": ("calls that may wait for it; --queue by default", integer(1, 100000)),
    "versions": ("which versions are served: latest, latest:N, all, or numbers such as 1+3", _versions),
    "labels": ("names of versions that clients may use, such as stable:2+canary:3", _labels),
    "warm_up": ("what runs before a version is served: zeros, or pictures and .npy files, separated by ':'", _warm_up),
    "batch": ("rows of calls that may run as one, where the first dimension is open; 1 by default", integer(1, 4096)),
    "batch_delay": ("seconds that a call may wait for others to run with; 0 by default", _batch_delay),
}
"""The server's own options of a model: the meaning and the parser of each. All other options are the chip's."""


def as_option_text(source: ModelSource) -> str:
    """A model as ``-m`` would take it."""
    options: dict[str, Any] = dict(source.options)
    options |= {name: value for name in ("chip", "instances", "queue") if (value := getattr(source, name)) is not None}
    if source.versions != LATEST:
        options["versions"] = source.versions
    if source.labels:
        options["labels"] = "+".join(f"{label}:{number}" for label, number in source.labels.items())
    if source.warm_up != ():
        options["warm_up"] = "zeros" if source.warm_up is None else ":".join(map(str, source.warm_up))
    if source.batching.size > 1:
        options |= {"batch": source.batching.size, "batch_delay": f"{source.batching.delay_s:g}"}
    named = str(source.path) if source.name == str(source.path) else f"{source.name}={source.path}"
    return ",".join([named, *(f"{name}={text}" for name, text in options.items())])
