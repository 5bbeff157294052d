"""Puts parts of ours into lists of a pod without disturbing what is there.

Called by ``injection``. A pod may come a second time, with defaults of the API server and additions of other admission
plugins in it: what is right already stays where and as it is, so that the second time costs no patch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from kmseal_webhook.podspec import RESERVED

Json = dict[str, Any]

_CHANGED_BY_OTHERS: Final = ("image", "imagePullPolicy", "resources")
"""What other admission plugins rewrite for reasons of their own: mirrors of registries, limit ranges, autoscalers."""


def place(
    holder: Json, member: str, ours: Sequence[Json], key: str, is_ours: Callable[[Json], bool], *, first: bool = False
) -> None:
    """Makes a list hold ``ours``: each in the place of the one that is there, the others at one end.

    Items that are ours by ``is_ours`` and not wanted any more are dropped; all others stay, in their order.

    :param key: the member that tells items apart
    """
    missing = {item[key]: item for item in ours}
    items = []
    for item in holder.get(member) or ():
        if item.get(key) in missing:
            items.append(overlay(item, missing.pop(item[key])))
        elif not is_ours(item):
            items.append(item)
    items = [*missing.values(), *items] if first else [*items, *missing.values()]
    if items or member in holder:
        holder[member] = items


def place_agents(spec: Json, agents: Sequence[Json], chosen: Collection[str], *, same: bool) -> None:
    """Puts the agents before every init container, or leaves them where they are if those that are chosen follow.

    Others put init containers first as well, some for a good reason: the network, say. There is no fighting over that.

    :param chosen: the names of the containers that need what the agents fetch
    :param same: whether agents that are there are those of the same request; if not they are made anew
    """
    before = spec.get("initContainers") or []
    present = {body["name"]: body for body in before if body["name"].startswith(RESERVED)}
    made = {body["name"]: body for body in agents}
    if same:
        made = {name: _completed(present[name], body) if name in present else body for name, body in made.items()}
    names = [body["name"] for body in before]
    needed = next((index for index, name in enumerate(names) if name in chosen), len(names))
    if [name for name in names[:needed] if name in present] == list(made) and len(present) == len(made):
        spec["initContainers"] = [made.get(body["name"], body) for body in before]
    else:
        spec["initContainers"] = [*made.values(), *(body for body in before if body["name"] not in present)]


def _completed(present: Json, ours: Json) -> Json:
    left = {name: value for name, value in ours.items() if name not in present or name not in _CHANGED_BY_OTHERS}
    return dict(overlay(present, left))


def overlay(present: Any, ours: Any) -> Any:
    """Ours, upon what is there: what the API server's defaults or other plugins have added stays."""
    if isinstance(present, Mapping) and isinstance(ours, Mapping):
        return {**present, **{name: overlay(present.get(name), value) for name, value in ours.items()}}
    if isinstance(present, list) and isinstance(ours, list):
        for key in ("mountPath", "name"):
            if all(isinstance(item, Mapping) and key in item for item in (*present, *ours)):
                holder = {"items": present}
                place(holder, "items", ours, key, lambda item: False)
                return holder["items"]
    return ours
