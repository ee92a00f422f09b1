"""Whether what a plugin's distribution needs of ours, the core and other plugins, is installed in a version that fits.

pip sees to that where it installs a plugin. It does not where it was told not to (``--no-deps``), nor to the plugins
that are there already when the core alone is upgraded or downgraded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from acap_runtime.errors import NotReady

_OURS: Final = re.compile(r"acap[-_.]+runtime(?![a-z0-9])", re.IGNORECASE)


def check_requirements(distribution: str, lines: Iterable[str]) -> list[str]:
    """Say which version is here of everything of ours that a distribution needs: `lines` are its ``Requires-Dist``.

    Raises `NotReady` with what is needed, what is here and what to do; nothing else, however odd the metadata are.
    """
    # Whichever of the two is the old one: pip brings with a plugin what the plugin needs.
    remedy = f"pip install --upgrade {distribution}"
    said = []
    for line in lines:
        if not _OURS.match(line.strip()):
            continue
        try:
            needed, here, fits = _judged(line)
        except (KeyError, TypeError, ValueError) as error:
            why = str(error).partition("\n")[0]  # what follows points into the line
            raise NotReady(f"its requirement {line!r} cannot be judged: {why}; {remedy}") from error
        if not fits:
            is_here = "which is not installed" if here is None else f"and {here} is installed"
            raise NotReady(f"needs {needed}, {is_here}: {remedy}")
        if needed:
            said.append(f"needs {needed}, and {here} is installed")
    return said


def _judged(line: str) -> tuple[str, str | None, bool]:
    """What one line asks for, the version of it that is here, and whether that fits. It asks for nothing where it is
    about another machine, or about an extra.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - it takes 10 ms, and workers do without
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    needed = Requirement(line)
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return "", None, True
    # Reversed, a range reads as people write it: >=0.1,<0.2.
    text = canonicalize_name(needed.name) + ",".join(sorted(map(str, needed.specifier), reverse=True))
    try:
        here = version(needed.name)
    except PackageNotFoundError:
        return text, None, False
    # Whoever installed a pre-release wants it used.
    return text, here, needed.specifier.contains(here, prereleases=True)
