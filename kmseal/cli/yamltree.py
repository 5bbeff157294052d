"""YAML and JSON text as a tree whose every node knows where it stands, so that an edit can touch that place alone.

Used by ``documents``; ruamel.yaml scans and parses, this module composes. It composes on its own for three reasons: an
alias must stay an alias (an edit of shared text would change two places); plain scalars are read as kubectl reads
them, by YAML 1.1, so that ``yes`` or ``1_000`` is never taken for text here and for something else there; and no error
of the parser, which may quote the text and thereby a secret, reaches anybody.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from kmseal.errors import Malformed

ALIASED_NODES_MAX: Final = 1_000_000
"""Of all that aliases repeat in one stream: a few lines of aliases of aliases could mean billions."""

# What plain scalars mean to kubectl (YAML 1.1), and the octal numbers of YAML 1.2.
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON")
_FALSE: Final = re.compile(r"n|N|no|No|NO|false|False|FALSE|off|Off|OFF")
_NUMBER: Final = re.compile(
    r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
    r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    re.ASCII,
)

# The parser's explanations that hold nothing of the text; all others are not shown.
_SHOWN_PROBLEMS: Final = {
    "mapping values are not allowed here": "a colon is not possible here, or the indentation is wrong",
    "found character '\\t' that cannot start any token": "tabs cannot indent YAML",
    "found unexpected end of stream": "a quotation mark is never closed",
    "could not find expected ':'": "a colon is missing",
    "sequence entries are not allowed here": "a list item is not possible here, or the indentation is wrong",
}


@dataclass(frozen=True, slots=True)
class Node(ABC):
    """A piece of text[start:end], counted in characters, with its anchor and tag, and what it means."""

    start: int
    end: int

    @abstractmethod
    def value(self) -> Any:
        """The JSON-like value: dict, list, str, bool, int, float or None."""


@dataclass(frozen=True, slots=True)
class ScalarNode(Node):
    """A text, number, boolean or null."""

    content: Any
    style: str
    """``'``, ``"``, ``|``, ``>`` or empty for a plain one."""
    anchored: bool

    def value(self) -> Any:
        return self.content


@dataclass(frozen=True, slots=True)
class ObjectNode(Node):
    """An object; ``flow`` is the form with braces, which all of JSON has."""

    entries: tuple[tuple[ScalarNode, Node], ...]
    flow: bool

    def value(self) -> Any:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, node in self.entries:
            if _is_merge(key):
                # Own entries win over merged ones, and earlier merged ones over later, wherever the key stands.
                for source in reversed(node.items if isinstance(node, ListNode) else (node,)):
                    merged |= source.value()
            else:
                own[key.content] = node.value()
        return merged | own

    def get(self, name: str) -> Node | None:
        """The entry of this name that stands in this mapping itself."""
        return next((node for key, node in self.entries if key.content == name), None)


@dataclass(frozen=True, slots=True)
class ListNode(Node):
    """A list; ``flow`` is the form with brackets."""

    items: tuple[Node, ...]
    flow: bool

    def value(self) -> Any:
        return [item.value() for item in self.items]


