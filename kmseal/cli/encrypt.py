"""``kmseal encrypt``: Secret manifests in, EncryptedSecrets out, everything else in between unchanged."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Stream
from kmseal.cli.keyset import key_service, public_key_option, require_key_set
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options, key_option, namespace_option, scope_option
from kmseal.cli.output import about, note, result
from kmseal.cli.sealing import KeySet, require_sealable, seal_secret
from kmseal.cli.secret import PlainSecret
from kmseal.cli.yamltext import render_all
from kmseal.envelope import Place, Scope
from kmseal.errors import Malformed

_EXAMPLES = """
# Turn a Secret into an EncryptedSecret that can be committed
kmseal encrypt -f secret.yaml --key $KEY -w encrypted.yaml

# From kubectl, without a file in plain text
kubectl create secret generic db --from-file=password --dry-run=client -o yaml |
  kmseal encrypt -n prod --key $KEY -w db.yaml

# Replace the Secrets of a file and leave its other objects as they are
kmseal encrypt -f app.yaml --key $KEY --in-place
"""

_Planned = list[tuple[PlainSecret, Place]]


@click.command(cls=Command, examples=_EXAMPLES)
@click.option(
    "-f",
    "--filename",
    metavar="FILE",
    default=files.STANDARD,
    help="YAML (also of several documents) or JSON; - is standard input.  [default: -]",
)
@namespace_option
@key_option
@public_key_option(environment=True)
@scope_option
@click.option("-w", "--write", "target", metavar="FILE", default=files.STANDARD, help="Write to a file.")
@click.option("--in-place", is_flag=True, help="Write to the input file.")
@connection_options
def command(
    *,
    filename: str,
    namespace: str | None,
    keys: tuple[str, ...],
    public_key_files: tuple[str, ...],
    scope: str,
    target: str,
    in_place: bool,
    connection: Connection,
) -> None:
    """Turn Secret manifests into EncryptedSecrets.

    Labels, annotations, type and immutable of a Secret are carried to spec.target, from which the operator makes the
    Secret again. The annotation with kubectl's last applied configuration is dropped, because it holds the values in
    plain text. Objects of other kinds pass through as they are. Needs the right GenerateDataKey, once for each Secret;
    with public halves alone, no right at all.
    """
    if in_place and (filename == files.STANDARD or target != files.STANDARD):
        raise click.UsageError("--in-place needs -f FILE, and no -w", click.get_current_context())
    if filename == files.STANDARD and sys.stdin.isatty():
        note("reading manifests from standard input")
    chosen = require_key_set(keys, public_key_files)
    with about(files.display(filename)):
        raw = files.read(filename, limit=BYTES_MAX)
        stream = Stream.parse(raw)
        plans = _plan(stream, namespace, Scope(scope))
        if plans:
            text = stream.replace(asyncio.run(_seal_all(connection, chosen, stream, plans)))
        else:
            note(f"{files.display(filename)}: no Secret in it, nothing to encrypt")
            text = stream.text
    if target == files.STANDARD and not in_place:
        result(text)
        return
    target = filename if in_place else target
    with about(target):
        if in_place and text.encode() == raw:
            return
        files.write(target, text.encode(), replaces=raw if in_place else None)
    if in_place:
        note(f"{target}: encrypted; if it was ever committed in plain text, change the values as well")


def _plan(stream: Stream, namespace: str | None, scope: Scope) -> dict[int, _Planned]:
    """What is to be sealed, by document: all of it is checked before the first call. Notes what passes through."""
    plans: dict[int, _Planned] = {}
    for index, raw in stream.values():
        with about(f"document {index + 1}") if len(stream.documents) > 1 else contextlib.nullcontext():
            if not isinstance(raw, dict):
                raise Malformed("is not an object", reason="WrongType", remedy="pass Kubernetes manifests")
            secrets = _secrets(raw)
            if secrets is None:
                kind = raw.get("kind")
                note(f"document {index + 1} ({kind if isinstance(kind, str) else 'no kind'}): passed through unchanged")
                continue
            planned = []
            for position, item in enumerate(secrets):
                with about(f"items[{position}]") if item is not raw else contextlib.nullcontext():
                    secret = PlainSecret.parse(item, namespace=namespace)
                    planned.append((secret, require_sealable(secret, scope)))
            plans[index] = planned
    return plans


def _secrets(raw: dict[str, Any]) -> list[Any] | None:
    """The Secrets that a document is or lists; None where it is something else."""
    if _is_secret(raw):
        return [raw]
    items = raw.get("items")
    if raw.get("kind") not in ("List", "SecretList") or not isinstance(items, list):
        return None
    # kubectl leaves the kind out in the items of a SecretList.
    secrets = [item for item in items if _is_secret(item) or (raw["kind"] == "SecretList" and isinstance(item, dict))]
    if not secrets:
        return None
    if len(secrets) < len(items):
        raise Malformed(
            "lists Secrets and other kinds together",
            field="items",
            reason="MixedList",
            remedy="write the objects as documents, separated by ---",
        )
    return secrets


def _is_secret(raw: object) -> bool:
    return isinstance(raw, dict) and raw.get("kind") == "Secret" and raw.get("apiVersion") == "v1"


async def _seal_all(
    connection: Connection, chosen: KeySet, stream: Stream, plans: Mapping[int, _Planned]
) -> dict[int, str]:
    rendered = {}
    async with key_service(connection, chosen) as service:
        for index, planned in plans.items():
            manifests = [await seal_secret(service, chosen, secret, place) for secret, place in planned]
            rendered[index] = render_all(manifests, stream.form)
    return rendered
