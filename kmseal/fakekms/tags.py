"""The actions on tags of keys.

At most twenty tags, with names and values of at most 128 characters, and none of the service's own prefixes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.refusals import Refusal, invalid_parameter

_TAG_LIMIT: Final = 20


def tag_resource(call: Call) -> Body:
    tags = read_tags(call)
    key = call.key()
    merged = {**key.tags, **tags}
    if len(merged) > _TAG_LIMIT:
        raise Refusal(400, "Rejected.LimitExceeded", f"A key has at most {_TAG_LIMIT} tags.")
    call.store.put(replace(key, tags=merged))
    return {}


def untag_resource(call: Call) -> Body:
    names = call.parameters.json_value("TagKeys")
    if not isinstance(names, list) or not names:
        raise invalid_parameter("TagKeys", "not a JSON list of names")
    key = call.key()
    call.store.put(replace(key, tags={name: value for name, value in key.tags.items() if name not in names}))
    return {}


def list_resource_tags(call: Call) -> Body:
    key = call.key()
    tags = [{"KeyId": key.key_id, "TagKey": name, "TagValue": value} for name, value in sorted(key.tags.items())]
    return {"Tags": {"Tag": tags}}


def read_tags(call: Call) -> dict[str, str]:
    """The Tags parameter: a JSON list of ``{"TagKey": name, "TagValue": value}``."""
    call.parameters.text("Tags")
    value = call.parameters.json_value("Tags")
    if not isinstance(value, list) or not 1 <= len(value) <= _TAG_LIMIT:
        raise invalid_parameter("Tags", f"not a JSON list of 1 to {_TAG_LIMIT} tags")
    tags: dict[str, str] = {}
    for item in value:
        name, text = (item.get("TagKey"), item.get("TagValue", "")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or not 1 <= len(name) <= 128 or len(text) > 128:
            raise invalid_parameter("Tags", "not TagKey and TagValue of at most 128 characters")
        if name.startswith(("aliyun", "acs:")):
            raise invalid_parameter("Tags", "names that begin with aliyun or acs: are reserved")
        tags[name] = text
    return tags


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListResourceTags": list_resource_tags,
}
