"""The EncryptedSecrets in one file of a repository, and whether it has wrappings where they are not met as objects.

Used by ``rewrap``, ``rotate`` and ``keys``. A file is parsed only if it can hold an EncryptedSecret at all, so that the
templates and data of a repository cost a read and never an error. It writes nothing and knows nothing of keys.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Spot, Stream
from kmseal.envelope import Scope
from kmseal.errors import Malformed
from kmseal.manifest import API_GROUP, KIND, EncryptedSecret

_MEMBER: Final = b"keyVersionId"
"""What every wrapping has, and what is left of an object whose kind is written in another way."""
_MARKS: Final = (KIND.encode(), KIND.encode("utf-16-le"), KIND.encode("utf-16-be"), _MEMBER)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file that was read: its bytes, for the writer to compare, and its objects as they stand in it."""

    path: str
    raw: bytes
    stream: Stream
    objects: tuple[tuple[Spot, dict[str, Any]], ...]
    buried: bool = False
    """Whether there are wrappings elsewhere as well: in values of a chart, in a block of text, in a patch."""

    def require_open(self) -> None:
        """Refuses wrappings that cannot be treated: silence would look as if they were up to date."""
        if self.buried:
            raise Malformed(
                "has wrappings outside of EncryptedSecrets, as in values of a chart, a block of text or a patch",
                reason="Buried",
                remedy="make them manifests of their own, or leave the file out with --exclude",
            )


def read_manifests(path: str, *, strict: bool = True) -> ManifestFile | None:
    """The file, if there is an EncryptedSecret in it, or a wrapping anywhere else.

    Raises Malformed where it cannot be read, or may hold an EncryptedSecret and cannot be parsed.

    :param strict: whether a file that cannot be parsed is an error although it is none that kubectl would apply
    """
    marks = files.find(path, _MARKS)
    if not marks:
        return None
    raw = files.read(path, limit=BYTES_MAX)
    try:
        stream = Stream.parse(raw)
        documents = stream.values()
    except Malformed:
        # A mention of a member's name alone is no sign of an object.
        if strict and marks - {_MEMBER}:
            raise
        return None
    objects = tuple((spot, found) for spot, found in stream.objects(KIND) if is_ours(found))
    spots = {spot for spot, _ in objects}
    buried = any(_buries_wrapping(index, document, spots) for index, document in documents)
    return ManifestFile(path, raw, stream, objects, buried) if objects or buried else None


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


def is_ours(raw: dict[str, Any]) -> bool:
    """Others have a kind of the same name. One without a version is ours, and wrong."""
    version = raw.get("apiVersion")
    return not isinstance(version, str) or version.startswith(f"{API_GROUP}/")


def _buries_wrapping(index: int, document: object, objects: Collection[Spot]) -> bool:
    if Spot(index) in objects:
        return False
    if isinstance(document, dict) and isinstance(items := document.get("items"), list):
        rest = {name: value for name, value in document.items() if name != "items"}
        document = [rest, *(item for number, item in enumerate(items) if Spot(index, number) not in objects)]
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "keyVersionId" in value and "wrapped" in value:
            return True
        if isinstance(value, dict):
            if all(isinstance(value.get(name), str) for name in ("keyId", "keyVersionId", "wrapped")):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
