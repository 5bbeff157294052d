"""Edits of YAML and JSON text at known places: value lines, data keys and wrappings are put in, replaced, taken out.

Called by ``documents`` only, which checks the result; so this module may aim at what people really write, and need not
foresee every layout that YAML allows. New text takes the indentation, quotes, commas and line ends of its neighbours.
An edit is two rounds, additions and then removals: an insertion behind something that goes would be lost otherwise.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmseal.cli.yamltext import scalar
from kmseal.cli.yamltree import ListNode, Node, ObjectNode, ScalarNode
from kmseal.errors import Malformed

PlacedWrapping = tuple[int | None, Mapping[str, Any]]
"""A wrapping as in a manifest, and the index of the one whose place it takes; None for one that is added behind."""


@dataclass(frozen=True, slots=True)
class Splice:
    """text[start:end] becomes ``text``."""

    start: int
    end: int
    text: str


def add(text: str, spec: ObjectNode, values: Mapping[str, str], data_key: Mapping[str, Any] | None) -> Iterable[Splice]:
    """Replaces or adds value lines, and adds a data key, given as it stands in a manifest."""
    splices = []
    if values:
        node = _values(spec)
        present = {key.content: value for key, value in node.entries}
        splices += [_replacement(text, present[name], line) for name, line in values.items() if name in present]
        added = [(name, line) for name, line in values.items() if name not in present]
        if added:
            splices.append(_value_insertion(text, node, added))
    if data_key is not None:
        splices.append(_data_key_insertion(text, _data_keys(spec), data_key))
    return splices


def rewrap(text: str, spec: ObjectNode, data_key_id: str, placed: Sequence[PlacedWrapping]) -> Iterable[Splice]:
    """Changes the members of wrappings that are replaced, where they differ, and adds those that are new."""
    wrappings = _wrappings(spec, data_key_id)
    splices: list[Splice] = []
    added = []
    for index, wrapping in placed:
        if index is None:
            added.append(wrapping)
            continue
        item = wrappings.items[index]
        for name, content in wrapping.items():
            node = item.get(name) if isinstance(item, ObjectNode) else None
            if node is None:
                raise uneditable()
            if node.value() != content:
                splices.append(_replacement(text, node, content))
    return [*splices, *_wrapping_insertions(text, wrappings, added)]


def drop_wrappings(text: str, spec: ObjectNode, data_key_id: str, placed: Sequence[PlacedWrapping]) -> Iterable[Splice]:
    """Removes the wrappings whose place none of ``placed`` takes; the new ones stand behind them already."""
    wrappings = _wrappings(spec, data_key_id)
    kept = {index for index, _ in placed if index is not None}
    old = len(wrappings.items) - sum(index is None for index, _ in placed)
    goes = [index < old and index not in kept for index in range(len(wrappings.items))]
    return _item_removals(text, wrappings, goes) if any(goes) else ()


def remove(text: str, spec: ObjectNode, names: Collection[str], data_key_ids: Collection[str]) -> Iterable[Splice]:
    """Removes values and data keys."""
    splices: list[Splice] = []
    if names:
        values = _values(spec)
        spans = [
            (key.start, max(key.end, _content_end(text, node)), key.content in names) for key, node in values.entries
        ]
        splices += _flow_removals(spans) if values.flow else _line_removals(text, spans)
    if data_key_ids:
        data_keys = _data_keys(spec)
        splices += _item_removals(text, data_keys, [_data_key_id(item) in data_key_ids for item in data_keys.items])
    return splices


def apply(text: str, splices: Iterable[Splice]) -> str:
    """The text with all splices, which must not overlap."""
    parts = []
    done = 0
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if splice.start < done:
            raise uneditable()
        parts += [text[done : splice.start], splice.text]
        done = splice.end
    return "".join([*parts, text[done:]])


def uneditable() -> Malformed:
    """The refusal of a layout in which one object cannot be changed alone."""
    return Malformed(
        "has a layout that cannot be edited in place",
        field="spec",
        reason="Uneditable",
        remedy="write dataKeys, wrappings and encryptedData out, without anchors, aliases or merges",
    )


def _values(spec: ObjectNode) -> ObjectNode:
    node = spec.get("encryptedData")
    if not isinstance(node, ObjectNode) or not node.entries:
        raise uneditable()
    return node


def _data_keys(spec: ObjectNode) -> ListNode:
    node = spec.get("dataKeys")
    if not isinstance(node, ListNode) or not node.items:
        raise uneditable()
    return node


def _wrappings(spec: ObjectNode, data_key_id: str) -> ListNode:
    item = next((item for item in _data_keys(spec).items if _data_key_id(item) == data_key_id), None)
    node = item.get("wrappings") if isinstance(item, ObjectNode) else None
    if not isinstance(node, ListNode) or not node.items:
        raise uneditable()
    return node


def _replacement(text: str, node: Node, line: str) -> Splice:
    """A text in place of another, in the same quotes or block form. It needs no escapes between quotes."""
    start, end = node.start, _content_end(text, node)
    if not isinstance(node, ScalarNode):
        return Splice(start, end, scalar(line))
    if node.style in ("|", ">"):
        # Only the line below the header, which may carry a comment, is ours.
        start = text.index("\n", start, end) + 1
        return Splice(end - len(text[start:end].lstrip()), end, line)
    while text[start : start + 1] in ("&", "!"):  # An anchor or a tag stays in front of the value.
        start = end - len(text[start:end].partition(" ")[2].lstrip())
    return Splice(start, end, f"{node.style}{line}{node.style}" if node.style else scalar(line))


def _value_insertion(text: str, values: ObjectNode, added: list[tuple[str, str]]) -> Splice:
    """New values behind the last one."""
    key, last = values.entries[-1]
    end = max(key.end, _content_end(text, last))
    quote = last.style if isinstance(last, ScalarNode) and last.style in ("'", '"') else ""
    colon = text[key.end : last.start]
    if colon.strip() != ":" or "\n" in colon:
        colon = ": "
    entries = [f"{_name(name, key.style)}{colon}{quote}{line}{quote}" for name, line in added]
    if values.flow:
        separator = _separator(text, values, [(key.start, node) for key, node in values.entries], tight=colon == ":")
        return Splice(end, end, "".join(f"{separator}{entry}" for entry in entries))
    return _line_insertion(text, end, [" " * _column(text, key.start) + entry for entry in entries])


def _data_key_insertion(text: str, data_keys: ListNode, data_key: Mapping[str, Any]) -> Splice:
    """A new data key behind the last one, indented as that one is."""
    last = data_keys.items[-1]
    end = _content_end(text, last)
    if data_keys.flow:
        separator, tight = _flow_style(text, data_keys)
        return Splice(end, end, separator + _flow_item(text, last, data_key, tight=tight))
    dash = _column(text, data_keys.start)
    member = _first_column(text, last, dash + 2)
    wrappings = last.get("wrappings") if isinstance(last, ObjectNode) and not last.flow else None
    if isinstance(wrappings, ListNode) and not wrappings.flow:
        inner_dash = _column(text, wrappings.start)
        inner_member = _first_column(text, wrappings.items[-1], inner_dash + 2)
    else:
        inner_dash, inner_member = member, member + 2
    lines = _item_lines(dash, member, {name: data_key[name] for name in ("id", "sealedFor")})
    lines.append(f"{' ' * member}wrappings:")
    for wrapping in data_key["wrappings"]:
        lines += _item_lines(inner_dash, inner_member, wrapping)
    return _line_insertion(text, end, lines)


def _wrapping_insertions(text: str, wrappings: ListNode, added: Sequence[Mapping[str, Any]]) -> list[Splice]:
    """New wrappings behind the last one, laid out as that one is."""
    if not added:
        return []
    last = wrappings.items[-1]
    end = _content_end(text, last)
    if wrappings.flow:
        separator, tight = _flow_style(text, wrappings)
        return [Splice(end, end, "".join(separator + _flow_item(text, last, item, tight=tight) for item in added))]
    dash = _column(text, wrappings.start)
    member = _first_column(text, last, dash + 2)
    lines = [line for wrapping in added for line in _item_lines(dash, member, wrapping)]
    return [_line_insertion(text, end, lines)]


def _flow_style(text: str, items: ListNode) -> tuple[str, bool]:
    """What separates the objects of a flow list, and whether no blank follows a colon in them."""
    last = items.items[-1]
    tight = isinstance(last, ObjectNode) and text[last.entries[0][0].end : last.entries[0][1].start] == ":"
    return _separator(text, items, [(item.start, item) for item in items.items], tight=tight), tight


def _item_lines(dash: int, member: int, texts: Mapping[str, str]) -> list[str]:
    """The lines of a list item whose dash and members stand in these columns."""
    lines = [f"{' ' * member}{name}: {scalar(text)}" for name, text in texts.items()]
    lines[0] = f"{' ' * dash}-{lines[0][dash + 1 :]}"
    return lines


def _flow_item(text: str, model: Node, value: Mapping[str, Any], *, tight: bool) -> str:
    """An object as JSON, over several lines if ``model`` is."""
    if not isinstance(model, ObjectNode) or "\n" not in text[model.start : model.end]:
        return json.dumps(value, separators=(",", ":") if tight else None)
    outer = _indentation(text, model.start)
    inner = _indentation(text, model.entries[0][0].start).removeprefix(outer)
    lines = json.dumps(value, indent=inner or "  ").split("\n")
    return f"{_newline(text)}{outer}".join(lines)


def _separator(text: str, whole: Node, items: list[tuple[int, Node]], *, tight: bool) -> str:
    """What stands between the items of a flow collection: a comma and the white space that its author uses."""
    if len(items) > 1:
        between = text[_content_end(text, items[-2][1]) : items[-1][0]]
    else:
        gap = text[whole.start + 1 : items[0][0]]
        between = "," + (gap if tight or "\n" in gap else " ")
    return between if between.strip() == "," else ", "


def _item_removals(text: str, items: ListNode, goes: Sequence[bool]) -> list[Splice]:
    """Removes items of a list."""
    column = _column(text, items.start)
    spans = [
        (item.start if items.flow else _dash(text, item.start, column), _content_end(text, item), gone)
        for item, gone in zip(items.items, goes, strict=True)
    ]
    return _flow_removals(spans) if items.flow else _line_removals(text, spans)


def _flow_removals(spans: list[tuple[int, int, bool]]) -> list[Splice]:
    """Removes items, given as start, end and whether they go, with one comma each."""
    kept = [position for position, (_, _, goes) in enumerate(spans) if not goes]
    if not kept:
        raise uneditable()
    splices = [
        Splice(start, spans[position + 1][0], "") for position, (start, _, goes) in enumerate(spans[: kept[-1]]) if goes
    ]
    if kept[-1] < len(spans) - 1:
        splices.append(Splice(spans[kept[-1]][1], spans[-1][1], ""))
    return splices


def _line_removals(text: str, spans: list[tuple[int, int, bool]]) -> list[Splice]:
    """Removes items with the whole lines on which they stand, which must hold nothing else in front."""
    splices = []
    for start, end, goes in spans:
        if goes:
            first = _line_start(text, start)
            if text[first:start].strip():
                raise uneditable()
            following = text.find("\n", end)
            splices.append(Splice(first, len(text) if following < 0 else following + 1, ""))
    return splices


def _line_insertion(text: str, after: int, lines: list[str]) -> Splice:
    """New lines behind the line on which ``after`` stands: behind its comment, before its end."""
    end = text.find("\n", after)
    end = len(text) if end < 0 else end
    if end > after and text[end - 1] == "\r":
        end -= 1
    newline = _newline(text)
    return Splice(end, end, "".join(f"{newline}{line}" for line in lines))


def _content_end(text: str, node: Node) -> int:
    """Where a node's own text ends: the parser's end of a block may stand behind comments and blank lines."""
    if isinstance(node, ObjectNode) and not node.flow and node.entries:
        key, value = node.entries[-1]
        return max(key.end, _content_end(text, value))
    if isinstance(node, ListNode) and not node.flow and node.items:
        return _content_end(text, node.items[-1])
    if isinstance(node, ScalarNode) and node.start == node.end:
        return 0  # An empty value stands nowhere.
    return node.start + len(text[node.start : node.end].rstrip())


def _first_column(text: str, item: Node, default: int) -> int:
    """The column of the members of a list item."""
    block = isinstance(item, ObjectNode) and not item.flow and item.entries
    return _column(text, item.entries[0][0].start) if isinstance(item, ObjectNode) and block else default


def _data_key_id(item: Node) -> Any:
    value = item.value()
    return value.get("id") if isinstance(value, dict) else None


def _dash(text: str, start: int, column: int) -> int:
    """The dash of the list item that begins at ``start``: on its line or, rarely, above."""
    line = _line_start(text, start)
    while text[line : line + column].strip() or text[line + column : line + column + 1] != "-":
        if line == 0:
            raise uneditable()
        line = _line_start(text, line - 1)
    return line + column


def _name(name: str, style: str) -> str:
    return f"{style}{name}{style}" if style in ("'", '"') else scalar(name)


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _column(text: str, index: int) -> int:
    return index - _line_start(text, index)


def _indentation(text: str, index: int) -> str:
    line = text[_line_start(text, index) : index]
    return line[: len(line) - len(line.lstrip())]


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
