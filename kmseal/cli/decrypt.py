"""``kmseal decrypt``: what is inside EncryptedSecrets, for those who hold the right Decrypt."""

import asyncio
import contextlib
from collections.abc import Mapping
from enum import StrEnum

import click

from kmseal.cli import envfile, files
from kmseal.cli.documents import BYTES_MAX, Stream
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options, namespace_option
from kmseal.cli.output import about, note, result
from kmseal.cli.sealing import open_object
from kmseal.cli.secret import PlainSecret
from kmseal.cli.selection import Selected, object_option, select, select_one
from kmseal.cli.yamltext import Form, render_all
from kmseal.envelope import shorten
from kmseal.errors import Malformed
from kmseal.manifest import EncryptedSecret
from kmseal.redacted import Redacted

_EXAMPLES = """
# The Secret that the operator would make, in plain text
kmseal decrypt db.yaml

# One value, byte for byte
kmseal decrypt db.yaml tls.key > tls.key

# As a .env file
kmseal decrypt app.yaml -o env > .env
"""


class _Output(StrEnum):
    YAML = "yaml"
    JSON = "json"
    ENV = "env"
    RAW = "raw"


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("file")
@click.argument("name", required=False)
@object_option
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice([output.value for output in _Output]),
    help="Form of the output: a Secret as yaml or json, lines of a .env file, or the raw bytes of one value.  "
    "[default: raw with NAME, else yaml]",
)
@connection_options
def command(
    *,
    file: str,
    name: str | None,
    reference: str | None,
    namespace: str | None,
    output: str | None,
    connection: Connection,
) -> None:
    """Show what is inside, for those who may.

    Without NAME, the Secrets as manifests in plain text; with NAME, the raw bytes of that value. FILE may be - for
    standard input. All values of an object are opened or none. Needs the right Decrypt, once for each data key.
    """
    chosen = _Output(output) if output else _Output.RAW if name else _Output.YAML
    if (chosen is _Output.RAW) != bool(name):
        raise click.UsageError("-o raw goes with NAME, and no other output does", click.get_current_context())
    with about(files.display(file)):
        stream = Stream.parse(files.read(file, limit=BYTES_MAX))
        single = chosen in (_Output.RAW, _Output.ENV)
        selected = [select_one(stream, reference, namespace)] if single else select(stream, reference, namespace)
        if name:
            _require_has(selected[0].encrypted, name)
        opened = asyncio.run(_open_all(connection, stream, selected))
        if chosen is _Output.RAW:
            result(opened[0][name or ""].reveal())
        elif chosen is _Output.ENV:
            result(envfile.write(opened[0]))
        else:
            secrets = [_plain(item.encrypted, values) for item, values in zip(selected, opened, strict=True)]
            result(render_all([secret.manifest() for secret in secrets], Form(chosen.value)))


async def _open_all(connection: Connection, stream: Stream, selected: list[Selected]) -> list[dict[str, Redacted]]:
    opened = []
    for item in selected:
        with _about(stream, item):
            item.encrypted.require_place()  # Of all objects, before the first call.
    async with connection.open() as service:
        for item in selected:
            with _about(stream, item):
                opened.append(await open_object(service, item.encrypted))
    return opened


def _about(stream: Stream, item: Selected) -> contextlib.AbstractContextManager[None]:
    return about(f"document {item.index + 1}") if len(stream.documents) > 1 else contextlib.nullcontext()


def _require_has(encrypted: EncryptedSecret, name: str) -> None:
    if name not in encrypted.values:
        raise Malformed(
            f"has no value {shorten(name)}",
            field="spec.encryptedData",
            reason="NoSuchValue",
            remedy=f"it has: {', '.join(encrypted.values)}",
        )


def _plain(encrypted: EncryptedSecret, values: Mapping[str, Redacted]) -> PlainSecret:
    target = encrypted.target
    if target.data:
        note("note: spec.target.data has templates, which only the operator renders; these are the values behind them")
    return PlainSecret(
        namespace=encrypted.namespace,
        name=target.name,
        values=values,
        type=target.type,
        labels=target.labels,
        annotations=target.annotations,
        immutable=target.immutable,
    )
