"""One HTTP request and its answer, and the translation of everything the network can do to it.

Used by the KMS client and the STS exchange, over one shared session: connections stay open, and each target brings its
own authorities and its own way out. It knows no operation and no error code. Its errors name the service and the host,
never the URL, which holds data keys, and never a foreign exception's text. They are raised outside of ``except``
blocks, so that the foreign exception does not hang on them as their context either.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from kmseal.errors import KmsealError, Misconfigured, Unavailable

_ANSWER_BYTES_MAX: Final = 262_144
"""Far above any answer of KMS: more is not one, and must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent: status, the headers with lower-case names that matter, and the whole body."""

    status: int
    retry_after: str
    """``x-acs-retry-after``, milliseconds as text; empty when absent."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """A server: who it is in messages, where it is, whom it is trusted by, and the proxy on the way to it."""

    service: str
    """``KMS`` or ``STS``."""
    host: str
    """``host[:port]``, as it stands in the signed Host header."""
    scheme: str
    tls: ssl.SSLContext
    proxy: str | None
    ca_setting: str
    """The variable or field to name when its certificate is not trusted."""

    @classmethod
    def of(cls, service: str, endpoint: str, tls: ssl.SSLContext, ca_setting: str) -> "Target":
        """Reads ``endpoint`` (``[http://]host[:port]``) and asks the environment for a proxy, once.

        aiohttp's ``trust_env`` would ask again for each request, and would look for ``~/.netrc`` as well, whose entry
        would take the place of the signature.
        """
        scheme = "http" if endpoint.startswith("http://") else "https"
        host = endpoint.removeprefix("http://")
        return cls(service, host, scheme, tls, find_proxy(scheme, host), ca_setting)

    def __str__(self) -> str:
        return f"{self.service} at {self.host}"


class Transport:
    """The session that all requests of a provider share. To be made and used in one event loop."""

    def __init__(self, connections_per_host: int) -> None:
        self._connections_per_host = connections_per_host
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, target: Target, *, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Answer:
        """Posts to a target and reads the whole answer, whatever its status, within ``seconds``.

        :param path: path and query, encoded already: they must arrive as they were signed
        :raises Unavailable: for whatever the network or the time did to the request
        :raises Misconfigured: when the server's certificate is not trusted
        """
        failure: KmsealError
        try:
            async with (
                asyncio.timeout(seconds),
                self._open().post(
                    URL(f"{target.scheme}://{target.host}{path}", encoded=True),
                    data=body,
                    headers=headers,
                    skip_auto_headers=("Content-Type", "User-Agent"),
                    ssl=target.tls,
                    proxy=target.proxy,
                    # A redirect would carry signature and plaintext to somebody else.
                    allow_redirects=False,
                ) as response,
            ):
                chunks = bytearray()
                async for chunk in response.content.iter_any():
                    chunks += chunk
                    if len(chunks) > _ANSWER_BYTES_MAX:
                        break
                else:
                    return Answer(response.status, response.headers.get("x-acs-retry-after", ""), bytes(chunks))
            failure = Unavailable(f"{target} answers at a length that is not its own", remedy=_REMEDY)
        except TimeoutError:
            failure = Unavailable(f"{target} did not answer within {seconds:.3g} s", remedy=_REMEDY)
        except aiohttp.ClientError as error:
            failure = _translate(error, target)
        except OSError:
            failure = Unavailable(f"the connection to {target} broke", remedy=_REMEDY)
        raise failure

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._connections_per_host, ttl_dns_cache=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ``request`` holds the one deadline.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


_REMEDY: Final = "check the network, the endpoint settings and the proxy variables; it is tried again"


def trust(ca_file: Path | None, variable: str) -> ssl.SSLContext:
    """The authorities of a CA file and no others, or the system's. Takes 30 ms: not to be called in an event loop.

    Raises Misconfigured naming the setting and the file.
    """
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ValueError):
        # ssl.SSLError, for a file that is no PEM, is an OSError too.
        raise Misconfigured(
            f"the CA file {ca_file} cannot be read, or holds no certificate",
            field=variable,
            remedy="give the path of a readable file with PEM certificates",
        ) from None


def trust_only(pem: str, name: str) -> ssl.SSLContext:
    """The authorities of a PEM text and no others. Raises Misconfigured with the field ``name``."""
    try:
        # What is not ASCII stands in comments between the certificates, which OpenSSL skips, and Python refuses.
        return ssl.create_default_context(cadata=pem.encode("ascii", "ignore").decode())
    except (OSError, ValueError):
        # ssl.SSLError, for a text that holds no certificate, is an OSError too.
        raise Misconfigured(
            "holds no certificate that can be read",
            field=name,
            remedy="give the text of PEM certificates, from -----BEGIN CERTIFICATE----- on",
        ) from None


def find_proxy(scheme: str, host: str) -> str | None:
    """The proxy that ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` demand for a host, None for a direct way."""
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        # Not quoted: proxies are often written with a password.
        raise Misconfigured(
            "is not the URL of a proxy",
            field=f"{scheme.upper()}_PROXY",
            remedy="write http://host:port, or name the host in NO_PROXY",
        )
    return parts.geturl()


def _translate(error: aiohttp.ClientError, target: Target) -> KmsealError:
    """What a failure of the connection means. Only the exception's type is looked at."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Misconfigured(
                f"the certificate of {target} is not trusted",
                field=target.ca_setting,
                remedy=f"let {target.ca_setting} give its authority, and check the endpoint's name",
            )
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Unavailable(
                f"the proxy on the way to {target} does not let the request through",
                remedy="check HTTPS_PROXY, or name the host in NO_PROXY; it is tried again",
            )
        case aiohttp.ClientConnectorDNSError():
            return Unavailable(f"the name of {target} does not resolve", remedy=_REMEDY)
        case aiohttp.ClientConnectorError(os_error=socket.gaierror()):
            return Unavailable(f"the name of {target} does not resolve", remedy=_REMEDY)
        case aiohttp.ClientSSLError():
            return Unavailable(f"no TLS connection to {target} comes about", remedy=_REMEDY)
        case aiohttp.ClientConnectorError():
            return Unavailable(f"{target} cannot be reached", remedy=_REMEDY)
        case aiohttp.ClientResponseError():
            return Unavailable(f"{target} does not answer in HTTP", remedy=_REMEDY)
        case _:
            return Unavailable(f"the connection to {target} broke", remedy=_REMEDY)
