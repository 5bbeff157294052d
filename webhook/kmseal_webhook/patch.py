"""The JSON Patch (RFC 6902) that turns one JSON document into another: only add, remove and replace.

Called by ``mutation`` with the pod as it came and as it should be. Items of a list are recognised by their name, or the
like, so that a new one at the front is one operation and not a change of all that follow. It must not know pods.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

Json = dict[str, Any]

_IDENTITIES: Final = ("mountPath", "name")
"""By which of their members objects in a list are told apart; the name of a mount is that of its volume."""


def make_patch(before: Json, after: Json) -> list[Json]:
    """The operations, in the order in which they are to be applied; none where both are the same."""
    return list(_compare("", before, after))


def escape(token: str) -> str:
    """One part of a JSON Pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def _compare(path: str, before: Any, after: Any) -> Iterator[Json]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _compare_objects(path, before, after)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _compare_lists(path, before, after)
    # In Python, true equals 1 and 1 equals 1.0: in JSON they are not the same.
    elif type(before) is not type(after) or before != after:
        yield {"op": "replace", "path": path, "value": after}


def _compare_objects(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Json]:
    for name in before:
        if name not in after:
            yield {"op": "remove", "path": f"{path}/{escape(name)}"}
    for name, value in after.items():
        where = f"{path}/{escape(name)}"
        if name in before:
            yield from _compare(where, before[name], value)
        else:
            yield {"op": "add", "path": where, "value": value}


def _compare_lists(path: str, before: list[Any], after: list[Any]) -> Iterator[Json]:
    old, new = _identified(before), _identified(after)
    if [name for name in old if name in new] != [name for name in new if name in old]:
        # What stays has changed places, and the order of a list in a pod may mean something.
        yield {"op": "replace", "path": path, "value": after}
        return
    for index, name in reversed(list(enumerate(old))):
        if name not in new:
            yield {"op": "remove", "path": f"{path}/{index}"}
    for index, (name, value) in enumerate(new.items()):
        where = f"{path}/{index}"
        if name in old:
            yield from _compare(where, old[name], value)
        else:
            yield {"op": "add", "path": where, "value": value}


def _identified(items: list[Any]) -> dict[tuple[str, int], Any]:
    """The items in their order, each by its identity and how many of that identity come before it."""
    seen: Counter[str] = Counter()
    identified = {}
    for item in items:
        name = _identity(item)
        identified[name, seen[name]] = item
        seen[name] += 1
    return identified


def _identity(item: Any) -> str:
    if isinstance(item, Mapping):
        for member in _IDENTITIES:
            if isinstance(item.get(member), str):
                return f"{member}={item[member]}"
    return json.dumps(item, sort_keys=True)
