"""Plain Secrets are read as the API server reads them, and nothing in plain text is carried along."""

import base64
from typing import Any

import pytest

from kmseal.cli.secret import LAST_APPLIED, PlainSecret
from kmseal.errors import Malformed

SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "db", "namespace": "prod"},
    "data": {"password": "aHVudGVyMg=="},
}


def test_everything_that_belongs_to_the_secret_is_read() -> None:
    """Labels, annotations, type, immutable, data and stringData, of which the latter wins."""
    raw = SECRET | {
        "metadata": SECRET["metadata"] | {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "type": "example.com/x",
        "immutable": True,
        "data": {"password": "aHVudGVy\nMg==", "binary": "//8="},
        "stringData": {"password": "wins", "text": "é"},
    }
    secret = PlainSecret.parse(raw, namespace=None)
    assert {name: value.reveal() for name, value in secret.values.items()} == {
        "password": b"wins",
        "binary": b"\xff\xff",
        "text": "é".encode(),
    }
    assert secret.target() == {
        "type": "example.com/x",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "immutable": True,
    }


def test_the_last_applied_manifest_is_dropped() -> None:
    """It holds all values in plain text."""
    metadata = SECRET["metadata"] | {"annotations": {LAST_APPLIED: '{"data": {"password": "aHVudGVyMg=="}}'}}
    secret = PlainSecret.parse(SECRET | {"metadata": metadata}, namespace=None)
    assert secret.target() == {}


def test_what_the_server_adds_is_dropped() -> None:
    """What kubectl get prints can be encrypted as it is."""
    metadata = SECRET["metadata"] | {
        "uid": "1",
        "resourceVersion": "2",
        "creationTimestamp": None,
        "managedFields": [{}],
        "ownerReferences": [{}],
    }
    assert PlainSecret.parse(SECRET | {"metadata": metadata}, namespace=None).name == "db"


def test_the_namespace_may_come_from_the_command_line() -> None:
    """For manifests that name none."""
    raw = SECRET | {"metadata": {"name": "db"}}
    assert PlainSecret.parse(raw, namespace="dev").namespace == "dev"
    assert PlainSecret.parse(SECRET, namespace="prod").namespace == "prod"


def test_the_manifest_of_a_secret_reads_back() -> None:
    """Values that are not text survive, because stringData is never used."""
    raw = SECRET | {"data": {"binary": base64.b64encode(bytes(range(256))).decode()}, "type": "Opaque"}
    secret = PlainSecret.parse(raw, namespace=None)
    assert secret.manifest() == raw


@pytest.mark.parametrize(
    ("change", "namespace", "line"),
    [
        ({"metadata": {"name": "db"}}, None, "metadata.namespace: is missing; add it, or pass --namespace"),
        ({}, "dev", "metadata.namespace: is not the one that --namespace names"),
        ({"metadata": {"namespace": "prod"}}, None, "metadata.name: is missing"),
        ({"data": {"password": "hunter2!"}}, None, "data.password: is not base64"),
        ({"data": {"password": "hunter2"}}, None, "data.password: is not base64"),
        ({"data": {"password": 12345}}, None, "data.password: must be a string, not a number"),
        ({"data": "hunter2"}, None, "data: must be an object, not a string"),
        ({"stringData": {"password": True}}, None, "stringData.password: must be a string, not a boolean"),
        ({"stringdata": {"password": "hunter2"}}, None, "stringdata: is not a field"),
        ({"metadata": {"name": "db", "namespace": "prod", "label": {}}}, None, "metadata.label: is not a field"),
        ({"immutable": "yes"}, None, "immutable: must be true or false, not a string"),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(change: dict[str, Any], namespace: str | None, line: str) -> None:
    """The field, the fault and what to do."""
    with pytest.raises(Malformed) as caught:
        PlainSecret.parse(SECRET | change, namespace=namespace)
    assert str(caught.value).startswith(line)
    assert "hunter2" not in str(caught.value)
    assert "12345" not in str(caught.value)
    assert caught.value.remedy
