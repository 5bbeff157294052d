"""docs/injection.md says what is so: its examples work, and its messages are ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kmseal.errors import Malformed
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import INJECT, OF_POD, OF_SECRET, PREFIX, parse
from kmseal_webhook.injection import Injected, inject

Json = dict[str, Any]
DOCUMENT = (Path(__file__).parents[3] / "docs" / "injection.md").read_text()
SETTINGS = AgentSettings(
    "agent:1", "https://kmseal-webhook.kmseal-system.svc:8444", "kmseal-webhook", None, (1, 37), (1, 37)
)


def pods(node: Any) -> Iterator[Json]:
    """Everything in a document that asks for injection."""
    if isinstance(node, dict):
        if INJECT in (node.get("metadata") or {}).get("annotations", {}):
            yield node
        for child in node.values():
            yield from pods(child)


def injected(pod: Json, names: Mapping[str, Sequence[str]]) -> Injected:
    injection = parse(pod["metadata"]["annotations"])
    assert injection is not None
    return inject(pod, injection, names, SETTINGS)


EXAMPLES = [
    pod
    for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    for document in YAML(typ="safe", pure=True).load_all(block)
    for pod in pods(document)
]


@pytest.mark.parametrize("pod", EXAMPLES, ids=lambda pod: pod["metadata"]["annotations"][INJECT])
def test_examples(pod: Json) -> None:
    """Each example is accepted, without a warning."""
    spec = {"containers": [{"name": "app"}], "initContainers": [{"name": "warm-up"}], **pod.get("spec", {})}
    names = dict.fromkeys(("db", "tls", "license"), ("password", "user"))
    assert injected({**pod, "spec": spec}, names).warnings == ()


def test_there_are_examples() -> None:
    """The document's examples are found where this test looks for them."""
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({"inject": "db", "path": "relative"}, {}),
        ({"inject": "db", "pth": "/x"}, {}),
        ({"inject": "db", "as": "env"}, {"db": ("1st",)}),
    ],
)
def test_messages(annotations: dict[str, str], names: dict[str, tuple[str, ...]]) -> None:
    """The messages that the document quotes are what a user reads."""
    metadata = {"annotations": {PREFIX + name: text for name, text in annotations.items()}}
    with pytest.raises(Malformed) as caught:
        injected({"metadata": metadata, "spec": {"containers": [{"name": "app"}]}}, names)
    assert f"\n{caught.value}\n" in DOCUMENT


def test_every_annotation_is_described() -> None:
    """No annotation is known to the code and not to the document."""
    for name in OF_POD:
        assert f"| `{PREFIX}{name}` |" in DOCUMENT
    for name in OF_SECRET:
        assert f"`{PREFIX}{name}.<secret>`" in DOCUMENT
