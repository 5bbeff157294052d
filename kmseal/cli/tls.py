"""A certificate and its private key as the two values of a ``kubernetes.io/tls`` Secret.

Used by ``create`` only. It refuses what an ingress controller would refuse later, in the cluster, where nobody looks:
files that are not PEM, keys behind a passphrase, and a key that belongs to another certificate.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from kmseal.cli.output import about
from kmseal.errors import Malformed
from kmseal.redacted import Redacted

TYPE: Final = "kubernetes.io/tls"


def require_pair(certificates: bytes, key: bytes, *, certificate_source: str, key_source: str) -> dict[str, Redacted]:
    """The values ``tls.crt`` and ``tls.key``. The sources are what errors call the files."""
    with about(certificate_source):
        leaf = _leaf(certificates)
    with about(key_source):
        private = _private_key(key)
        if _spki(private.public_key()) != _spki(leaf.public_key()):
            raise Malformed(
                "does not belong to the certificate",
                reason="TlsPair",
                remedy=f"pass the key of the first certificate in {certificate_source}",
            )
    return {"tls.crt": Redacted(certificates), "tls.key": Redacted(key)}


def _leaf(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise Malformed(
            "is not a certificate in PEM", reason="TlsPair", remedy="convert it with: openssl x509 -outform pem"
        ) from None


def _private_key(pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise Malformed(
            "is encrypted with a passphrase, which nobody could enter in a cluster",
            reason="TlsPair",
            remedy="remove the passphrase with: openssl pkey",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(
            "is not a private key in PEM", reason="TlsPair", remedy="convert it with: openssl pkey -outform pem"
        ) from None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
