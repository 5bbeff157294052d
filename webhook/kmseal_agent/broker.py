"""One request to the broker: TLS under the given CA only, bounded in time and size.

Called by ``rounds``. The token and the CA are read anew each time, because the kubelet renews both while the pod runs.
No proxy, no redirect, no trust store of the image, no key log (``ssl.create_default_context`` would obey
SSLKEYLOGFILE). It does not retry and does not look into the answer.
"""

import binascii
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kmseal_agent import __version__
from kmseal_agent.answer import Grant, read_answer
from kmseal_agent.config import Config
from kmseal_agent.errors import Denied, Retryable, Terminal

CONNECT_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 20.0
"""From the connection to the last byte, so that a broker that drips is given up as one that is silent."""
LONGEST_ANSWER: Final = 8 * 1024 * 1024
"""Bytes. An answer is held three times while it is decoded, and its values lie in the pod's memory as well: more than
this does not fit the 64 MiB of the agent's container. The broker keeps to it: docs/injection-protocol.md."""
_LONGEST_REFUSAL: Final = 64 * 1024
_BASE64: Final = str.maketrans("-_", "+/")
"""From the alphabet of tokens to that of ``binascii``."""


class Broker:
    """The broker of one configuration; ``ca_text`` is the CA in PEM, for where no file is configured.

    :param clock: monotonic seconds
    :param now: seconds since 1970
    """

    def __init__(
        self,
        config: Config,
        ca_text: str | None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config: Final = config
        self._ca_text: Final = ca_text
        self._clock: Final = clock
        self._now: Final = now

    def ask(self, secrets: Sequence[str], seconds: float) -> Grant:
        """A grant for all of the secrets, within ``seconds`` or the limits above, whichever ends first.

        Raises :class:`Retryable`, :class:`Denied` or :class:`Terminal`.
        """
        ends = self._clock() + max(0.001, min(seconds, REQUEST_SECONDS))
        context = self._context()
        token = _read_token(self._config.token)
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": f"kmseal-agent/{__version__}",
            "Connection": "close",
        }
        body = json.dumps({"secrets": list(secrets)}).encode()
        try:
            status, retry_after, answer = self._exchange(context, headers, body, ends)
        # The translation at the border: none of these texts may be shown, and the token is in scope.
        except ssl.SSLCertVerificationError as error:
            raise Retryable(
                "CertificateRefused", f"the broker's certificate is refused: {error.verify_message}",
                remedy="check the CA in the pod's volume against the one that signed the broker's certificate",
            ) from None  # fmt: skip
        except TimeoutError:
            raise Retryable("BrokerSlow", "no full answer from the broker in time") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Retryable(
                "BrokerUnreachable", f"no answer from {self._config.address.host}: {_kind(error)}"
            ) from None
        try:
            return read_answer(status, retry_after, answer, asked=secrets)
        except Denied:
            # After an outage of the API server the kubelet's token is out of date, which says nothing about the right.
            # The API server lets clocks differ by a minute: what it finds expired is so by this node's clock as well.
            if status == 401 and _has_expired(token, self._now()):
                raise Retryable(
                    "TokenExpired", "the ServiceAccount token has expired, and the kubelet has not renewed it yet",
                    remedy="check that the node's kubelet reaches the API server",
                ) from None  # fmt: skip
            raise

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _TimedSocket
        try:
            context.load_verify_locations(cadata=_read_ca(self._config.ca, self._ca_text))
        except (OSError, ValueError):
            # The file comes late where the API server publishes the CA after the pod was made.
            raise Retryable(
                "CaUnreadable", "there is no CA certificate for the broker yet",
                remedy="check the volume kmseal-token or the variable KMSEAL_CA",
            ) from None  # fmt: skip
        return context

    def _exchange(
        self, context: ssl.SSLContext, headers: Mapping[str, str], body: bytes, ends: float
    ) -> tuple[int, str | None, bytes]:
        address = self._config.address

        def left() -> float:
            seconds = ends - self._clock()
            if seconds <= 0:
                raise TimeoutError
            return seconds

        connection = http.client.HTTPConnection(address.host, address.port)
        try:
            plain = socket.create_connection((address.host, address.port), timeout=min(CONNECT_SECONDS, left()))
            connection.sock = plain
            plain.settimeout(left())
            secure = context.wrap_socket(plain, server_hostname=address.server_name)
            connection.sock = secure
            if isinstance(secure, _TimedSocket):  # It always is: the context was told so.
                secure.left = left
            connection.request("POST", "/v1/decrypt", body, dict(headers))
            with connection.getresponse() as response:
                return response.status, response.getheader("Retry-After"), _read_body(response)
        finally:
            connection.close()


class _TimedSocket(ssl.SSLSocket):
    """A socket whose every read and write ends with the whole request, not some seconds after the last byte."""

    left: Callable[[], float] | None = None

    def recv_into(self, *arguments: Any) -> int:
        if self.left:
            self.settimeout(self.left())
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        if self.left:
            self.settimeout(self.left())
        return super().send(*arguments)


def _read_body(response: http.client.HTTPResponse) -> bytes:
    limit = LONGEST_ANSWER if response.status == 200 else _LONGEST_REFUSAL
    body = b"" if (response.length or 0) > limit else response.read(limit + 1)
    if response.length == 0 or (response.length is None and len(body) <= limit):
        return body
    if response.length is not None and response.length <= limit:
        raise http.client.IncompleteRead(b"")
    if response.status != 200:
        return b""  # Nothing that the broker wrote: it is told as such by the reader of the answer.
    raise Terminal(
        "AnswerTooLong",
        f"the broker's answer is longer than {LONGEST_ANSWER // 1024 // 1024} MiB",
        remedy="inject fewer or smaller secrets into one pod",
    )


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(64 * 1024).strip()
    except (OSError, ValueError):
        token = ""
    # http.client quotes a header that it refuses in its exception: nothing but a token may get there.
    if not token or not token.isprintable() or " " in token:
        raise Retryable(
            "TokenUnreadable", "there is no ServiceAccount token yet", remedy="check the volume kmseal-token"
        )
    return token


def _has_expired(token: str, now: float) -> bool:
    """Whether the token says of itself that it has expired. One that says nothing is the broker's to judge alone."""
    try:
        claims = token.split(".")[1]
        expires = json.loads(binascii.a2b_base64(claims.translate(_BASE64) + "=" * (-len(claims) % 4)))["exp"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False
    return type(expires) in {int, float} and now >= expires


def _read_ca(path: str | None, text: str | None) -> str:
    if path is None:
        return text or ""
    with open(path, encoding="ascii") as file:
        return file.read(1024 * 1024)


def _kind(error: Exception) -> str:
    """The class of a foreign error, and the system's word for its number."""
    number = getattr(error, "errno", None)
    return f"{type(error).__name__} {number}" if isinstance(number, int) else type(error).__name__
