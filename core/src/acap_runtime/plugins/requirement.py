"""Whether an installed plugin asks for the core that is here, as far as its metadata tells in plain numbers."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from types import MappingProxyType
from typing import Final

from acap_runtime.errors import NotReady

_CORE: Final = "acap-runtime"
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?(?P<clauses>[^;)]*)\)?\s*(?P<marker>;.*)?"
)
_CLAUSE: Final = re.compile(r"(?P<relation>>=|<=|==|!=|>|<)\s*(?P<version>\d+(?:\.\d+)*)")
_PLAIN: Final = re.compile(r"\d+(?:\.\d+)*")
_RELATIONS: Final[Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt}
)


def check_requirement(distribution: str) -> str | None:
    """Say how a distribution's requirement fits this core; None where this cannot be told from plain numbers.

    Raises `NotReady` with the requirement, the core's version and what to do where they do not fit.
    """
    try:
        wanted = [clauses for line in requires(distribution) or () if (clauses := _clauses(line)) is not None]
    except PackageNotFoundError:
        return None
    here = version(_CORE)
    fits = [_fits(clause.strip(), here) for clauses in wanted for clause in clauses.split(",")]
    text = f"{_CORE}{','.join(wanted)}"
    if False in fits:
        raise NotReady(
            f"{distribution} requires {text}, and this is {here}: pip install --upgrade {distribution}, or "
            f"pip install '{text}'"
        )
    return f"requires {text}, this is {here}" if fits and None not in fits else None


def _clauses(line: str) -> str | None:
    """What one line of requirements says of the core; None where it is about something else, or not always."""
    found = _REQUIREMENT.fullmatch(line.strip())
    if found is None or found["marker"] or re.sub(r"[-_.]+", "-", found["name"]).lower() != _CORE:
        return None
    return found["clauses"].replace(" ", "")


def _fits(clause: str, here: str) -> bool | None:
    found = _CLAUSE.fullmatch(clause)
    if found is None or _PLAIN.fullmatch(here) is None:
        return None
    one, other = _numbers(here), _numbers(found["version"])
    length = max(len(one), len(other))
    padded = (numbers + (0,) * (length - len(numbers)) for numbers in (one, other))
    return _RELATIONS[found["relation"]](*padded)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