@dataclass(frozen=True, slots=True)
class AliasNode(Node):
    """A reference to a node that stands elsewhere in the document."""

    target: Node

    def value(self) -> Any:
        return self.target.value()


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a stream: text[start:end] with everything up to the next one; ``root`` is None if it is empty."""

    start: int
    end: int
    root: Node | None
    explicit: bool
    """Whether it begins with ``---``."""


def parse(text: str) -> list[Document]:
    """The documents of a YAML stream or of a JSON text.

    Raises Malformed with line and column, never with a piece of the text, for what is not YAML, repeated member names,
    member names that are not text, undefined aliases, unknown tags, and nesting or repetition too deep to be meant.
    """
    try:
        return _Composer(text, YAML(typ="safe", pure=True).parse(text)).documents()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _SHOWN_PROBLEMS.get(str(error.problem), "")
        raise _wrong(
            text, mark.index if mark else 0, f"is not valid YAML: {problem}" if problem else "is not valid YAML"
        ) from None
    except ReaderError as error:
        raise _wrong(text, int(error.position), "has a control character") from None
    except YAMLError:
        raise _wrong(text, 0, "is not valid YAML") from None
    except RecursionError:
        raise _wrong(text, 0, "is nested too deeply") from None


class _Composer:
    """Turns the parser's events into nodes."""

    def __init__(self, text: str, events: Iterator[Event]) -> None:
        self._text = text
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        """How many nodes an anchor stands for, with all that its aliases repeat."""
        self._nodes = 0
        self._aliased = 0

    def documents(self) -> list[Document]:
        found: list[tuple[int, Node | None, bool]] = []
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._anchors = {}
                root = self._node(next(self._events))
                empty = isinstance(root, ScalarNode) and root.start == root.end
                found.append((event.start_mark.index, None if empty else root, bool(event.explicit)))
        if not found:
            return []
        starts = [0, *(start for start, _, _ in found[1:])]
        ends = [*starts[1:], len(self._text)]
        return [
            Document(start, end, root, explicit)
            for start, end, (_, root, explicit) in zip(starts, ends, found, strict=True)
        ]

    def _node(self, event: Event) -> Node:
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, AliasEvent):
            target = self._anchors.get(str(event.anchor))
            if target is None:
                raise _wrong(self._text, start, "has an alias without an anchor")
            self._nodes += self._sizes[str(event.anchor)]
            self._aliased += self._sizes[str(event.anchor)]
            if self._aliased > ALIASED_NODES_MAX:
                raise _wrong(self._text, start, "repeats too much by aliases", "write it out, or leave the file out")
            return AliasNode(start, end, target)
        if not isinstance(event, NodeEvent):
            raise _wrong(self._text, start, "is not valid YAML")
        node: Node
        before = self._nodes
        self._nodes += 1
        if isinstance(event, ScalarEvent):
            node = ScalarNode(start, end, self._content(event), event.style or "", event.anchor is not None)
        elif isinstance(event, MappingStartEvent):
            self._require_tag(event, "map")
            node = self._mapping(start, bool(event.flow_style))
        elif isinstance(event, SequenceStartEvent):
            self._require_tag(event, "seq")
            items = []
            while not isinstance(following := next(self._events), CollectionEndEvent):
                items.append(self._node(following))
            node = ListNode(start, following.end_mark.index, tuple(items), bool(event.flow_style))
        else:
            raise _wrong(self._text, start, "is not valid YAML")
        if event.anchor is not None:
            self._anchors[str(event.anchor)] = node
            self._sizes[str(event.anchor)] = self._nodes - before
        return node

    def _mapping(self, start: int, flow: bool) -> ObjectNode:
        entries: dict[str, tuple[ScalarNode, Node]] = {}
        while not isinstance(following := next(self._events), CollectionEndEvent):
            key = self._node(following)
            if not isinstance(key, ScalarNode) or not isinstance(key.content, str):
                raise _wrong(self._text, key.start, "has a member name that is not a text", "quote the name")
            if key.content in entries:
                raise _wrong(self._text, key.start, "repeats a member name", "remove one of the two")
            node = self._node(next(self._events))
            if _is_merge(key):
                for source in node.items if isinstance(node, ListNode) else (node,):
                    merged = source.target if isinstance(source, AliasNode) else source
                    if not isinstance(merged, ObjectNode):
                        raise _wrong(self._text, node.start, "merges something that is not an object")
            entries[key.content] = (key, node)
        return ObjectNode(start, following.end_mark.index, tuple(entries.values()), flow)

    def _content(self, event: ScalarEvent) -> Any:
        text: str = event.value
        tag = str(event.tag or "")
        if any("\ud800" <= character <= "\udfff" for character in text):
            # JSON writes characters beyond the basic plane as two escapes, which the YAML parser leaves apart.
            try:
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                raise _wrong(self._text, event.start_mark.index, "has half a surrogate pair") from None
        if tag not in ("", "!", "tag:yaml.org,2002:str"):
            raise _wrong(self._text, event.start_mark.index, "has a tag that is not known here", "remove the tag")
        plain = not event.style and not tag
        return resolve(text) if plain else text

    def _require_tag(self, event: MappingStartEvent | SequenceStartEvent, name: str) -> None:
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{name}"):
            raise _wrong(self._text, event.start_mark.index, "has a tag that is not known here", "remove the tag")


def resolve(plain: str) -> Any:
    """What a scalar without quotes means: a text, a boolean, a number or None."""
    if _NULL.fullmatch(plain):
        return None
    if _TRUE.fullmatch(plain):
        return True
    if _FALSE.fullmatch(plain):
        return False
    if not _NUMBER.fullmatch(plain):
        return plain
    digits = plain.replace("_", "")
    try:
        return int(digits, 0)
    except ValueError:
        try:
            return float(digits)
        except ValueError:
            return math.nan  # A notation of YAML 1.1 that no field of ours has: only that it is a number matters.


def position(text: str, index: int) -> str:
    """``line L, column C`` of a character, both counted from 1."""
    before = text[:index]
    return f"line {before.count(chr(10)) + 1}, column {index - before.rfind(chr(10))}"


def _is_merge(key: ScalarNode) -> bool:
    return key.content == "<<" and not key.style


def _wrong(text: str, index: int, message: str, remedy: str = "correct it there") -> Malformed:
    return Malformed(f"{message} ({position(text, index)})", reason="Syntax", remedy=remedy)
