"""Who may use a key: namespaces by name, or by a selector over their labels, as Kubernetes selects.

Part of a KMSKey, which ``kmskey`` reads. Only the form is checked here and labels compared; which labels a namespace
has, the servers know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from kmseal.envelope import require_namespace
from kmseal.errors import Malformed
from kmseal.structure import Fields, choice, member_path
from kmseal.target import is_label_name, is_label_value

NAMESPACES_MAX: Final = 1_024
LABELS_MAX: Final = 64
"""For a selector's matchLabels and for its matchExpressions."""
LABEL_VALUES_MAX: Final = 256


class Operator(StrEnum):
    """How a selector's requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of a selector's ``matchExpressions``."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: object, path: str) -> "Requirement":
        """Reads one item."""
        with Fields(raw, path) as fields:
            operator: Operator = choice(fields.text("operator"), Operator, fields.path("operator"), "Operator")
            key = _require_label_name(fields.text("key"), fields.path("key"))
            values = texts(fields, "values", LABEL_VALUES_MAX)
            for index, value in enumerate(values):
                _require_label_value(value, f"{fields.path('values')}[{index}]")
            if bool(values) != (operator in (Operator.IN, Operator.NOT_IN)):
                raise Malformed(
                    f"does not go with the operator {operator.value}",
                    field=fields.path("values"),
                    reason="Operator",
                    remedy="In and NotIn need values; Exists and DoesNotExist must have none",
                )
            return cls(key, operator, values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As Kubernetes compares: NotIn also holds where the label is absent."""
        value = labels.get(self.key)
        if self.operator is Operator.EXISTS:
            return value is not None
        if self.operator is Operator.DOES_NOT_EXIST:
            return value is None
        return (value in self.values) == (self.operator is Operator.IN)


@dataclass(frozen=True, slots=True)
class AllowedNamespaces:
    """Who may use a key: a namespace that is named, or whose labels the selector matches."""

    names: frozenset[str]
    selector: tuple[Requirement, ...] | None = None
    """All must hold; None selects nothing, an empty one everything."""

    @classmethod
    def parse(cls, fields: Fields) -> "AllowedNamespaces":
        """Reads ``spec.allowedNamespaces``. Neither names nor selector would be a riddle, and is refused."""
        with fields:
            if not (fields.has("names") or fields.has("selector")):
                raise Malformed(
                    "has neither names nor a selector",
                    field=fields.path("names"),
                    reason="MissingField",
                    remedy="list names, write a selector, or remove allowedNamespaces to allow every namespace",
                )
            names = texts(fields, "names", NAMESPACES_MAX)
            for index, name in enumerate(names):
                try:
                    require_namespace(name)
                except Malformed as error:
                    error.field = f"{fields.path('names')}[{index}]"
                    raise
            require_unique(names, fields.path("names"))
            return cls(frozenset(names), _parse_selector(fields) if fields.has("selector") else None)

    def allows(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a namespace with these labels may use the key."""
        if namespace in self.names:
            return True
        return self.selector is not None and all(requirement.matches(labels) for requirement in self.selector)


def _parse_selector(fields: Fields) -> tuple[Requirement, ...]:
    with fields.fields("selector") as selector:
        equal, path = selector.texts("matchLabels"), selector.path("matchLabels")
        _require_count(len(equal), path, LABELS_MAX)
        for key, value in equal.items():
            _require_label_name(key, member_path(path, key))
            _require_label_value(value, member_path(path, key))
        expressions = selector.items("matchExpressions")
        _require_count(len(expressions), selector.path("matchExpressions"), LABELS_MAX)
        return (
            *(Requirement(key, Operator.IN, (value,)) for key, value in sorted(equal.items())),
            *(Requirement.parse(item, item_path) for item_path, item in expressions),
        )


def _require_label_name(text: str, path: str) -> str:
    if not is_label_name(text):
        raise Malformed(
            "is not a valid name of a label",
            field=path,
            reason="LabelName",
            remedy="use <DNS name>/<name> or <name>; a name has at most 63 letters, digits, '-', '_' and '.'",
        )
    return text


def _require_label_value(text: str, path: str) -> None:
    if not is_label_value(text):
        raise Malformed(
            "is not a valid label value",
            field=path,
            reason="LabelValue",
            remedy="use letters, digits, '-', '_' and '.', at most 63, with a letter or digit at both ends",
        )


def texts(fields: Fields, name: str, limit: int) -> tuple[str, ...]:
    """The member ``name``: a list of at most ``limit`` strings; empty where it is missing. Raises Malformed."""
    items: list[tuple[str, Any]] = fields.items(name)
    _require_count(len(items), fields.path(name), limit)
    for path, item in items:
        if not isinstance(item, str):
            raise Malformed("must be a string", field=path, reason="WrongType", remedy="quote it")
    return tuple(item for _, item in items)


def _require_count(count: int, path: str, limit: int) -> None:
    if count > limit:
        raise Malformed(
            f"has {count} items; at most {limit} are possible",
            field=path,
            reason="TooMany",
            remedy="allow namespaces by a label that they share, or write several KMSKeys",
        )


def require_unique(items: tuple[str, ...], path: str) -> None:
    """Refuses a text that stands there twice. Raises Malformed."""
    seen: set[str] = set()
    for index, text in enumerate(items):
        if text in seen:
            raise Malformed("stands there twice", field=f"{path}[{index}]", reason="Duplicate", remedy="remove one")
        seen.add(text)
