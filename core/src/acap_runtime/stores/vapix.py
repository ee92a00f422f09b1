"""Reads parameters of an Axis camera over HTTP: VAPIX ``param.cgi``. Needs the extra ``vapix``, which brings httpx."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Final

import httpx

from acap_runtime.errors import InvalidRequest, NotReady, Unavailable, quoted
from acap_runtime.stores import Store
from acap_runtime.stores.credentials import Credentials
from acap_runtime.stores.listing import LARGEST, bare, is_listing, parse_listing

_LOG = logging.getLogger(__name__)
_CONNECT_S: Final = 3.0
_CONNECTIONS: Final = 4
"""The most connections at once. A camera is a small machine, so further calls wait for a free one."""
_ANY_KEY: Final = "root.Brand.Brand"


class VapixStore(Store):
    """The camera at `url` (``https://HOST``). Each request uses HTTP digest authentication and reads the value anew.

    `authorities` is a PEM file of the certificates to trust instead of the system's authorities, for example a camera's
    self-signed certificate. A whole answer may take `patience_s` seconds. Redirects are not followed. Proxies are not
    used.

    Raises `InvalidRequest` for an invalid URL, `NotReady` for a file of authorities that cannot be used.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        authorities: Path | None = None,
        *,
        patience_s: float = 5.0,
    ) -> None:
        try:
            parsed = httpx.URL(url.rstrip("/") + "/axis-cgi/param.cgi")
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"--parameters: expected https://HOST, got no URL: {error}") from None
        self._url = parsed
        self._credentials = credentials
        self._patience_s = patience_s
        self._auth = self._fresh_auth()
        self._client = httpx.AsyncClient(
            # Uncompressed: the size of a body that has to be unpacked cannot be bounded.
            headers={"Accept-Encoding": "identity"},
            verify=_trust(authorities),
            timeout=httpx.Timeout(patience_s, connect=min(_CONNECT_S, patience_s)),
            # No connection is kept alive. A camera closes an idle one, possibly just when the next call uses it.
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=0),
            trust_env=False,
        )
        if parsed.scheme == "http" and parsed.host not in {"localhost", "127.0.0.1", "::1"}:
            _LOG.warning(
                "%s: values travel in the open, and anyone on the way can change them; only the password is hashed "
                "(https://%s)", self, parsed.host
            )  # fmt: skip

    def __str__(self) -> str:
        return f"camera {self._url.scheme}://{self._url.netloc.decode()}"

    async def probe(self) -> None:
        # A camera that is down at the moment recovers without our help. Wrong credentials do not.
        try:
            await self.get(_ANY_KEY)
        except Unavailable as error:
            _LOG.warning("%s; parameters can be read as soon as it does", error)

    async def get(self, key: str) -> str | None:
        try:
            async with asyncio.timeout(self._patience_s):
                response, content = await self._ask(key)
        except (TimeoutError, httpx.TimeoutException):
            raise Unavailable(f"{self} does not answer within {self._patience_s:g} s") from None
        except httpx.HTTPError as error:
            raise self._failure(error) from None
        self._check(response)
        if not is_listing(content):
            raise Unavailable(
                f"{self} does not answer as a camera: expected lines KEY=VALUE, got {_beginning(content)}"
            )
        # A parameter that does not exist gives 200 and a remark. A group gives the keys within it.
        return parse_listing(content).get(bare(key))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, key: str) -> tuple[httpx.Response, bytes]:
        # Does not use the client's own authentication, which reads the body of a refusal without a bound.
        request = self._client.build_request("GET", self._url, params={"action": "list", "group": key})
        flow = self._auth.auth_flow(request)
        next_request: httpx.Request | None = self._advance(flow, None)
        while next_request is not None:
            response = await self._client.send(next_request, stream=True, auth=None, follow_redirects=False)
            try:
                content = await self._read(response)
            finally:
                await response.aclose()
            next_request = self._advance(flow, response)
        return response, content

    def _advance(
        self, flow: Generator[httpx.Request, httpx.Response, None], response: httpx.Response | None
    ) -> httpx.Request | None:
        """Return the flow's next request, None if it has no more."""
        try:
            return next(flow) if response is None else flow.send(response)
        except StopIteration:
            return None
        except (AssertionError, KeyError, ValueError, NotImplementedError):
            # httpx has no error of its own for an algorithm that it does not know, and it would keep the challenge.
            self._auth = self._fresh_auth()
            raise Unavailable(
                f"{self} demands an authentication that cannot be given: expected HTTP digest with MD5 or SHA-256"
            ) from None

    async def _read(self, response: httpx.Response) -> bytes:
        content = b""
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > LARGEST:
                raise Unavailable(f"{self}: expected an answer of at most {LARGEST >> 20} MiB, got more")
        return content

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.OK:
            return
        if status == httpx.codes.UNAUTHORIZED and self._credentials is None:
            raise NotReady(
                f"{self} wants to know who asks (HTTP 401): give --parameters-credentials FILE, a file with one line "
                f"user:password"
            )
        if status == httpx.codes.UNAUTHORIZED:
            raise NotReady(
                f"{self} refuses the user name and password that it was given (HTTP 401); check them, and that the "
                f"camera offers digest authentication"
            )
        to = f" to {quoted(response.headers['location'])}" if "location" in response.headers else ""
        raise Unavailable(f"{self} does not answer: expected HTTP status 200, got {status}{to}")

    def _failure(self, error: httpx.HTTPError) -> NotReady | Unavailable:
        cause = _first_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NotReady(
                f"{self} shows a certificate that is not trusted here ({cause.verify_message}); give --parameters-ca "
                f"FILE, a PEM file with the camera's own certificate or its authority's, and the name in it as HOST"
            )
        if isinstance(cause, ConnectionError) and cause.errno:
            return Unavailable(f"{self} does not answer: {os.strerror(cause.errno)}")  # asyncio's own text says less
        return Unavailable(f"{self} does not answer: {str(cause) or type(cause).__name__}")

    def _fresh_auth(self) -> httpx.Auth:
        if self._credentials is None:
            return httpx.Auth()
        return httpx.DigestAuth(self._credentials.user, self._credentials.password)


def _first_cause(error: BaseException) -> BaseException:
    """Return the exception that was raised first, by the code that knew most about the failure."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def _trust(authorities: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError as error:
        raise NotReady(f"--parameters-ca {authorities}: expected certificates, PEM: {error}") from None
    except OSError as error:
        raise NotReady(f"--parameters-ca {authorities} cannot be read: {error.strerror}") from None
    if authorities is not None:
        # The operator trusts exactly these certificates, including one that is not an authority or does not meet RFC
        # 5280.
        context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context


def _beginning(content: bytes) -> str:
    return quoted(content[:80].decode("utf-8", "replace"))
