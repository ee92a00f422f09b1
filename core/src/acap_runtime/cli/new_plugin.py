"""``acapruntime new-plugin``: creates a distribution for a chip, a camera or a parameter store, to be filled in."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final

from acap_runtime.errors import InvalidRequest
from acap_runtime.plugins.larod_chips import CHIPS, NO_CHIP

_PREFIX: Final = "acap-runtime-"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 30
_EPILOG = """The distribution drives a stand-in in software, so that its tests pass at once. What is to be done where
the real thing comes in is marked "# DRIVER:"."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of plugin: its name, its main module, and the command that shows its state once it is installed."""

    what: str
    module: str
    look: str


_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "inference": _Kind("the chip", "backend", "acapruntime chips"),
        "processing": _Kind("the image-converting chip", "backend", "acapruntime chips"),
        "camera": _Kind("the camera", "camera", "acapruntime cameras"),
        "parameters": _Kind("the parameter store", "store", "acapruntime doctor"),
    }
)


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if nothing was written."""
    parser = argparse.ArgumentParser(
        "acapruntime new-plugin",
        description="Write a distribution for a plugin of your own.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("name", help="what the chip, camera or store will be called, such as acme-npu")
    parser.add_argument(
        "--kind", choices=_KINDS, default="inference", help="inference runs models, processing converts images"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help=f"where it goes (./{_PREFIX}NAME)")
    given = parser.parse_args(arguments)
    name = _checked(given.name, given.kind)
    folder = given.folder or Path(f"{_PREFIX}{name}")
    _write(folder, _contents(name, given.kind))
    _say(name, _KINDS[given.kind], folder)
    return 0


def _checked(name: str, kind: str) -> str:
    """Return the name without the prefix that all plugins' distributions have. Raises `InvalidRequest`."""
    short = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(short) or len(short) > _LONGEST:
        raise InvalidRequest(
            f"name {name!r}: expected lower-case letters and digits, beginning with a letter, in words joined by "
            f"hyphens, at most {_LONGEST} characters; such as acme-npu"
        )
    for chip in (NO_CHIP, *CHIPS):
        is_a_chips = kind in {"inference", "processing"} and short in chip.words
        if is_a_chips or f"{_PREFIX}{short}" == chip.distribution:
            raise InvalidRequest(
                f"name {name!r} is that of larod's chip {chip.name}, for which there is {chip.distribution}; choose "
                f"another"
            )
    return short


def _contents(name: str, kind: str) -> dict[str, str]:
    """Return every file of the distribution by its path in it."""
    package = f"acap_runtime_{name.replace('-', '_')}"
    module = _KINDS[kind].module
    values = {
        "name": name,
        "distribution": f"{_PREFIX}{name}",
        "package": package,
        "class": "".join(word.capitalize() for word in name.split("-")),
        "variable": f"{name.replace('-', '_').upper()}_LIBRARY",
        "magic": name.replace("-", "").upper()[:8].ljust(8, "_"),
        "what": _KINDS[kind].what,
        **_supported_core(version("acap-runtime")),
    }
    values["use"] = _filled(kind, "use.md", values).strip()
    return {
        "pyproject.toml": _filled("common", "pyproject.toml", values),
        "README.md": _filled("common", "README.md", values),
        ".gitignore": _filled("common", "gitignore", values),
        ".github/workflows/test.yml": _filled("common", "workflow.yml", values),
        f"src/{package}/__init__.py": _filled(kind, "init.py", values),
        f"src/{package}/{module}.py": _filled(kind, f"{module}.py", values),
        f"src/{package}/driver.py": _filled(kind, "driver.py", values),
        f"src/{package}/py.typed": "",
        f"tests/test_{name.replace('-', '_')}.py": _filled(kind, "tests.py", values),
    }


def _supported_core(core: str) -> dict[str, str]:
    """Return the versions of the core that a new plugin requires: X.Y of this one."""
    major, minor, *_ = (int(number) for number in re.findall(r"\d+", core))
    return {"core": f"{major}.{minor}", "next": f"{major}.{minor + 1}"}


def _filled(kind: str, template: str, values: Mapping[str, str]) -> str:
    text = (files("acap_runtime") / "templates" / kind / f"{template}.template").read_text(encoding="utf-8")
    return re.sub(r"@@(\w+)@@", lambda found: values[found[1]], text)


def _write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files. Raises `InvalidRequest` if the folder is not empty or cannot be written."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InvalidRequest(f"{folder} is not empty: expected a new or an empty folder; give --folder DIR")
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{error.filename or folder} cannot be written: {error.strerror}") from None


def _say(name: str, kind: _Kind, folder: Path) -> None:
    look = f"{kind.look} {name}"
    width = max(len(look), 30)
    sys.stdout.write(f"""{folder} has {kind.what} {name}, driven by a stand-in. What to do next:

  cd {folder}
  pip install -e ".[testing]"
  {"pytest":{width}}  # passes now, and shall go on passing
  {look:{width}}  # ready
  {'grep -rn "DRIVER:" src tests':{width}}  # where the real thing comes in; README.md has the rest
""")
    sys.stdout.flush()
