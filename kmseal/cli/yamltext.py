"""How kmseal writes YAML and JSON: whole manifests, and the single scalars that are put into files of others.

Used by every command that prints a manifest and by ``documents``. ruamel.yaml would write by YAML 1.2 and leave ``yes``
or ``1_000`` without quotes, which kubectl reads by YAML 1.1 as something else; one rule for quoting, here, keeps both
readers right, in new files as in edited ones. It writes what manifests consist of and nothing more: objects, lists,
texts, booleans, integers.
"""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from kmseal.cli.yamltree import resolve

_PLAIN: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_/+=.:@*-]*", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", re.ASCII)


class Form(StrEnum):
    """The text form of a manifest."""

    YAML = "yaml"
    JSON = "json"


def render(manifest: Mapping[str, Any], form: Form) -> str:
    """A whole document as text, with a newline at its end."""
    if form is Form.JSON:
        return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return "\n".join(_block(manifest)) + "\n"


def render_all(manifests: list[dict[str, Any]], form: Form) -> str:
    """Several documents: separated in YAML, a List in JSON, as kubectl does it."""
    if form is Form.YAML or len(manifests) == 1:
        return "---\n".join(render(manifest, form) for manifest in manifests)
    return render({"apiVersion": "v1", "kind": "List", "items": manifests}, form)


def scalar(text: str) -> str:
    """A text as a YAML scalar, plain where YAML 1.1 and 1.2 and flow collections all read it as this text."""
    plain = (
        _PLAIN.fullmatch(text) and not text.endswith(":") and not _DATE.match(text) and isinstance(resolve(text), str)
    )
    return text if plain else f'"{"".join(_escaped(character) for character in text)}"'


def _block(value: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, member in value.items():
        key = scalar(name)
        if isinstance(member, Mapping) and member:
            lines += [f"{key}:", *(f"  {line}" for line in _block(member))]
        elif isinstance(member, list) and member:
            lines.append(f"{key}:")
            for item in member:
                first, *rest = _block(item) if isinstance(item, Mapping) and item else [_leaf(item)]
                lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines.append(f"{key}: {_leaf(member)}")
    return lines


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        return scalar(value)
    return json.dumps(value)  # true, 7, {} and [] are the same in YAML.


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
