"""Reads the vector files for tests (README.md describes them); it must not know how they were made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Vector:
    """One file: ``name`` is the file's name without its ending, ``content`` has long texts put together."""

    name: str
    content: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def manifest(self) -> Any:
        return self.content["manifest"]

    @property
    def data_keys(self) -> dict[str, bytes]:
        return {data_key_id: bytes.fromhex(key) for data_key_id, key in self.content["dataKeys"].items()}


def read_vectors(kind: str) -> list[Vector]:
    """All vectors of a kind, ``accept`` or ``reject``, in the order of their names."""
    return [Vector(path.stem, _expand(json.loads(path.read_text()))) for path in sorted((FOLDER / kind).glob("*.json"))]


def _expand(node: Any) -> Any:
    if isinstance(node, list):
        return [_expand(item) for item in node]
    if isinstance(node, dict):
        if fill := node.get("$fill"):
            return f"{fill['before']}{fill['repeat'] * fill['times']}{fill['after']}"
        return {name: _expand(item) for name, item in node.items()}
    return node
