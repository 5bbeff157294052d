"""The certificate of the port, exchanged while connections are open."""

import resource
import signal
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kmseal.errors import Misconfigured
from kmseal.redacted import Redacted
from kmseal_webhook.authority import Pair, issue, make_authority
from kmseal_webhook.tls import ServingTls

NAME = "kmseal-webhook.kmseal-system.svc"
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def serve(tls: ServingTls, pair: Pair) -> None:
    tls.load(pair.certificate.pem, pair.key)


class Handshake:
    """A client and a server in memory, after their handshake."""

    def __init__(
        self, tls: ServingTls, authority: Pair, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str | None = NAME
    ) -> None:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=authority.certificate.pem.decode())
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        client.check_hostname = name is not None
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = newest
        client.set_ciphers("ALL:@SECLEVEL=0")
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(down, up, server_hostname=name)
        self.server = tls.listener.wrap_bio(up, down, server_side=True)
        waiting = [self.client, self.server]
        while waiting:
            for side in list(waiting):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                waiting.remove(side)

    def ask(self) -> bytes:
        self.client.write(b"question")
        assert self.server.read() == b"question"
        self.server.write(b"answer")
        return self.client.read()


def test_a_new_certificate_is_served_at_once_and_open_connections_stay() -> None:
    """An exchange of authority and certificate drops nothing; strict clients, which name no server too, accept both."""
    tls, one, two = ServingTls(), make_authority(NOW, DAY), make_authority(NOW, DAY)
    serve(tls, issue(one, [NAME], NOW, DAY))
    before = Handshake(tls, one)
    serve(tls, issue(two, [NAME], NOW, DAY))
    after = Handshake(tls, two)
    assert Handshake(tls, two, name=None).ask() == b"answer"
    assert (before.ask(), after.ask()) == (b"answer", b"answer")
    with pytest.raises(ssl.SSLCertVerificationError):
        Handshake(tls, one)


def test_a_certificate_of_another_kind_of_key_replaces_the_one_before() -> None:
    """After RSA comes EC: no client is given the former one, whichever it would like better."""
    tls, one, two = ServingTls(), make_authority(NOW, DAY), make_authority(NOW, DAY)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(NOW - DAY).not_valid_after(NOW + DAY).sign(key, SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    tls.load(certificate.public_bytes(Encoding.PEM), Redacted(pem))
    with pytest.raises(ssl.SSLCertVerificationError):
        Handshake(tls, one)
    serve(tls, issue(two, [NAME], NOW, DAY))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert Handshake(tls, two, version).client.version() == version.name.replace("_", ".")


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    """A client that can do TLS 1.1 at the most is turned away."""
    tls, authority = ServingTls(), make_authority(NOW, DAY)
    serve(tls, issue(authority, [NAME], NOW, DAY))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError):
        Handshake(tls, authority, ssl.TLSVersion.TLSv1_1)


def test_a_certificate_that_cannot_be_used_leaves_the_one_before() -> None:
    """A wrong key is refused before anything is exchanged; before the first certificate no handshake succeeds."""
    tls, authority = ServingTls(), make_authority(NOW, DAY)
    assert not tls.is_loaded
    with pytest.raises(ssl.SSLError):
        Handshake(tls, authority)
    good, other = issue(authority, [NAME], NOW, DAY), issue(authority, [NAME], NOW, DAY)
    serve(tls, good)
    with pytest.raises(Misconfigured) as caught:
        tls.load(other.certificate.pem, good.key)
    assert "PRIVATE" not in str(caught.value)
    assert Handshake(tls, authority).ask() == b"answer"


def test_a_full_or_missing_tmp_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is an error of ours, which is tried again: a renewal must not end the process."""
    tls, authority = ServingTls(), make_authority(NOW, DAY)
    serve(tls, issue(authority, [NAME], NOW, DAY))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(Misconfigured) as caught:
        serve(tls, issue(authority, [NAME], NOW, DAY))
    assert caught.value.reason == "NoTemporaryFile"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))  # No room for a file.
        with pytest.raises(Misconfigured) as caught:
            serve(tls, issue(authority, [NAME], NOW, DAY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    assert caught.value.reason == "NoTemporaryFile"
    assert Handshake(tls, authority).ask() == b"answer"
