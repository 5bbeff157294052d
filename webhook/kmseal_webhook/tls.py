"""The TLS side of a port: one context for ever, whose certificate can be exchanged between two handshakes.

``certificates`` loads; ``server`` listens. The context of the listener holds no certificate: each handshake is handed
to a context of its own that was checked whole before. So an exchange is one assignment: connections that are open
stay as they are, and a certificate that cannot be loaded leaves the one before in place. (Loading into the context in
use would keep a former certificate beside a new one of another kind of key, and serve either.)
"""

import os
import ssl
import tempfile
from pathlib import Path
from typing import Final

from kmseal.errors import Misconfigured
from kmseal.redacted import Redacted


class ServingTls:
    """The certificate that is served now.

    :param client_ca: PEM; only clients with a certificate of these authorities are served. None: all are.
    """

    def __init__(self, client_ca: str | None = None) -> None:
        self._client_ca = client_ca
        self.listener: Final = _context(client_ca)
        """What the listener is made with."""
        self.listener.sni_callback = self._choose
        self._current: ssl.SSLContext | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether there is a certificate: no handshake succeeds before."""
        return self._current is not None

    def load(self, chain: bytes, key: Redacted) -> None:
        """Serves this certificate (PEM, with intermediate ones) from the next handshake on. Raises Misconfigured."""
        context = _context(self._client_ca)
        try:
            # The ssl module reads files only; the folder is open to its owner only, and gone at once.
            with tempfile.TemporaryDirectory() as folder:
                certificate_file, key_file = Path(folder, "tls.crt"), Path(folder, "tls.key")
                certificate_file.write_bytes(chain)
                with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(key.reveal())
                context.load_cert_chain(certificate_file, key_file)
        except ssl.SSLError:
            raise Misconfigured(
                "the serving certificate and its key cannot be used", reason="BadCertificates",
                remedy="give a certificate and its unencrypted key in PEM",
            ) from None  # fmt: skip
        except OSError as error:
            raise Misconfigured(
                f"the serving certificate cannot be handed to TLS by a temporary file: {error.strerror}",
                reason="NoTemporaryFile", remedy="give the process a writable /tmp with some room, best in memory",
            ) from None  # fmt: skip
        self._current = context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        """Called by OpenSSL in each handshake, with or without a server name."""
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None


def read_client_ca(path: Path, flag: str) -> str:
    """The authorities of clients, PEM. Raises Misconfigured for a file that holds none."""
    try:
        text = path.read_text("ascii")
        _context(text)
    except (OSError, ValueError):
        raise Misconfigured(
            f"{path} holds no certificates that can be read", field=flag, remedy="name a file with authorities in PEM"
        ) from None
    return text


def _context(client_ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        # Both contexts of a handshake need it: OpenSSL takes the demand from the first, and the authorities from the
        # second.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    return context
