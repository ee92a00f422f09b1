"""TLS: the certificate of the server, and the authorities that its clients need."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

from acap_runtime.errors import NotReady
from acap_runtime.settings.options import Settings

_LOG = logging.getLogger(__name__)


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Read the certificates that the settings name. None means no TLS.

    With only one of certificate and key, the unix socket has no TLS, as the original documents, and TCP does not start.
    Raises `NotReady` for the latter, and for a file that cannot be read or used.
    """
    certificate, key, authorities = settings.certificate, settings.key, settings.client_ca
    if certificate is None or key is None:
        if authorities is not None:
            raise NotReady("--client-ca: expected a certificate (-c) and its key (-k) beside it")
        if certificate is None and key is None:
            return None
        missing = "certificate (-c)" if certificate is None else "key (-k)"
        if settings.port:
            raise NotReady(f"TLS on TCP: expected a certificate (-c) and its key (-k), got no {missing}")
        _LOG.warning("no TLS: the %s is missing", missing)
        return None
    content = {path: _read(path) for path in (certificate, key, authorities) if path is not None}
    _check(certificate, key, authorities)
    return grpc.ssl_server_credentials(
        [(content[key], content[certificate])],
        root_certificates=None if authorities is None else content[authorities],
        require_client_auth=authorities is not None,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReady(f"TLS: {path} cannot be read: {error.strerror}") from None


def _check(certificate: Path, key: Path, authorities: Path | None) -> None:
    # gRPC reports only that a handshake failed, and not before the first connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a passphrase is refused. Without `password`, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise NotReady(f"TLS: {certificate} and {key} are no certificate and its unencrypted key: {error}") from None
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise NotReady(f"TLS: {authorities} holds no certificates: {error}") from None
