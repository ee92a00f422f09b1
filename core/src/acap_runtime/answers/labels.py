"""The names of a model's classes, from the files that come with models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from acap_runtime.errors import InvalidRequest

_LARGEST_FILE: Final = 16 << 20
_NUMBERED: Final = re.compile(r"\s*(\d{1,9})\s*[\s:,]\s*(\S.*?)\s*")
_ITEM: Final = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
_ID: Final = re.compile(r"\bid\s*:\s*(\d{1,9})")
_NAME: Final = r"""\b{}\s*:\s*(?:"([^"]*)"|'([^']*)')"""


def read_labels(path: Path) -> Mapping[int, str]:
    """Return the labels in a file by their numbers.

    The file has a label on each line, counted from 0; or a number and a label on each line; or a label map of
    TensorFlow's (``item { id: 1 name: 'person' }``), in which ``display_name`` takes precedence. Raises
    `InvalidRequest`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE).decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"labels {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"labels {path}: expected a text in UTF-8: {error}") from None
    items = _ITEM.findall(text)
    labels = _of_map(path, items) if items else _of_lines(text)
    if not labels:
        raise InvalidRequest(f"labels {path}: expected a label on each line or a label map, found none")
    return labels


def _of_map(path: Path, items: list[str]) -> dict[int, str]:
    labels = {}
    for item in items:
        number = _ID.search(item)
        name = re.search(_NAME.format("display_name"), item) or re.search(_NAME.format("name"), item)
        if number is None or name is None:
            raise InvalidRequest(f"labels {path}: expected an id and a name in each item, got {item.strip()!r}")
        labels[int(number[1])] = name[1] or name[2] or ""
    return labels


def _of_lines(text: str) -> dict[int, str]:
    lines = text.rstrip().splitlines()
    numbered = [_NUMBERED.fullmatch(line) for line in lines if line.strip()]
    found = {int(match[1]): match[2] for match in numbered if match}
    # Labels may start with a number themselves, but hardly all of them, each with a different number.
    if found and len(found) == len(numbered):
        return found
    return {number: line.strip() for number, line in enumerate(lines)}
