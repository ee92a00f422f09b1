"""The description of a source, for FFmpeg and for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import acap_runtime as acap

_CREDENTIALS: Final = re.compile(r"(?<=://)\S*@")
_QUERY: Final = re.compile(r"(://[^\s?]*\?)\S+")


@dataclass(frozen=True, slots=True)
class Source:
    """A source as FFmpeg opens it.

    `expected` describes a correct source in messages. A `live` source gives frames as they are captured and ends when
    it fails. Any other source plays at its own pace, for ever. It may be silent for `timeout_s`. `failure` is the error
    to raise if it cannot be opened.
    """

    text: str
    url: str
    expected: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    live: bool = False
    timeout_s: float = 5.0
    failure: type[acap.AcapError] = acap.NotReady

    def __str__(self) -> str:
        return without_credentials(self.text)


def without_credentials(text: str) -> str:
    """Remove the text before an @ and after a question mark from a URL: cameras take passwords in both places."""
    return _QUERY.sub(r"\1…", _CREDENTIALS.sub("***@", text))
