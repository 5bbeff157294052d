"""Certificates that somebody else renews: cert-manager, or people, in files that are read again all the time.

One of the sources that ``certificates`` turns to. Files that do not fit each other are refused and the certificate of
before goes on being served: the kubelet may be exchanging them between two reads.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from kmseal.errors import Malformed, Misconfigured
from kmseal_webhook.authority import read_certificates, read_pair
from kmseal_webhook.material import Material


@dataclass(frozen=True, slots=True)
class MountedSource:
    """The files as a source of certificates."""

    certificate: Path
    key: Path
    authorities: Path

    async def current(self) -> Material:
        """What the files hold now. Raises Misconfigured, naming the file."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Material:
        chain, key = _content(self.certificate, "--tls-cert"), _content(self.key, "--tls-key")
        try:
            pair = read_pair(chain, key, "--tls-cert")
            trusted = read_certificates(_content(self.authorities, "--tls-ca"), "--tls-ca")
        except Malformed as error:
            raise Misconfigured(
                error.message, field=error.field, reason="BadCertificates", remedy=error.remedy
            ) from None
        # A ClusterTrustBundle takes certificates only, each once: no remarks between them, as some tools write.
        bundle = b"".join(dict.fromkeys(item.pem for item in trusted))
        return Material(chain, pair.key, bundle, pair.certificate.expires_at)


def _content(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"{path} cannot be read ({error.strerror})", field=flag, reason="BadCertificates",
            remedy="mount it, or have cert-manager issue it",
        ) from None  # fmt: skip
