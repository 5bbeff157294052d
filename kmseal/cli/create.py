"""``kmseal create``: an EncryptedSecret from values, as ``kubectl create secret`` makes a Secret."""

import asyncio
from typing import Any

import click

from kmseal.cli import files, tls
from kmseal.cli.keyset import key_service, public_key_option, require_key_set
from kmseal.cli.lazy import Command
from kmseal.cli.options import (
    Connection,
    connection_options,
    delivery_option,
    key_option,
    namespace_option,
    scope_option,
)
from kmseal.cli.output import about, result
from kmseal.cli.sealing import KeySet, require_sealable, seal_secret
from kmseal.cli.secret import PlainSecret
from kmseal.cli.sources import Sources
from kmseal.cli.yamltext import Form, render
from kmseal.envelope import VALUES_BYTES_MAX, Place, Scope
from kmseal.errors import Malformed
from kmseal.manifest import Delivery
from kmseal.target import DEFAULT_TYPE

_EXAMPLES = """
# From a .env file, to be committed
kmseal create app -n prod --key $KEY --from-env-file .env -w app.yaml

# From a file, and from the output of another program
vault-cli read db | kmseal create db -n prod --key $KEY --from-file ca.pem --from-file password=- -w db.yaml

# Asked for at the terminal, twice and hidden
kmseal create db -n prod --key $KEY --prompt password -w db.yaml

# A certificate and its key, with the type that ingress controllers expect
kmseal create site-tls -n prod --key $KEY --tls-cert site.crt --tls-key site.key -w site-tls.yaml

# Keys in two regions: either one opens
kmseal create db -n prod --key $KEY --key $OTHER_KEY --prompt password -w db.yaml

# Without network and credentials, to an asymmetric key
kmseal create db -n prod --public-key app.pub.yaml --prompt password -w db.yaml
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("name")
@namespace_option
@key_option
@public_key_option(environment=True)
@click.option(
    "--from-file",
    multiple=True,
    metavar="[NAME=]PATH",
    help="A value from a file (NAME=- is standard input), or all files of a folder. Repeatable.",
)
@click.option("--from-env-file", multiple=True, metavar="PATH", help="All values of a .env file. Repeatable.")
@click.option("--prompt", multiple=True, metavar="NAME", help="Ask for a value, hidden and twice. Repeatable.")
@click.option(
    "--from-literal",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value in the argument. Process lists and the shell's history show it: prefer the others.",
)
@click.option("--tls-cert", metavar="FILE", help="A certificate chain in PEM, as tls.crt; sets the type.")
@click.option("--tls-key", metavar="FILE", help="Its private key in PEM, as tls.key.")
@click.option("--type", "secret_type", metavar="TYPE", help=f"Type of the Secret.  [default: {DEFAULT_TYPE}]")
@scope_option
@delivery_option
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the Secret. Repeatable.")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="An annotation of the Secret. Repeatable."
)
@click.option("--immutable", is_flag=True, help="Make the Secret immutable.")
@click.option("-w", "--write", "target", metavar="FILE", default=files.STANDARD, help="Write to a file.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice([form.value for form in Form]),
    default=Form.YAML.value,
    show_default=True,
    help="Form of the manifest.",
)
@connection_options
def command(
    *,
    name: str,
    namespace: str | None,
    keys: tuple[str, ...],
    public_key_files: tuple[str, ...],
    from_file: tuple[str, ...],
    from_env_file: tuple[str, ...],
    prompt: tuple[str, ...],
    from_literal: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    secret_type: str | None,
    scope: str,
    delivery: str,
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    immutable: bool,
    target: str,
    form: str,
    connection: Connection,
) -> None:
    """Create an EncryptedSecret from files, .env files, prompts or standard input.

    The values are encrypted here; the key service is asked for one new data key. That needs the right GenerateDataKey
    on the key, and nothing else. With public halves alone, it is not asked at all.
    """
    if not namespace:
        raise click.UsageError("Missing option '-n' / '--namespace'", click.get_current_context())
    chosen = require_key_set(keys, public_key_files)
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("--tls-cert and --tls-key go together", click.get_current_context())
    sources = Sources()
    if tls_cert and tls_key:
        sources.pair(_tls_pair(tls_cert, tls_key))
        secret_type = secret_type or tls.TYPE
    for path in from_env_file:
        sources.env_file(path)
    for argument in from_file:
        with about("--from-file"):
            sources.file(argument)
    for number, argument in enumerate(from_literal, 1):
        with about(f"--from-literal {number}"):
            sources.literal(argument)
    for value_name in prompt:
        with about("--prompt"):
            sources.prompt(value_name)
    secret = PlainSecret(
        namespace=namespace,
        name=name,
        values=sources.values,
        type=secret_type or DEFAULT_TYPE,
        labels=_pairs(labels, "--label"),
        annotations=_pairs(annotations, "--annotation"),
        immutable=immutable,
    )
    place = require_sealable(secret, Scope(scope))
    manifest = asyncio.run(_seal(connection, chosen, secret, place, Delivery(delivery)))
    text = render(manifest, Form(form))
    if target == files.STANDARD:
        result(text)
    else:
        with about(target):
            files.write(target, text.encode())


async def _seal(
    connection: Connection, chosen: KeySet, secret: PlainSecret, place: Place, delivery: Delivery
) -> dict[str, Any]:
    async with key_service(connection, chosen) as service:
        return await seal_secret(service, chosen, secret, place, delivery)


def _tls_pair(certificate: str, key: str) -> dict[str, Any]:
    contents = {}
    for path in (certificate, key):
        with about(path):
            contents[path] = files.read(path, limit=VALUES_BYTES_MAX)
    return dict(tls.require_pair(contents[certificate], contents[key], certificate_source=certificate, key_source=key))


def _pairs(arguments: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name in pairs:
            raise Malformed(
                "is not of the form NAME=VALUE, or is given twice",
                field=option,
                reason="Pair",
                remedy="write one NAME=VALUE for each",
            )
        pairs[name] = text
    return pairs
