"""``kmseal unset``: values go from an EncryptedSecret in a file; no key service is asked."""

import click

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Edit, Stream
from kmseal.cli.lazy import Command, verbose_option
from kmseal.cli.options import namespace_option
from kmseal.cli.output import about, note
from kmseal.cli.sealing import require_type
from kmseal.cli.selection import object_option, select_one
from kmseal.errors import Malformed

_EXAMPLES = """
# Remove two values
kmseal unset db.yaml old-password old-user

# From one object of a file that has several
kmseal unset app.yaml --object prod/db old-password
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("file")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@object_option
@namespace_option
@verbose_option
def command(*, file: str, names: tuple[str, ...], reference: str | None, namespace: str | None) -> None:
    """Remove values from a file, without any key.

    Data keys that no value needs any more go as well. Nothing else in the file changes, and nothing at all where the
    object does not have these values.
    """
    with about(file):
        if file == files.STANDARD:
            raise Malformed("cannot be edited", reason="StandardInput", remedy="name a file")
        raw = files.read(file, limit=BYTES_MAX)
        stream = Stream.parse(raw)
        selected = select_one(stream, reference, namespace)
        encrypted = selected.encrypted
        gone = [name for name in dict.fromkeys(names) if name in encrypted.values]
        for name in dict.fromkeys(names):
            if name not in encrypted.values:
                note(f"{file}: has no value {name}")
        if not gone:
            return
        kept = {name: value for name, value in encrypted.values.items() if name not in gone}
        if not kept:
            raise Malformed(
                "would have no value left",
                field="spec.encryptedData",
                reason="ValueCount",
                remedy="delete the object instead",
            )
        if not encrypted.target.data:
            require_type(encrypted.target.type, kept)
        used = {value.data_key_id for value in kept.values()}
        edit = Edit(
            values={},
            data_key=None,
            drop_values=gone,
            drop_data_keys=[data_key.id for data_key in encrypted.data_keys if data_key.id not in used],
        )
        files.write(file, stream.edit(selected.index, edit).encode(), replaces=raw)
    note(f"{file}: removed {', '.join(gone)}")
