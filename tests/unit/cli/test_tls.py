"""A certificate pair is checked before it is sealed."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kmseal.cli import tls
from kmseal.cli.output import describe
from kmseal.errors import Malformed

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


def certificate(key: ec.EllipticCurvePrivateKey, encoding: serialization.Encoding = PEM) -> bytes:
    """A self-signed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(encoding)


def private(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key in PEM."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)


ONE, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def test_a_pair_becomes_two_values_byte_for_byte() -> None:
    """With the chain behind the first certificate."""
    chain = certificate(ONE) + certificate(OTHER)
    values = tls.require_pair(chain, private(ONE), certificate_source="c", key_source="k")
    assert {name: value.reveal() for name, value in values.items()} == {"tls.crt": chain, "tls.key": private(ONE)}


@pytest.mark.parametrize(
    ("chain", "key", "line"),
    [
        (certificate(ONE), private(OTHER), "k: does not belong to the certificate"),
        (certificate(OTHER) + certificate(ONE), private(ONE), "k: does not belong to the certificate"),
        (certificate(ONE, DER), private(ONE), "c: is not a certificate in PEM"),
        (private(ONE), private(ONE), "c: is not a certificate in PEM"),
        (b"", private(ONE), "c: is not a certificate in PEM"),
        (certificate(ONE), certificate(ONE), "k: is not a private key in PEM"),
        (certificate(ONE), b"hunter2", "k: is not a private key in PEM"),
        (certificate(ONE), private(ONE, b"hunter2"), "k: is encrypted with a passphrase"),
    ],
)
def test_what_no_server_could_use_is_refused(chain: bytes, key: bytes, line: str) -> None:
    """The file is named, and nothing of it is shown."""
    with pytest.raises(Malformed) as caught:
        tls.require_pair(chain, key, certificate_source="c", key_source="k")
    assert describe(caught.value).startswith(line)
    assert "hunter2" not in describe(caught.value)
    assert "BEGIN" not in describe(caught.value)
