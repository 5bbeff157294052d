"""A plain Secret as a value: read from what kubectl users have, and written for those who may see it.

Used by ``create``, ``encrypt`` and ``decrypt``. Values are Redacted from the moment they are read. It must never quote
a value, and never carry one along by accident: the annotation in which kubectl keeps the last applied manifest holds
all values in plain text and is dropped.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kmseal.errors import Malformed
from kmseal.redacted import Redacted
from kmseal.structure import Fields, member_path
from kmseal.target import DEFAULT_TYPE

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# What the API server adds and nobody writes; finalizers and owners belong to the old object, not to its successor.
_SERVER_FIELDS: Final = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generation",
    "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlainSecret:
    """What a Secret says, as far as it is carried over."""

    namespace: str
    name: str
    values: Mapping[str, Redacted]
    type: str = DEFAULT_TYPE
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    immutable: bool = False

    @classmethod
    def parse(cls, raw: object, *, namespace: str | None) -> "PlainSecret":
        """Reads a v1 Secret strictly.

        :param namespace: of manifests that name none; one that names another is refused
        :raises Malformed: with the path of the first field that is wrong
        """
        with Fields(raw, "") as fields:
            fields.ignore("apiVersion", "kind")
            with fields.fields("metadata") as metadata:
                metadata.ignore(*_SERVER_FIELDS)
                name = metadata.text("name")
                annotations = metadata.texts("annotations")
                annotations.pop(LAST_APPLIED, None)
                place = resolve_namespace(metadata.text("namespace", ""), namespace)
                labels = metadata.texts("labels")
            values = {
                member: _decode(text, member_path("data", member)) for member, text in fields.texts("data").items()
            }
            # As the API server does it: stringData wins.
            values |= {member: Redacted(text.encode()) for member, text in fields.texts("stringData").items()}
            return cls(
                namespace=place,
                name=name,
                values=values,
                type=fields.text("type", DEFAULT_TYPE) or DEFAULT_TYPE,
                labels=labels,
                annotations=annotations,
                immutable=fields.flag("immutable"),
            )

    def target(self) -> dict[str, Any]:
        """``spec.target`` of the EncryptedSecret, without what are its defaults."""
        target: dict[str, Any] = {}
        if self.type != DEFAULT_TYPE:
            target["type"] = self.type
        if self.labels:
            target["labels"] = dict(self.labels)
        if self.annotations:
            target["annotations"] = dict(self.annotations)
        if self.immutable:
            target["immutable"] = True
        return target

    def manifest(self) -> dict[str, Any]:
        """The Secret in plain text: for those who are allowed to see it."""
        metadata: dict[str, Any] = {"name": self.name, "namespace": self.namespace}
        if self.labels:
            metadata["labels"] = dict(self.labels)
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        manifest: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": self.type}
        if self.immutable:
            manifest["immutable"] = True
        # Always base64: stringData cannot hold what is not UTF-8.
        manifest["data"] = {name: base64.b64encode(value.reveal()).decode() for name, value in self.values.items()}
        return manifest


def resolve_namespace(own: str, given: str | None) -> str:
    """The namespace of an object, from its manifest and from ``--namespace``. Raises Malformed when they disagree."""
    if not (own or given):
        raise Malformed(
            "is missing", field="metadata.namespace", reason="MissingField", remedy="add it, or pass --namespace"
        )
    if own and given and own != given:
        raise Malformed(
            "is not the one that --namespace names",
            field="metadata.namespace",
            reason="NamespaceMismatch",
            remedy="leave out --namespace, or correct the manifest",
        )
    return own or given or ""


def _decode(text: str, path: str) -> Redacted:
    try:
        # The API server ignores line ends inside base64, as in manifests that were wrapped by hand.
        return Redacted(base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True))
    except (binascii.Error, ValueError):
        raise Malformed(
            "is not base64",
            field=path,
            reason="Base64",
            remedy="encode the value, or put it under stringData in plain text",
        ) from None
