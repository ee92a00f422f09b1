"""A configuration file: TOML, and where in it each key stands."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from acap_runtime.errors import InvalidRequest

_LARGEST_FILE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says; tables named in `entries` are one entry for each of their own tables."""

    path: Path
    lines: Sequence[str]
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `InvalidRequest` where there is no such file, or it is no TOML."""
        try:
            with path.open("rb") as file:
                text = file.read(_LARGEST_FILE + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "expected text in UTF-8"
            raise InvalidRequest(f"configuration file {path}: {reason}") from None
        if len(text) > _LARGEST_FILE:
            raise InvalidRequest(f"configuration file {path}: expected at most {_LARGEST_FILE} bytes")
        try:
            return cls(path, text.splitlines(keepends=True), tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InvalidRequest(f"configuration file {path}: {error}") from None

    def entries(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Each key with its value; of a table, each key in it, such as ``models.digits``."""
        for key, value in self.content.items():
            if isinstance(value, dict):
                yield from (((key, name), inner) for name, inner in value.items())
            else:
                yield (key,), value

    def place(self, keys: Sequence[str]) -> str:
        """``FILE:LINE``, the line being where the statement begins by which a key comes to be there."""
        start = 0
        for end in range(1, len(self.lines) + 1):
            try:
                known: Any = tomllib.loads("".join(self.lines[:end]))
            except tomllib.TOMLDecodeError:
                continue  # within a statement of several lines
            for key in keys:
                known = known.get(key) if isinstance(known, dict) else None
            if known is not None:
                return f"{self.path}:{start + 1}"
            start = end
        return str(self.path)


def closest(word: str, known: Iterable[str]) -> str:
    """What was meant, perhaps, or else what there is."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, 1)
    return f"did you mean {near[0]}?" if near else f"expected one of: {', '.join(choices)}"
