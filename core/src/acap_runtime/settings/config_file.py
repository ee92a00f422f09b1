"""A configuration file in TOML, with the line of each key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from acap_runtime.errors import InvalidRequest

_LARGEST_FILE: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class ConfigFile:
    """The text and the parsed content of a configuration file."""

    path: Path
    text: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises `InvalidRequest` if it does not exist or is not TOML."""
        try:
            with path.open("rb") as file:
                text = file.read(_LARGEST_FILE + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "expected text in UTF-8"
            raise InvalidRequest(f"configuration file {path}: {reason}") from None
        if len(text) > _LARGEST_FILE:
            raise InvalidRequest(f"configuration file {path}: expected at most {_LARGEST_FILE} bytes")
        try:
            return cls(path, text, tomllib.loads(text))
        except (ValueError, RecursionError) as error:  # TOML that is wrong, or a number beyond all bounds
            raise InvalidRequest(f"configuration file {path}: {error}") from None

    def entries(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield each key with its value, and for a table each key in it, such as ``models.digits``."""
        for key, value in self.content.items():
            if isinstance(value, dict):
                yield from (((key, name), inner) for name, inner in value.items())
            else:
                yield (key,), value

    def place(self, keys: Sequence[str]) -> str:
        """Return ``FILE:LINE`` for a key: the first line of the statement that makes the key."""
        line = self._lines.get(tuple(keys))
        return str(self.path) if line is None else f"{self.path}:{line}"

    @cached_property
    def _lines(self) -> Mapping[tuple[str, ...], int]:
        found: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        statement, start = "", 0
        for number, line in enumerate(self.text.splitlines(keepends=True), 1):
            statement, start = statement + line, start or number
            try:
                parsed = tomllib.loads(statement)
            except tomllib.TOMLDecodeError:
                continue  # within a statement of several lines
            paths = list(_paths(parsed))
            if statement.lstrip().startswith("["):
                table = max(paths, key=len)
                paths = [table]
            else:
                paths = [(*table, *path) for path in paths]
            for path in paths:
                for length in range(1, len(path) + 1):
                    found.setdefault(path[:length], start)
            statement, start = "", 0
        return found


def _paths(table: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *path) for path in _paths(value))


def closest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word nearest to `word`; list all known words if none is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, 1)
    return f"did you mean {near[0]}?" if near else f"expected one of: {', '.join(choices)}"
