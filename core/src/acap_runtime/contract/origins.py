"""Finds the library that an exception came from and the code that called it, as far as traceback and sources show."""

from __future__ import annotations

import ast
import inspect
import linecache
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distribution, entry_points, packages_distributions
from itertools import islice
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Final

_CORE: Final = "acap_runtime"
"""The core's package, and the group of its plugins' entry points."""
_MOST_LIBRARIES: Final = 3


def origin(error: BaseException) -> str:
    """Return the origin, such as ``av 19.0.2, called by acap-runtime-video 0.1.0, opening.py:31``. It is empty for an
    exception that was never raised.

    Raises any error that the standard library raises for damaged packages.
    """
    libraries: list[str] = []
    place = []
    for step in reversed(list(_steps(error.__traceback__))):
        package = _package_of(step.tb_frame)
        if not libraries and (clue := _clue(error, step)):
            libraries.append(clue)
        if not _is_library(package):
            place = [_place(package, step)]
            break
        if package not in libraries and not (libraries and package in sys.stdlib_module_names):
            libraries.append(package)
    return ", called by ".join([*map(_named, libraries[:_MOST_LIBRARIES]), *place])


def _steps(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        if _package_of(traceback.tb_frame):
            yield traceback
        traceback = traceback.tb_next


def _package_of(frame: FrameType) -> str:
    """Return the top-level package whose code a frame runs; empty for code without a module."""
    name = frame.f_globals.get("__name__")
    if isinstance(name, str):
        return _top(name)
    # Frames of Cython code have the names of its source files, relative to the folder of packages, and no globals.
    first, slash, _ = frame.f_code.co_filename.partition("/")
    return first if slash else ""


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_library(package: str) -> bool:
    """Return True if the package is neither ours nor a plugin's, and pip knows it. pip may not know a package under
    development.
    """
    return package in sys.stdlib_module_names or (package in _owners() and package not in _own())


@cache
def _owners() -> Mapping[str, str]:
    """Return the distribution of each package. Packages that several distributions share are left out."""
    owners = {package: set(names) for package, names in packages_distributions().items()}
    return {**{package: names.pop() for package, names in owners.items() if len(names) == 1}, **_own()}


@cache
def _own() -> Mapping[str, str]:
    """Return the distributions of the core's package and of plugins. An editable install has no list of its files."""
    points = entry_points(group=_CORE)
    return {_CORE: "acap-runtime"} | {_top(point.module): point.dist.name for point in points if point.dist}


def _named(package: str) -> str:
    if package in sys.stdlib_module_names:
        return f"{package} of Python {platform.python_version()}"
    owner = _owners()[package]
    return f"{owner} {distribution(owner).version}"


def _place(package: str, step: TracebackType) -> str:
    parts = Path(step.tb_frame.f_code.co_filename).parts
    folders = [number for number, part in enumerate(parts) if part == package]
    where = f"{'/'.join(parts[folders[-1] + 1 :] if folders else parts[-1:])}:{step.tb_lineno}"
    if package in _owners():
        return f"{_named(package)}, {where}"
    return f"{package}/{where}" if folders else where


def _clue(error: BaseException, step: TracebackType) -> str:
    """Return the library that an exception's text names, or that was called where it was raised. Code written in C has
    no frame of its own. A call with a wrong signature fails before it has a frame.
    """
    for module in _clues(error, step):
        package = _top(module)
        if _is_library(package) and package not in sys.stdlib_module_names:
            return package
    return ""


def _clues(error: BaseException, step: TracebackType) -> Iterator[str]:
    if isinstance(error, ImportError):
        yield error.name or ""
    if isinstance(error, AttributeError):
        yield _module_of(error.obj)
    yield type(error).__module__
    if (failed := _failed_expression(step)) is not None:
        yield _module_of(_looked_up(failed, step.tb_frame))


def _module_of(thing: object) -> str:
    if isinstance(thing, ModuleType):
        return thing.__name__
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return type(thing).__module__
    # Methods written in C have no module, but their class has one.
    owner = getattr(thing, "__objclass__", None) or type(getattr(thing, "__self__", None))
    return getattr(thing, "__module__", None) or owner.__module__


def _failed_expression(step: TracebackType) -> ast.expr | None:
    """Return the expression that was computed when the exception was raised, if the source is available."""
    frame = step.tb_frame
    line, last_line, start, end = next(islice(frame.f_code.co_positions(), step.tb_lasti // 2, None))
    if line is None or last_line is None or start is None or end is None:
        return None
    name = frame.f_code.co_filename
    lines = [linecache.getline(name, number, frame.f_globals).encode() for number in range(line, last_line + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    try:
        return ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except SyntaxError:
        return None


def _looked_up(node: ast.expr, frame: FrameType) -> object:
    """Return the object that an expression names, without running any foreign code; for a call, the called object."""
    match node:
        case ast.Name(name):
            return frame.f_locals.get(name, frame.f_globals.get(name))
        case ast.Attribute(value, name):
            owner = _looked_up(value, frame)
            found = inspect.getattr_static(owner, name, None)
            return owner if found is None else found
        case ast.Call(func=value) | ast.Subscript(value=value) | ast.Await(value=value):
            return _looked_up(value, frame)
    return None
