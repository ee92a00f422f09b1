"""Connects the client commands to a running server."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from acap_runtime.cli.argument_types import argument
from acap_runtime.errors import InvalidRequest, Unavailable
from acap_runtime.settings.option_values import seconds
from acap_runtime.settings.reading import read_settings

if TYPE_CHECKING:
    # Every command imports this module, including the server, whose malloc settings must come before gRPC's first
    # buffer.
    from acap_runtime.client import Client

_WAIT_S: Final = 3.0
"""The time that a server has to accept a connection."""
_EVERYWHERE: Final = frozenset(("0.0.0.0", "::", "[::]", ""))  # noqa: S104 - compared with, not listened on


def add_arguments(parser: argparse.ArgumentParser, timeout_s: float) -> None:
    """Add the options for the server's address to a parser. By default, a call may take `timeout_s`."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the server's: the PATH of a unix socket, unix:PATH or HOST:PORT; by default where a server would listen "
        "that has the same environment",
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="use TLS, and trust these certificates, PEM")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="TLS certificate of this client, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--timeout",
        type=argument(seconds(0.1)),
        default=timeout_s,
        metavar="SECONDS",
        help="how long an answer may take (default %(default)g)",
    )


@contextlib.contextmanager
def connected(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Iterator[Client]:
    """Yield a client of the server that the arguments name.

    Ends the command if the arguments make no sense. Raises `Unavailable` if no server answers, or if the server does
    not answer a call made in this context.
    """
    try:
        address = _default_address() if given.address is None else _target(given.address)
    except InvalidRequest as error:
        parser.error(str(error))
    # The library's own log lines, in a format of their own, would only repeat the error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from acap_runtime.client import CallFailed  # noqa: PLC0415 - it brings gRPC

    try:
        _check_socket(address)
        with _connect(parser, given, address) as client:
            yield client
    except CallFailed as error:
        message = error.message if error.method == "connect" else str(error)
        if error.status.name == "UNIMPLEMENTED":
            message = f"the server at {address} does not know {error.method}; expected acap-runtime of this version"
        raise Unavailable(message) from None


def _connect(parser: argparse.ArgumentParser, given: argparse.Namespace, address: str) -> Client:
    from acap_runtime.client import connect  # noqa: PLC0415 - it brings gRPC

    try:
        return connect(
            address,
            ca=given.ca,
            certificate=given.certificate,
            key=given.key,
            timeout_s=given.timeout,
            wait_s=min(_WAIT_S, given.timeout),
        )
    except (OSError, ValueError) as error:
        parser.error(f"--ca, --certificate, --key: {error}")


def _default_address() -> str:
    settings = read_settings({})
    if not settings.port:
        return f"unix:{settings.socket.absolute()}"
    host = "localhost" if settings.address in _EVERYWHERE else settings.address
    return f"[{host}]:{settings.port}" if ":" in host.strip("[]") else f"{host}:{settings.port}"


def _target(address: str) -> str:
    """Return an address in the form that grpc takes."""
    if address.startswith("unix:"):
        return address
    if "/" in address:
        return f"unix:{Path(address).absolute()}"
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise InvalidRequest(f"--address: expected PATH with a /, unix:PATH or HOST:PORT, got {address!r}")
    return address


def _check_socket(address: str) -> None:
    """Raise `Unavailable` with the reason if nothing listens on a unix socket. grpc would only wait."""
    if not address.startswith("unix:"):
        return
    path = re.sub("^unix:(//(?=/))?", "", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(_WAIT_S)
        try:
            caller.connect(path)
        except OSError as error:
            raise Unavailable(
                f"no server answers on the socket {path}: {error.strerror or error}; start one there, or say with "
                f"--address where it listens"
            ) from None
