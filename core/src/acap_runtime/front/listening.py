"""Opens the server's address: a TCP port or a unix socket, with or without TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from typing import Final

import grpc.aio

from acap_runtime.errors import NotReady
from acap_runtime.front.tls import credentials
from acap_runtime.front.unix_socket import claimed_socket, file_creation_mode
from acap_runtime.settings.options import Settings

_LOG = logging.getLogger(__name__)
_SOCKET_MODE: Final = 0o660


@contextlib.asynccontextmanager
async def listening(server: grpc.aio.Server, settings: Settings) -> AsyncIterator[None]:
    """Start a gRPC server on the address in the settings; at exit, remove its unix socket.

    Stopping the server is left to the caller. Raises `NotReady` if the address or the certificates cannot be used.
    """
    tls = credentials(settings)
    with contextlib.ExitStack() as stack:
        if settings.port:
            address = _tcp_address(settings, encrypted=tls is not None)
        else:
            address = f"unix://{settings.socket.absolute()}"
            stack.enter_context(claimed_socket(settings.socket.absolute()))
        _bind(server, address, tls)
        await server.start()
        _LOG.info("listening on %s%s", address, "" if tls is None else " with TLS")
        yield


def _bind(server: grpc.aio.Server, address: str, tls: grpc.ServerCredentials | None) -> None:
    try:
        with file_creation_mode(_SOCKET_MODE):
            if tls is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, tls)
    except RuntimeError as error:
        raise NotReady(f"cannot listen on {address}: {error}") from None


def _tcp_address(settings: Settings, *, encrypted: bool) -> str:
    """Return the TCP address as gRPC takes it, after a check that it is free. Warns of plain text on a network."""
    address = f"{_bracketed(settings.address)}:{settings.port}"
    _check_port(settings.address, settings.port)
    if not encrypted and not _is_loopback(settings.address):
        _LOG.warning("%s is reachable from other machines, without encryption (-c and -k turn TLS on)", address)
    return address


def _check_port(host: str, port: int) -> None:
    """Raise `NotReady` with the reason if a port cannot be used. gRPC itself gives no reason."""
    unbracketed = host.strip("[]")
    try:
        family = socket.getaddrinfo(unbracketed, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((unbracketed, port), family=family).close()
    except OSError as error:
        raise NotReady(f"cannot listen on {_bracketed(host)}:{port}: {error.strerror}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
