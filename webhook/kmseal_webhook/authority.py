"""X.509: makes certificate authorities and serving certificates, and reads them back from PEM.

Called by ``rollover``, which decides when. It knows no clock, no Kubernetes and no file. Private keys travel as PEM in
Redacted. All keys are on the curve P-256, which every client of the API server and of OpenSSL checks quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kmseal.errors import Malformed
from kmseal.redacted import Redacted

BACKDATED: Final = timedelta(hours=1)
"""Certificates begin to be valid so much before they are made, for clients whose clocks are behind."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate without its key."""

    pem: bytes
    """Exactly one certificate."""
    made_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, parsed: x509.Certificate) -> "Certificate":
        """The value of a certificate of ours, or of anybody's: then ``made_at`` is off by what they backdate."""
        return cls(
            parsed.public_bytes(Encoding.PEM), parsed.not_valid_before_utc + BACKDATED, parsed.not_valid_after_utc
        )

    def parsed(self) -> x509.Certificate:
        """For reading what else it says."""
        return x509.load_pem_x509_certificate(self.pem)

    def age(self, now: datetime) -> timedelta:
        """How long ago it was made."""
        return now - self.made_at

    def is_due(self, now: datetime, part: float) -> bool:
        """Whether this part of its life is over."""
        return now >= self.made_at + (self.expires_at - self.made_at) * part

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it is for each of these DNS names."""
        try:
            found = self.parsed().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            return False
        return set(names) <= set(found.get_values_for_type(x509.DNSName))

    def is_signed_by(self, issuer: "Certificate") -> bool:
        """Whether the issuer's key has signed it."""
        try:
            self.parsed().verify_directly_issued_by(issuer.parsed())
        except Exception:  # noqa: BLE001  # A wrong name, algorithm or signature: each has an error of its own.
            return False
        return True


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: Certificate
    key: Redacted


def make_authority(now: datetime, lifetime: timedelta) -> Pair:
    """A new self-signed authority. Its name carries the time, so that two in one bundle are told apart by it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kmseal webhook CA {now:%Y%m%dT%H%M%S.%fZ}")])
    builder = (
        _builder(name, name, key, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, SHA256()), key)


def issue(authority: Pair, names: Sequence[str], now: datetime, lifetime: timedelta) -> Pair:
    """A serving certificate for DNS names, which does not outlive its authority."""
    issuer, issuer_key = authority.certificate.parsed(), _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    # The common name may not exceed 64 characters, and nobody has looked at it for years: the alternatives count.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kmseal-webhook")])
    builder = (
        _builder(subject, issuer.subject, key, now, min(lifetime, authority.certificate.expires_at - now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return _pair(builder.sign(issuer_key, SHA256()), key)


def read_certificates(pem: bytes, field: str) -> tuple[Certificate, ...]:
    """All certificates of a bundle, in order. Raises Malformed for what holds none or cannot be read."""
    try:
        return tuple(map(Certificate.of, x509.load_pem_x509_certificates(pem)))
    except ValueError:
        raise Malformed("holds no certificates in PEM", field=field, remedy="see docs/operations-webhook.md") from None


def read_pair(certificate: bytes, key: bytes, field: str) -> Pair:
    """A certificate (the first of a chain) with its key. Raises Malformed unless they belong together."""
    leaf, *_ = read_certificates(certificate, field)
    pair = Pair(leaf, Redacted(key))
    try:
        theirs = (
            load_pem_private_key(key, None).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
        its = leaf.parsed().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The text of the exception may quote the key.
        raise Malformed(
            "has no private key that can be read", field=field, remedy="give it in PEM, unencrypted"
        ) from None
    if theirs != its:
        raise Malformed(
            "has a private key that is not its own", field=field, remedy="give the pair that was made as one"
        )
    return pair


def read_authority(certificate: bytes, key: bytes, field: str) -> Pair:
    """As :func:`read_pair`, for an authority that we can sign with. Raises Malformed for any other."""
    pair = read_pair(certificate, key, field)
    try:
        constraints = pair.certificate.parsed().extensions.get_extension_for_class(x509.BasicConstraints).value
        is_authority = constraints.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        is_authority = False
    if not is_authority or not isinstance(load_pem_private_key(key, None), ec.EllipticCurvePrivateKey):
        raise Malformed("is no authority that kmseal has made", field=field, remedy="it is made anew")
    return pair


def fingerprint(certificate: Certificate) -> str:
    """What tells certificates apart in logs."""
    return certificate.parsed().fingerprint(SHA256()).hex()[:16]


def _load_key(key: Redacted) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key.reveal(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError("authorities are made, or read by read_authority")
    return loaded


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(Certificate.of(certificate), Redacted(pem))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
