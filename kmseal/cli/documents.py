"""A file of Kubernetes objects, and edits of EncryptedSecrets in it that leave every other byte as it was.

Used by every command that reads or writes manifests. An edit is made by ``splices`` at the places that ``yamltree``
found, in the style of what stands there already. Afterwards the new text is parsed again and compared with what was
meant: where anchors, merges or exotic layout make the two differ, the edit is refused. It does no input or output and
knows nothing of keys.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kmseal.cli import splices, yamltree
from kmseal.cli.splices import PlacedWrapping, Splice, uneditable
from kmseal.cli.yamltext import Form
from kmseal.cli.yamltree import Document, ListNode, Node, ObjectNode
from kmseal.errors import Malformed

BYTES_MAX: Final = 67_108_864
"""Of one file: far over what a cluster accepts, and far under what would hurt a laptop."""


class Spot(NamedTuple):
    """Where an object stands in a file: in which document, and as which item of it where that is a List."""

    document: int
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to change in one EncryptedSecret.

    ``values`` are new or replaced lines by name; ``data_key`` is the data key that they name, as in a manifest;
    ``drop_values`` are names and ``drop_data_keys`` ids that go. ``wrappings`` are all wrappings that a data key, by
    id, is to have: those that take another's place in the order of these, and then the new ones.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    data_key: Mapping[str, Any] | None = None
    drop_values: Collection[str] = ()
    drop_data_keys: Collection[str] = ()
    wrappings: Mapping[str, Sequence[PlacedWrapping]] = field(default_factory=dict)

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """What the edited object means, whatever its text looks like."""
        spec = manifest["spec"]
        data_keys = [
            {**item, "wrappings": [dict(wrapping) for _, wrapping in self.wrappings[item["id"]]]}
            if item["id"] in self.wrappings
            else item
            for item in spec["dataKeys"]
            if item["id"] not in self.drop_data_keys
        ]
        if self.data_key is not None:
            data_keys.append(self.data_key)
        values = {name: line for name, line in spec["encryptedData"].items() if name not in self.drop_values}
        return {**manifest, "spec": {**spec, "dataKeys": data_keys, "encryptedData": values | dict(self.values)}}


@dataclass(frozen=True, slots=True)
class Stream:
    """The text of a file and its documents."""

    text: str
    documents: tuple[Document, ...]
    form: Form

    @classmethod
    def parse(cls, raw: bytes) -> "Stream":
        """Reads YAML or JSON. Raises Malformed with line and column."""
        if len(raw) > BYTES_MAX:
            raise Malformed(
                f"is larger than {BYTES_MAX} bytes", reason="TooLarge", remedy="pass a file of Kubernetes manifests"
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(
                f"is not UTF-8 text (byte {error.start + 1})", reason="Syntax", remedy="save it as UTF-8"
            ) from None
        return cls(text, tuple(yamltree.parse(text)), Form.JSON if _is_json(text) else Form.YAML)

    def values(self) -> list[tuple[int, Any]]:
        """Index and JSON-like value of each document that is not empty."""
        if self.form is Form.JSON:
            # YAML takes some characters inside JSON texts for line ends, as U+2028.
            return [(0, json.loads(_without_mark(self.text)))]
        return [(index, document.root.value()) for index, document in enumerate(self.documents) if document.root]

    def replace(self, rendered: Mapping[int, str]) -> str:
        """The text with some documents replaced by others, each given with a newline at its end."""
        parts: list[str] = []
        for index, document in enumerate(self.documents):
            if index in rendered:
                parts += ["---\n"] if document.explicit or index > 0 else []
                parts.append(rendered[index])
            else:
                # A document without "---" relies on the "..." of the one before, which may just have been replaced.
                parts += ["---\n"] if not document.explicit and index - 1 in rendered else []
                parts.append(self.text[document.start : document.end])
        return "".join(parts)

    def objects(self, kind: str) -> Iterator[tuple[Spot, dict[str, Any]]]:
        """The objects of a kind, also those that stand in a List."""
        for index, raw in self.values():
            if not isinstance(raw, dict):
                continue
            items = raw.get("items")
            if raw.get("kind") == kind:
                yield Spot(index), raw
            elif raw.get("kind") in ("List", f"{kind}List") and isinstance(items, list):
                for number, item in enumerate(items):
                    # kubectl leaves the kind out in the items of a list of one kind.
                    if isinstance(item, dict) and item.get("kind", raw["kind"].removesuffix("List")) == kind:
                        yield Spot(index, number), item

    def edit(self, index: int, edit: Edit) -> str:
        """The text with ``edit`` applied to the EncryptedSecret that is document ``index``.

        Raises Malformed (Uneditable) where the layout does not let this one object be changed alone.
        """
        return self.edit_all({Spot(index): edit}).text

    def edit_all(self, edits: Mapping[Spot, Edit]) -> "Stream":
        """The file after edits of several objects, parsed; raises Malformed (Uneditable) as ``edit``."""
        after = self._spliced(splice for spot, edit in edits.items() for splice in _additions(self, spot, edit))
        removals = [splice for spot, edit in edits.items() for splice in _removals(after, spot, edit)]
        after = after._spliced(removals) if removals else after
        self._require_only(edits, after)
        return after

    def _spliced(self, wanted: Iterable[Splice]) -> "Stream":
        return _reparse(splices.apply(self.text, wanted))

    def _require_only(self, edits: Mapping[Spot, Edit], after: "Stream") -> None:
        """Refuses a text in which anything but the intended edits changed."""
        if len(after.documents) != len(self.documents):
            raise uneditable()
        touched = {spot.document for spot in edits}
        for number, (old, new) in enumerate(zip(self.documents, after.documents, strict=True)):
            if number not in touched and self.text[old.start : old.end] != after.text[new.start : new.end]:
                raise uneditable()
        for number in touched:
            meant = self._root(number).value()
            for spot, edit in edits.items():
                if spot == (number, None):
                    meant = edit.apply(meant)
                elif spot.document == number and spot.item is not None:
                    meant["items"][spot.item] = edit.apply(meant["items"][spot.item])
            if after._root(number).value() != meant:
                raise uneditable()

    def _root(self, index: int) -> ObjectNode:
        root = self.documents[index].root
        if not isinstance(root, ObjectNode):
            raise uneditable()
        return root

    def spec(self, spot: Spot) -> ObjectNode:
        """The node of an object's ``spec``. Raises Malformed (Uneditable) where none stands there as such."""
        node: Node | None = self._root(spot.document)
        if spot.item is not None:
            items = self._root(spot.document).get("items")
            node = items.items[spot.item] if isinstance(items, ListNode) else None
        spec = node.get("spec") if isinstance(node, ObjectNode) else None
        if not isinstance(spec, ObjectNode):
            raise uneditable()
        return spec


def _additions(stream: Stream, spot: Spot, edit: Edit) -> Iterator[Splice]:
    """What is put in or replaced."""
    spec = stream.spec(spot)
    yield from splices.add(stream.text, spec, edit.values, edit.data_key)
    for data_key_id, placed in edit.wrappings.items():
        yield from splices.rewrap(stream.text, spec, data_key_id, placed)


def _removals(stream: Stream, spot: Spot, edit: Edit) -> Iterator[Splice]:
    """What is taken out of the text in which everything new stands already."""
    spec = stream.spec(spot)
    yield from splices.remove(stream.text, spec, edit.drop_values, edit.drop_data_keys)
    for data_key_id, placed in edit.wrappings.items():
        yield from splices.drop_wrappings(stream.text, spec, data_key_id, placed)


def _reparse(text: str) -> Stream:
    try:
        return Stream.parse(text.encode())
    except Malformed:
        # It was well-formed before: the place of the edit was misjudged.
        raise uneditable() from None


def _without_mark(text: str) -> str:
    return text.removeprefix("\ufeff")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(_without_mark(text)), dict)
    except (ValueError, RecursionError):
        return False
