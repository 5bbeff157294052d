"""What ``spec.target`` says about the native Secret that an EncryptedSecret becomes, and its strict parser.

Read by ``kmseal.manifest`` as a part of the whole object; the operator acts on what it says. Everything that the API
server would refuse in a Secret is refused here, before any key is touched. It must not look at values: whether a
template renders is known only when there are any.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from kmseal.envelope import require_object_name, require_value_name
from kmseal.errors import KmsealError, Malformed
from kmseal.structure import Fields, choice, member_path

API_GROUP: Final = "kmseal.dev"

TEMPLATES_MAX: Final = 512
TEMPLATE_CHARS_MAX: Final = 1_048_576
LABELS_MAX: Final = 64
"""For labels and for annotations."""
ANNOTATION_CHARS_MAX: Final = 262_144  # What the API server accepts in all annotations of one object.
TYPE_CHARS_MAX: Final = 253

DEFAULT_TYPE: Final = "Opaque"
# The token controller fills such a Secret with a token of whichever ServiceAccount an annotation names. Who may write
# EncryptedSecrets could thereby obtain the rights of any ServiceAccount of the namespace.
_FORBIDDEN_TYPE: Final = "kubernetes.io/service-account-token"

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_PREFIX: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_PREFIX_CHARS_MAX: Final = 253
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


class CreationPolicy(StrEnum):
    """What the operator may do with a Secret of the target's name."""

    OWNER = "Owner"
    """Create it and own it; never touch one that somebody else made."""
    MERGE = "Merge"
    """Add the values to a Secret that somebody else makes."""
    ADOPT = "Adopt"
    """Take over one that somebody else made, then own it."""


class DeletionPolicy(StrEnum):
    """What becomes of the target when the EncryptedSecret is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


@dataclass(frozen=True, slots=True)
class Target:
    """The native Secret that an EncryptedSecret becomes."""

    name: str
    type: str = DEFAULT_TYPE
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    immutable: bool = False
    data: Mapping[str, str] = field(default_factory=dict)
    """Templates by name; when there are any, they alone are the Secret's data."""
    creation_policy: CreationPolicy = CreationPolicy.OWNER
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE

    @classmethod
    def parse(cls, fields: Fields, object_name: str) -> "Target":
        """Reads ``spec.target``; an absent one has all defaults. Raises Malformed with the full path of the field."""
        with fields:
            policy: CreationPolicy = choice(
                fields.text("creationPolicy", "Owner"), CreationPolicy, fields.path("creationPolicy"), "CreationPolicy"
            )
            target = cls(
                name=_parse_name(fields, object_name),
                type=_parse_type(fields),
                labels=_parse_labels(fields),
                annotations=_parse_annotations(fields),
                immutable=fields.flag("immutable"),
                data=_parse_templates(fields),
                creation_policy=policy,
                deletion_policy=choice(
                    fields.text("deletionPolicy", "Delete"),
                    DeletionPolicy,
                    fields.path("deletionPolicy"),
                    "DeletionPolicy",
                ),
            )
        if policy is CreationPolicy.MERGE and (target.immutable or target.type != DEFAULT_TYPE):
            raise Malformed(
                "with creationPolicy Merge, whoever makes the Secret decides its type and whether it is immutable",
                field=fields.path("immutable" if target.immutable else "type"),
                reason="MergeTarget",
                remedy="remove it here, or choose creationPolicy Owner or Adopt",
            )
        return target


def require_named(name: str, path: str) -> str:
    """The path of the member ``name`` of ``path``; raises Malformed where it cannot be the name of a value (V8)."""
    try:
        require_value_name(name)
    except Malformed as error:
        error.field = path
        raise
    return member_path(path, name)


def is_label_name(text: str) -> bool:
    """Whether Kubernetes accepts it as the name of a label or an annotation."""
    prefix, slash, name = text.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or _is_prefix(prefix))


def is_label_value(text: str) -> bool:
    """Whether Kubernetes accepts it as the value of a label."""
    return _LABEL_VALUE.fullmatch(text) is not None


def _parse_name(fields: Fields, object_name: str) -> str:
    name = fields.text("name", object_name)
    try:
        return require_object_name(name)
    except Malformed as error:
        error.field = fields.path("name")
        raise


def _parse_type(fields: Fields) -> str:
    text = fields.text("type", DEFAULT_TYPE)
    if not 1 <= len(text) <= TYPE_CHARS_MAX:
        raise _refused(fields.path("type"), f"must have 1 to {TYPE_CHARS_MAX} characters", "TargetType")
    if text == _FORBIDDEN_TYPE:
        raise Malformed(
            f"is not possible: the cluster would put a ServiceAccount's token into a Secret of type {_FORBIDDEN_TYPE}",
            field=fields.path("type"),
            reason="TargetType",
            remedy="mount a projected ServiceAccount token in the pod instead",
        )
    return text


def _parse_labels(fields: Fields) -> dict[str, str]:
    path = fields.path("labels")
    labels = _parse_metadata(fields, "labels")
    for name, text in labels.items():
        if not is_label_value(text):
            raise Malformed(
                "is not a valid label value",
                field=member_path(path, name),
                reason="LabelValue",
                remedy="use letters, digits, '-', '_' and '.', at most 63, with a letter or digit at both ends",
            )
    return labels


def _parse_annotations(fields: Fields) -> dict[str, str]:
    annotations = _parse_metadata(fields, "annotations")
    for name, text in annotations.items():
        if len(text) > ANNOTATION_CHARS_MAX:
            where = member_path(fields.path("annotations"), name)
            raise _refused(where, f"has more than {ANNOTATION_CHARS_MAX} characters")
    return annotations


def _parse_metadata(fields: Fields, kind: str) -> dict[str, str]:
    path, texts = fields.path(kind), fields.texts(kind)
    if len(texts) > LABELS_MAX:
        raise _refused(path, f"has {len(texts)} items; at most {LABELS_MAX} are possible")
    for name in texts:
        if not is_label_name(name):
            raise Malformed(
                "is not a valid name of a label or an annotation",
                field=member_path(path, name),
                reason="LabelName",
                remedy="use <DNS name>/<name> or <name>; a name has at most 63 letters, digits, '-', '_' and '.'",
            )
        prefix = name.rpartition("/")[0]
        if prefix == API_GROUP or prefix.endswith(f".{API_GROUP}"):
            raise Malformed(
                f"names under {API_GROUP}/ belong to the operator",
                field=member_path(path, name),
                reason="ReservedName",
                remedy="choose another name",
            )
    return texts


def _parse_templates(fields: Fields) -> dict[str, str]:
    path, templates = fields.path("data"), fields.texts("data")
    if len(templates) > TEMPLATES_MAX:
        raise _refused(path, f"has {len(templates)} items; at most {TEMPLATES_MAX} are possible")
    for name, text in templates.items():
        where = require_named(name, path)
        if len(text) > TEMPLATE_CHARS_MAX:
            raise _refused(where, f"has more than {TEMPLATE_CHARS_MAX} characters")
    return templates


def _is_prefix(text: str) -> bool:
    return len(text) <= _PREFIX_CHARS_MAX and _PREFIX.fullmatch(text) is not None


def _refused(path: str, message: str, reason: str = "TargetLimit") -> KmsealError:
    return Malformed(message, field=path, reason=reason, remedy="shorten it, or split the object")
