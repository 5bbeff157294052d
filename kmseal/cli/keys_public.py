"""``kmseal keys public``: the public half of an asymmetric key, as a file that can be committed."""

import asyncio
import os

import click

from kmseal.cli import files
from kmseal.cli.keyset import read_public_keys
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options
from kmseal.cli.output import about, note, result, warn
from kmseal.cli.sealing import require_key
from kmseal.cli.yamltext import scalar
from kmseal.errors import AccessDenied, KmsealError
from kmseal.manifest import Algorithm
from kmseal.publickey import PublicKey

_EXAMPLES = """
# Fetch it once, and commit it
kmseal keys public --key $KEY -w app.pub.yaml

# From then on, sealing needs neither network nor credentials
kmseal create db -n prod --public-key app.pub.yaml --prompt password -w db.yaml
"""

_HEADER = """\
# The public half of a KMS key. With it, kmseal seals without network and credentials (--public-key); what is sealed
# opens only for whoever may call AsymmetricDecrypt on the key. It is not secret. Review changes of it as you review
# code: whoever replaces the key here can read what is sealed afterwards.
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.option("--key", metavar="ARN", required=True, help="The asymmetric KMS key, or an alias of it.")
@click.option("-w", "--write", "target", metavar="FILE", default=files.STANDARD, help="Write to a file.")
@connection_options
def command(*, key: str, target: str, connection: Connection) -> None:
    """Fetch the public half of an asymmetric key to a file.

    The key must be an RSA key of 2048 bits or more, for encryption; its newest version is taken. Needs the rights
    DescribeKey, ListKeyVersions and GetPublicKey.
    """
    require_key(key, "--key")
    try:
        public = asyncio.run(_fetch(connection, key))
    except AccessDenied as error:
        error.field = key
        error.remedy = "ask for the rights kms:DescribeKey, kms:ListKeyVersions and kms:GetPublicKey on this key"
        raise
    text = render(public)
    if target == files.STANDARD:
        result(text)
        return
    with about(target):
        replaced = _replaced(target, public)
        files.write(target, text.encode())
    if replaced:
        warn(f"{target}: replaced {replaced}: review the change as you review code")
    note(f"{target}: {_title(public)}; commit it")


def render(public: PublicKey) -> str:
    """The file: comments, and what ``PublicKey.parse`` reads."""
    content = public.to_dict()
    pem = "".join(f"  {line}\n" for line in content.pop("publicKey").splitlines())
    return _HEADER + "".join(f"{name}: {scalar(text)}\n" for name, text in content.items()) + f"publicKey: |\n{pem}"


def _title(public: PublicKey) -> str:
    return f"{public.key_id} version {public.key_version_id}"


def _replaced(target: str, public: PublicKey) -> str:
    """What the file was until now, where that is something else; else empty."""
    if not os.path.lexists(target):
        return ""
    try:
        (before,) = read_public_keys([target])
    except KmsealError:
        return "a file that was no public half of a key"
    if before == public:
        return ""
    return _title(before) if _title(before) != _title(public) else f"another public half of {_title(before)}"


async def _fetch(connection: Connection, key: str) -> PublicKey:
    async with connection.open() as service:
        half = await service.public_key(key)
    try:
        return PublicKey.parse(
            {
                "keyId": half.key_id,
                "keyVersionId": half.key_version_id,
                "algorithm": Algorithm.RSAES_OAEP_SHA_256.value,
                "publicKey": half.pem,
            }
        )
    except KmsealError as error:
        # The fields are those of the file; here it is the key that is wrong.
        error.field, error.remedy = key, "choose an RSA key of KMS, of 2048 bits or more, for ENCRYPT/DECRYPT"
        raise
