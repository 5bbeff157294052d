"""A file of Kubernetes objects, and edits of one EncryptedSecret in it that leave every other byte as it was.

Used by ``encrypt``, ``set``, ``unset`` and ``decrypt``. An edit is made by ``splices`` at the places that ``yamltree``
found, in the style of what stands there already. Afterwards the new text is parsed again and compared with what was
meant: where anchors, merges or exotic layout make the two differ, the edit is refused. It does no input or output and
knows nothing of keys.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmseal.cli import splices, yamltree
from kmseal.cli.splices import uneditable
from kmseal.cli.yamltext import Form
from kmseal.cli.yamltree import Document, ObjectNode
from kmseal.errors import Malformed

BYTES_MAX: Final = 67_108_864
"""Of one file: far over what a cluster accepts, and far under what would hurt a laptop."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to change in one EncryptedSecret.

    ``values`` are new or replaced lines by name; ``data_key`` is the data key that they name, as in a manifest;
    ``drop_values`` are names and ``drop_data_keys`` ids that go.
    """

    values: Mapping[str, str]
    data_key: Mapping[str, Any] | None
    drop_values: Collection[str]
    drop_data_keys: Collection[str]

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """What the edited object means, whatever its text looks like."""
        spec = manifest["spec"]
        data_keys = [item for item in spec["dataKeys"] if item["id"] not in self.drop_data_keys]
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

    def edit(self, index: int, edit: Edit) -> str:
        """The text with ``edit`` applied to the EncryptedSecret in document ``index``.

        Raises Malformed (Uneditable) where the layout does not let this one object be changed alone.
        """
        text = splices.add(self.text, self._spec(index), edit.values, edit.data_key)
        if edit.drop_values or edit.drop_data_keys:
            spec = _reparse(text)._spec(index)
            text = splices.remove(text, spec, edit.drop_values, edit.drop_data_keys)
        self._require_only(edit, index, text)
        return text

    def _require_only(self, edit: Edit, index: int, text: str) -> None:
        """Refuses a text in which anything but the intended edit changed."""
        after = _reparse(text)
        if len(after.documents) != len(self.documents):
            raise uneditable()
        for number, (old, new) in enumerate(zip(self.documents, after.documents, strict=True)):
            if number != index and self.text[old.start : old.end] != text[new.start : new.end]:
                raise uneditable()
        if after._root(index).value() != edit.apply(self._root(index).value()):
            raise uneditable()

    def _root(self, index: int) -> ObjectNode:
        root = self.documents[index].root
        if not isinstance(root, ObjectNode):
            raise uneditable()
        return root

    def _spec(self, index: int) -> ObjectNode:
        spec = self._root(index).get("spec")
        if not isinstance(spec, ObjectNode):
            raise uneditable()
        return spec


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
