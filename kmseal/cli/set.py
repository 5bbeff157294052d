"""``kmseal set``: new values for an EncryptedSecret in a file, without the right to read any."""

import asyncio
from collections.abc import Mapping

import click

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Edit, Stream
from kmseal.cli.keyset import key_service, key_set_of, public_key_option
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options, namespace_option
from kmseal.cli.output import about, note
from kmseal.cli.sealing import KeySet, Sealed, require_values, seal
from kmseal.cli.selection import Selected, object_option, select_one
from kmseal.cli.sources import Sources
from kmseal.errors import Malformed
from kmseal.manifest import DATA_KEYS_MAX, EncryptedSecret
from kmseal.redacted import Redacted

_EXAMPLES = """
# Asked for at the terminal, twice and hidden
kmseal set db.yaml password

# From a file and from standard input
openssl rand -base64 24 | kmseal set db.yaml ca.pem=@ca.pem password=-

# One object of a file that has several
kmseal set app.yaml --object prod/db password
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("file")
@click.argument("arguments", metavar="NAME[=@PATH|=-]...", nargs=-1, required=True)
@object_option
@namespace_option
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ARN",
    help="KMS key that wraps the new data key. Repeatable.  [default: the keys that the object has]",
)
@public_key_option(environment=False)
@connection_options
def command(
    *,
    file: str,
    arguments: tuple[str, ...],
    reference: str | None,
    namespace: str | None,
    keys: tuple[str, ...],
    public_key_files: tuple[str, ...],
    connection: Connection,
) -> None:
    """Set values in a file, without the right to read the others.

    NAME asks for the value at the terminal, NAME=@PATH reads a file, NAME=- standard input. NAME=VALUE works as well,
    but process lists and the shell's history show it.

    The values get a data key of their own, wrapped by the same KMS keys as before: that needs the right
    GenerateDataKey, and Encrypt for each key after the first. Data keys that no value needs any more are dropped. Only
    the lines of these values and data keys change in the file.

    Wrapping by an asymmetric key needs the file with its public half: by --public-key, or in KMSEAL_PUBLIC_KEY. Keys
    that are given replace those that the object has; public halves alone need neither network nor credentials.
    """
    with about(file):
        if file == files.STANDARD:
            raise Malformed("cannot be edited", reason="StandardInput", remedy="name a file")
        raw = files.read(file, limit=BYTES_MAX)
        stream = Stream.parse(raw)
        selected = select_one(stream, reference, namespace)
        selected.encrypted.require_place()
    sources = Sources()
    for number, argument in enumerate(arguments, 1):
        with about(f"argument {number}"):
            sources.argument(argument)
    with about(file):
        chosen = key_set_of(selected.encrypted, keys, public_key_files)
        _require_room(selected.encrypted, sources.values)
        sealed = asyncio.run(_seal(connection, chosen, selected, sources.values))
        text = stream.edit(selected.index, _edit(selected.encrypted, sealed))
        select_one(Stream.parse(text.encode()), reference, namespace).encrypted.require_place()
        files.write(file, text.encode(), replaces=raw)
    note(f"{file}: set {', '.join(sources.values)}")


def _require_room(encrypted: EncryptedSecret, values: Mapping[str, Redacted]) -> None:
    kept = {name: value for name, value in encrypted.values.items() if name not in values}
    require_values(values, kept_count=len(kept), kept_bytes=sum(value.size for value in kept.values()))
    if len({value.data_key_id for value in kept.values()}) >= DATA_KEYS_MAX:
        raise Malformed(
            f"would have more than {DATA_KEYS_MAX} data keys",
            field="spec.dataKeys",
            reason="DataKeyCount",
            remedy="set several values in one call: they share a data key",
        )


async def _seal(connection: Connection, chosen: KeySet, selected: Selected, values: Mapping[str, Redacted]) -> Sealed:
    encrypted = selected.encrypted
    async with key_service(connection, chosen) as service:
        return await seal(
            service, chosen, encrypted.place, values, taken=[data_key.id for data_key in encrypted.data_keys]
        )


def _edit(encrypted: EncryptedSecret, sealed: Sealed) -> Edit:
    kept = {value.data_key_id for name, value in encrypted.values.items() if name not in sealed.lines}
    return Edit(
        values=sealed.lines,
        data_key=sealed.data_key.to_dict(),
        drop_values=(),
        drop_data_keys=[data_key.id for data_key in encrypted.data_keys if data_key.id not in kept],
    )
