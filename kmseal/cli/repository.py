"""The EncryptedSecrets in the files of a repository: which files are meant, and what they hold.

Used by ``rewrap``, ``rotate`` and ``keys``, which take files, folders and globs. A file is parsed only if it can hold
an EncryptedSecret at all, so that the templates and other texts of a repository cost a read and never an error. It
writes nothing and knows nothing of keys.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Spot, Stream
from kmseal.envelope import Scope, shorten
from kmseal.errors import Malformed
from kmseal.manifest import API_GROUP, KIND, EncryptedSecret

_SUFFIXES: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file that was read: its bytes, for the writer to compare, and its objects as they stand in it."""

    path: str
    raw: bytes
    stream: Stream
    objects: tuple[tuple[Spot, dict[str, Any]], ...]


def find_files(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments mean, in their order, each once.

    A folder is searched for YAML and JSON; hidden folders and folders that were met already, as through a circle of
    links, are passed over. Raises Malformed for an argument that means no file, because it is a typing error.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        for path in _expand(argument):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def read_manifests(path: str) -> ManifestFile | None:
    """The file, if there is an EncryptedSecret in it. Raises Malformed where it cannot be read or parsed."""
    raw = files.read(path, limit=BYTES_MAX)
    if KIND.encode() not in raw:
        return None
    stream = Stream.parse(raw)
    objects = tuple((spot, found) for spot, found in stream.objects(KIND) if _is_ours(found))
    return ManifestFile(path, raw, stream, objects) if objects else None


def parse_object(raw: dict[str, Any], namespace: str | None) -> EncryptedSecret:
    """An object of a file, which may leave its namespace to others.

    Kustomize and Flux put the namespace in later. Where the manifest names none, ``namespace`` counts, and without it
    the namespace that the values were sealed for: that it is the right one, KMS proves when it opens the wrapping.
    Raises Malformed, or WrongBinding where the object was sealed for another place.
    """
    # In the scope Cluster the namespace binds nothing, so that any one does.
    encrypted = EncryptedSecret.parse(raw, namespace=namespace or _sealed_namespace(raw) or _anywhere(raw))
    encrypted.require_place()
    return encrypted


def name_of(raw: dict[str, Any], namespace: str | None) -> tuple[str, str]:
    """Namespace and name for messages about an object that may be wrong in every other way; empty where missing."""
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    own, name = metadata.get("namespace") or namespace or _sealed_namespace(raw), metadata.get("name")
    return own if isinstance(own, str) else "", name if isinstance(name, str) else ""


def _expand(argument: str) -> Iterator[str]:
    if argument == files.STANDARD:
        raise Malformed("standard input cannot be edited", reason="StandardInput", remedy="name files or folders")
    # What is there goes before what it would mean as a pattern: names with brackets are possible.
    matches = [argument] if os.path.lexists(argument) else _glob(argument)
    if not matches:
        raise Malformed(
            f"{shorten(argument, 200)} means no file",
            reason="NoSuchFile",
            remedy="check its spelling; globs are relative to the current folder",
        )
    for match in matches:
        if os.path.isdir(match):
            yield from _search(match, set())
        else:
            yield match


def _glob(pattern: str) -> list[str]:
    """What a pattern matches. ``**`` does not follow links, and hidden names are met only where they are named."""
    anchor = Path(pattern).anchor
    named = Path(pattern).parts
    return sorted(
        str(path)
        for path in Path(anchor or ".").glob(pattern.removeprefix(anchor))
        if not any(part.startswith(".") and part not in named for part in path.parts)
    )


def _search(folder: str, seen: set[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        # Links last, so that a file is called by the path where it really is.
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise Malformed(
            f"{shorten(folder, 200)} cannot be searched: {(error.strerror or type(error).__name__).lower()}",
            reason="Unreadable",
            remedy="check the folder's permissions",
        ) from None
    for entry in entries:
        if entry.is_dir():
            if not entry.name.startswith("."):
                yield from _search(os.path.join(folder, entry.name), seen)
        elif entry.name.endswith(_SUFFIXES) and entry.is_file():
            yield str(Path(folder, entry.name))


def _sealed_namespace(raw: dict[str, Any]) -> str | None:
    """The namespace that the first data key was sealed for; None where it says none."""
    spec = raw.get("spec")
    data_keys = spec.get("dataKeys") if isinstance(spec, dict) else None
    first = data_keys[0] if isinstance(data_keys, list) and data_keys else None
    sealed_for = first.get("sealedFor") if isinstance(first, dict) else None
    return sealed_for.partition("/")[0] if isinstance(sealed_for, str) and not sealed_for.startswith("*") else None


def _anywhere(raw: dict[str, Any]) -> str | None:
    spec = raw.get("spec")
    return "default" if isinstance(spec, dict) and spec.get("scope") == Scope.CLUSTER.value else None


def _is_ours(raw: dict[str, Any]) -> bool:
    """Others have a kind of the same name. One without a version is ours, and wrong."""
    version = raw.get("apiVersion")
    return not isinstance(version, str) or version.startswith(f"{API_GROUP}/")
