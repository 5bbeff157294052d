"""Which EncryptedSecret of a file is meant.

Used by ``set``, ``unset`` and ``decrypt``. Only what is selected is parsed, so that a broken neighbour in the same file
does not stand in the way; what else the file holds is nobody's business here.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import click

from kmseal.cli.documents import Stream
from kmseal.cli.output import about
from kmseal.cli.secret import resolve_namespace
from kmseal.errors import Malformed
from kmseal.manifest import KIND, EncryptedSecret

object_option = click.option(
    "--object",
    "reference",
    metavar="[NAMESPACE/]NAME",
    help="Which EncryptedSecret is meant, where the file has several.",
)


@dataclass(frozen=True, slots=True)
class Selected:
    """An EncryptedSecret and the index of its document."""

    index: int
    encrypted: EncryptedSecret


def select_one(stream: Stream, reference: str | None, namespace: str | None) -> Selected:
    """The one EncryptedSecret that is meant. Raises Malformed where there is none, or more than one."""
    found = select(stream, reference, namespace)
    if len(found) > 1:
        names = ", ".join(f"{item.encrypted.namespace}/{item.encrypted.name}" for item in found)
        raise Malformed(
            f"has {len(found)} EncryptedSecrets: {names}",
            reason="Ambiguous",
            remedy="say which one with --object NAMESPACE/NAME",
        )
    return found[0]


def select(stream: Stream, reference: str | None, namespace: str | None) -> list[Selected]:
    """The EncryptedSecrets that are meant: at least one. Raises Malformed for none, and for each that is wrong."""
    documents = stream.values()
    if not documents:
        raise Malformed("holds no object", reason="Empty", remedy="pass an EncryptedSecret manifest")
    candidates = [(index, raw) for index, raw in documents if isinstance(raw, dict) and raw.get("kind") == KIND]
    if not candidates:
        EncryptedSecret.parse(documents[0][1])  # It says what stands there instead.
    selected = []
    for index, raw in candidates:
        if reference and not _is_meant(raw, reference, namespace):
            continue
        with about(f"document {index + 1}") if len(stream.documents) > 1 else contextlib.nullcontext():
            selected.append(Selected(index, _parse(raw, namespace)))
    if not selected:
        raise Malformed(
            "names no EncryptedSecret of this file",
            field="--object",
            reason="NotFound",
            remedy="write it as in its metadata",
        )
    return selected


def _parse(raw: dict[str, Any], namespace: str | None) -> EncryptedSecret:
    metadata = raw.get("metadata")
    own = metadata.get("namespace") if isinstance(metadata, dict) else None
    if isinstance(metadata, dict) and (own is None or isinstance(own, str)):
        namespace = resolve_namespace(own or "", namespace)
    return EncryptedSecret.parse(raw, namespace=namespace)


def _is_meant(raw: dict[str, Any], reference: str, namespace: str | None) -> bool:
    wanted_namespace, slash, wanted_name = reference.rpartition("/")
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") != wanted_name:
        return False
    return not slash or (metadata.get("namespace") or namespace) == wanted_namespace
