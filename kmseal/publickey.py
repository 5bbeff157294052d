"""The public half of an asymmetric KMS key, as a file that can be committed: sealing with it asks nobody.

Read by the command line, which also writes the file. Whoever has it can wrap data keys; only whoever may call
AsymmetricDecrypt on the key can open them. The file is not secret, but it decides who can read what is sealed with it:
a change of it deserves the review that a change of code gets. Nothing here reads files or uses a network.
"""

from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kmseal.envelope import require_data_key
from kmseal.errors import Malformed
from kmseal.manifest import Algorithm, Wrapping, require_key_id, require_key_version
from kmseal.redacted import Redacted
from kmseal.structure import Fields

BITS_MIN: Final = 2048
_PEM_CHARS_MAX: Final = 8_192
_FETCH: Final = "fetch the file anew with: kmseal keys public"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public half: of which key and version, and the key itself."""

    key_id: str
    key_version_id: str
    key: rsa.RSAPublicKey

    @classmethod
    def parse(cls, raw: object, path: str = "") -> "PublicKey":
        """Reads the content of the file strictly. Raises Malformed with the path of the field that is wrong."""
        with Fields(raw, path) as fields:
            key_id = fields.text("keyId")
            require_key_id(key_id, fields.path("keyId"))
            if key_id.startswith("local:"):
                raise Malformed(
                    "is a key of a key file, which has no public half",
                    field=fields.path("keyId"),
                    reason="KeyId",
                    remedy="name an asymmetric key of KMS: acs:kms:<region>:<account>:key/<id>",
                )
            version = fields.text("keyVersionId")
            require_key_version(version, fields.path("keyVersionId"), remedy=_FETCH)
            if fields.text("algorithm") != Algorithm.RSAES_OAEP_SHA_256.value:
                raise Malformed(
                    f"is not {Algorithm.RSAES_OAEP_SHA_256.value}",
                    field=fields.path("algorithm"),
                    reason="Algorithm",
                    remedy="a newer kmseal may know it: upgrade, or fetch the file anew with: kmseal keys public",
                )
            return cls(key_id, version, _load(fields.text("publicKey"), fields.path("publicKey")))

    @property
    def pem(self) -> str:
        """The key as text, with a line end at its end."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")

    def to_dict(self) -> dict[str, Any]:
        """What the file says."""
        return {
            "keyId": self.key_id,
            "keyVersionId": self.key_version_id,
            "algorithm": Algorithm.RSAES_OAEP_SHA_256.value,
            "publicKey": self.pem,
        }

    def wrap(self, data_key: Redacted) -> Wrapping:
        """Wraps a data key (docs/format.md, K6): RSAES-OAEP, with SHA-256 also in the mask generation function."""
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        wrapped = self.key.encrypt(require_data_key(data_key).reveal(), oaep)
        return Wrapping(self.key_id, self.key_version_id, Algorithm.RSAES_OAEP_SHA_256, wrapped)


def _load(text: str, path: str) -> rsa.RSAPublicKey:
    begin, end = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
    # More than one block would leave open which one counts.
    single = text.startswith(begin) and text.rstrip("\n").endswith(end) and text.count("-----BEGIN") == 1
    try:
        key = serialization.load_pem_public_key(text.encode()) if single and len(text) <= _PEM_CHARS_MAX else None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise Malformed(
            "is not one public key in PEM",
            field=path,
            reason="PublicKey",
            remedy=_FETCH,
        )
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < BITS_MIN:
        raise Malformed(
            f"is not an RSA key of {BITS_MIN} bits or more",
            field=path,
            reason="PublicKey",
            remedy="choose a KMS key of the kind RSA_2048 or larger, for ENCRYPT/DECRYPT",
        )
    return key
