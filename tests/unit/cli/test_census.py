"""What objects need, and where their wrappings should be: counted leniently, decided by KMSKeys."""

from pathlib import Path
from typing import Any

import pytest

from kmseal.cli.census import Census, Destinations, Holder, Holding, read_holdings, stale, take_census
from kmseal.cli.report import Used
from kmseal.manifest import Wrapping
from kmseal.rewrapped import digest

OLD, NEW, OTHER = (f"acs:kms:cn-hangzhou:1234567890123456:key/key-{name}" for name in ("old", "new", "other"))


def wrapping(key: str, version: str) -> dict[str, Any]:
    return {"keyId": key, "keyVersionId": version, "algorithm": "KMS_SYMMETRIC", "wrapped": "QUJD"}


def manifest(*wrappings: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db", "namespace": "prod"},
        "spec": {"dataKeys": [{"id": "oldk2345", "wrappings": list(wrappings)}]},
        "status": status,
    }


def used(key: str, version: str) -> Holding:
    return Holding(Used(key, version), Used(key, version))


def test_what_stands_in_the_status_is_the_newest() -> None:
    """For as long as it replaces what stands in the spec."""
    old = wrapping(OLD, "v1")
    newer = {"dataKeyId": "oldk2345", "digest": digest(Wrapping.parse(old)), "wrapping": wrapping(OLD, "v2")}
    raw = manifest(old, wrapping(OTHER, "v1"), rewrapped=[newer])
    assert read_holdings(raw) == (Holding(Used(OLD, "v1"), Used(OLD, "v2")), used(OTHER, "v1"))
    raw = manifest(wrapping(OLD, "v9"), rewrapped=[newer])
    assert read_holdings(raw) == (used(OLD, "v9"),)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {},
        {"dataKeys": None},
        {"dataKeys": ["x", {"wrappings": None}, {"wrappings": ["x", {}, {"keyId": 1, "keyVersionId": "v"}]}]},
    ],
)
def test_what_is_no_wrapping_is_passed_over(spec: Any) -> None:
    """It needs no key."""
    assert read_holdings(manifest() | {"spec": spec}) == ()


def test_a_wrong_object_still_needs_its_key() -> None:
    """Somebody may repair it tomorrow."""
    raw = manifest(wrapping(OLD, "v1") | {"algorithm": "unknown", "more": 1})
    assert read_holdings(raw) == (used(OLD, "v1"),)


def test_files_are_counted_by_object(tmp_path: Path) -> None:
    """Two data keys under one version are one object; a file that cannot be read is told and not skipped."""
    text = (
        "apiVersion: kmseal.dev/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: prod}\nspec:\n"
        f"  dataKeys:\n  - wrappings: [{{keyId: {OLD}, keyVersionId: v1}}, {{keyId: {OTHER}, keyVersionId: v1}}]\n"
        f"  - wrappings: [{{keyId: {OLD}, keyVersionId: v1}}, {{keyId: {OLD}, keyVersionId: v2}}]\n"
    )
    (tmp_path / "a.yaml").write_text(f"{text}---\n{text}")
    (tmp_path / "b.yaml").write_text("kind: EncryptedSecret\n{{ x }}")
    (tmp_path / "c.yaml").write_text("kind: Other\n{{ x }}")
    census = take_census([str(tmp_path / name) for name in ("a.yaml", "b.yaml", "c.yaml")], None)
    assert census.count() == {Used(OLD, "v1"): 2, Used(OLD, "v2"): 2, Used(OTHER, "v1"): 2}
    assert [item.file for item in census.failures] == [str(tmp_path / "b.yaml")]
    assert [census.needing(OLD, ""), census.needing(OLD, "v1"), census.needing(OLD, "v3"), census.needing(NEW, "")] == [
        *(2, 2, 0, 0)
    ]


@pytest.mark.parametrize(
    ("primary", "successors", "of", "target"),
    [
        ({OLD: "v2"}, {}, Used(OLD, "v1"), Used(OLD, "v2")),
        ({OLD: "v2"}, {}, Used(OLD, "v2"), None),
        ({OLD: "v2"}, {}, Used(OTHER, "v1"), None),
        ({OLD: ""}, {}, Used(OLD, "v1"), None),
        ({NEW: "v1"}, {OLD: NEW}, Used(OLD, "v1"), Used(NEW, "v1")),
        ({NEW: "v1"}, {OLD: NEW}, Used(NEW, "v1"), None),
        ({NEW: ""}, {OLD: NEW}, Used(OLD, "v1"), Used(NEW, "")),
        ({OTHER: "v1"}, {OLD: NEW, NEW: OTHER}, Used(OLD, "v1"), Used(OTHER, "v1")),
        ({OLD: "v2", NEW: "v2"}, {OLD: NEW, NEW: OLD}, Used(OLD, "v1"), None),
    ],
)
def test_where_a_wrapping_should_be(
    primary: dict[str, str], successors: dict[str, str], of: Used, target: Used | None
) -> None:
    """Under the primary version, of the key that took over; nothing is said of unknown keys and circles."""
    assert Destinations(primary, successors).of(of) == target


def test_stale_is_told_by_where_it_is() -> None:
    """In the cluster, in what the cluster has of Git, and in files."""
    destinations = Destinations({OLD: "v2"}, {})
    half, whole = Holding(Used(OLD, "v1"), Used(OLD, "v2")), used(OLD, "v1")
    holders = [
        Holder("", "prod", "half", (half,)),
        Holder("", "prod", "whole", (whole,)),
        Holder("a.yaml", "prod", "file", (whole, used(OLD, "v2"))),
        Holder("", "prod", "current", (used(OLD, "v2"),)),
    ]
    found = [(where, holder.name) for where, holder, _, _ in stale(holders, destinations)]
    assert found == [("Git", "half"), ("Cluster", "whole"), ("Git", "whole"), ("File", "file")]
    assert Census(holders).needing(OLD, "v1") == 3
