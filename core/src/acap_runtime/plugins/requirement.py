"""Checks that our packages which a plugin's distribution needs, the core and other plugins, are installed in a matching
version.

pip ensures this when it installs a plugin. It does not if it runs with ``--no-deps``, nor for plugins that are already
installed when the core alone is upgraded or downgraded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from acap_runtime.errors import NotReady

_OURS: Final = re.compile(r"acap[-_.]+runtime(?![a-z0-9])", re.IGNORECASE)


def check_requirements(distribution: str, lines: Iterable[str]) -> list[str]:
    """Return the installed version of each of our packages that a distribution needs. `lines` is its ``Requires-Dist``.

    Raises `NotReady` with the requirement, the installed version and the remedy. Raises nothing else, however odd the
    metadata are.
    """
    # Upgrading fixes either case, whichever of the two is old: pip installs a plugin's requirements along with it.
    remedy = f"pip install --upgrade {distribution}"
    said = []
    for line in lines:
        if not _OURS.match(line.strip()):
            continue
        try:
            needed, here, fits = _judged(line)
        except (KeyError, TypeError, ValueError) as error:
            why = str(error).partition("\n")[0]  # the rest of the message points into the line
            raise NotReady(f"its requirement {line!r} cannot be judged: {why}; {remedy}") from error
        if not fits:
            is_here = "which is not installed" if here is None else f"and {here} is installed"
            raise NotReady(f"needs {needed}, {is_here}: {remedy}")
        if needed:
            said.append(f"needs {needed}, and {here} is installed")
    return said


def _judged(line: str) -> tuple[str, str | None, bool]:
    """Return the requirement of one line, the installed version, and True if that version fits. The requirement is
    empty if the line is about another machine or about an extra.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - it takes 10 ms, and workers do without
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    needed = Requirement(line)
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return "", None, True
    # Reversed, a range reads in the usual order: >=0.1,<0.2.
    text = canonicalize_name(needed.name) + ",".join(sorted(map(str, needed.specifier), reverse=True))
    try:
        here = version(needed.name)
    except PackageNotFoundError:
        return text, None, False
    # A user who installed a pre-release wants it used.
    return text, here, needed.specifier.contains(here, prereleases=True)
