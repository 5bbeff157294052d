"""What objects need, and where their wrappings should be: counted leniently, decided by KMSKeys."""

from pathlib import Path
from typing import Any

import pytest

from kmseal.cli.census import Holder, Needs, stale, take_census
from kmseal.cli.filetree import find_files
from kmseal.cli.keyrows import KeyRow, KeyRows
from kmseal.holdings import Held, KeyUse, read_holdings
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


def used(key: str, version: str) -> Held:
    return Held(KeyUse(key, version), KeyUse(key, version))


def test_what_stands_in_the_status_is_the_newest() -> None:
    """For as long as it replaces what stands in the spec."""
    old = wrapping(OLD, "v1")
    newer = {"dataKeyId": "oldk2345", "digest": digest(Wrapping.parse(old)), "wrapping": wrapping(OLD, "v2")}
    raw = manifest(old, wrapping(OTHER, "v1"), rewrapped=[newer])
    assert read_holdings(raw) == (Held(KeyUse(OLD, "v1"), KeyUse(OLD, "v2")), used(OTHER, "v1"))
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
    census = take_census(find_files([str(tmp_path)]), None)
    assert census.count() == {KeyUse(OLD, "v1"): 2, KeyUse(OLD, "v2"): 2, KeyUse(OTHER, "v1"): 2}
    assert [item.file for item in census.failures] == [str(tmp_path / "b.yaml")]
    needs = Needs(census.holders)
    asked = [KeyUse(OLD), KeyUse(OLD, "v1"), KeyUse(OLD, "v3"), KeyUse(NEW)]
    assert [needs.count(use) for use in asked] == [2, 2, 0, 0]
    assert str(census) == "2 objects in 1 of 3 files"


def test_a_key_is_needed_under_whatever_account_and_region() -> None:
    """KMS opens by the ciphertext, whatever a manifest claims; what stands in the status is needed as well."""
    elsewhere = OLD.replace("cn-hangzhou:1234567890123456", "cn-beijing:1")
    needs = Needs([Holder("", "prod", "db", (Held(KeyUse(elsewhere, "v1"), KeyUse(NEW, "v2")),))])
    asked = [KeyUse(OLD), KeyUse(OLD, "v1"), KeyUse(NEW, "v2"), KeyUse(NEW, "v1")]
    assert [needs.count(use) for use in asked] == [1, 1, 1, 0]


def test_no_object_at_all_is_a_wrong_path(tmp_path: Path) -> None:
    """And no answer: nothing would be safe to say."""
    (census,) = [take_census(find_files([str(tmp_path)]), None)]
    (failed,) = census.failures
    assert [error.reason for error in failed.failures] == ["NoObjects"]


@pytest.mark.parametrize("id_", [["x"], {"a": 1}, 7, None])
def test_a_data_key_without_a_name_still_needs_its_key(id_: Any) -> None:
    """Whatever stands there instead of one, also where newer wrappings are beside it."""
    old = wrapping(OLD, "v1")
    newer = {"dataKeyId": "oldk2345", "digest": digest(Wrapping.parse(old)), "wrapping": wrapping(OLD, "v2")}
    raw = manifest(rewrapped=[newer]) | {"spec": {"dataKeys": [{"id": id_, "wrappings": [old]}]}}
    assert read_holdings(raw) == (used(OLD, "v1"),)


def row(key_id: str, primary: str = "", *former: str, **more: Any) -> KeyRow:
    """A KMSKey that people wrote."""
    raw = {
        "metadata": {"name": key_id[-3:], **more},
        "spec": {"keyId": key_id, "replaces": list(former)},
        "status": {"primaryVersion": primary},
    }
    return KeyRow.read(raw)


@pytest.mark.parametrize(
    ("rows", "of", "target"),
    [
        ([row(OLD, "v2")], KeyUse(OLD, "v1"), KeyUse(OLD, "v2")),
        ([row(OLD, "v2")], KeyUse(OLD, "v2"), None),
        ([row(OLD, "v2")], KeyUse(OTHER, "v1"), None),
        ([row(OLD)], KeyUse(OLD, "v1"), None),
        ([row(NEW, "v1", OLD)], KeyUse(OLD, "v1"), KeyUse(NEW, "v1")),
        ([row(NEW, "v1", OLD)], KeyUse(NEW, "v1"), None),
        ([row(NEW, "", OLD)], KeyUse(OLD, "v1"), KeyUse(NEW)),
        ([row(NEW, "v1", OLD), row(OLD, "v2")], KeyUse(OLD, "v2"), KeyUse(NEW, "v1")),
        ([row(OTHER, "v1", NEW), row(NEW, "v1", OLD)], KeyUse(OLD, "v1"), KeyUse(OTHER, "v1")),
    ],
)
def test_where_a_wrapping_should_be(rows: list[KeyRow], of: KeyUse, target: KeyUse | None) -> None:
    """Under the primary version, of the key that took over; nothing is said of unknown keys."""
    keys = KeyRows(rows)
    assert (keys.destination(of.key_id) if keys.is_stale_anywhere(of) else None) == target


def test_a_circle_of_replacements_is_stale_and_goes_nowhere() -> None:
    """As the operator says it: it cannot move anything until somebody breaks the circle."""
    keys = KeyRows([row(OLD, "v2", NEW), row(NEW, "v2", OLD)])
    assert keys.is_stale_anywhere(KeyUse(OLD, "v1"))
    assert keys.destination(OLD) is None
    assert not keys.may_replace(OLD, NEW)


def test_stale_is_told_by_where_it_is() -> None:
    """In the cluster, in what the cluster has of Git, and in files."""
    half, whole = Held(KeyUse(OLD, "v1"), KeyUse(OLD, "v2")), used(OLD, "v1")
    holders = [
        Holder("", "prod", "half", (half,)),
        Holder("", "prod", "whole", (whole,)),
        Holder("a.yaml", "prod", "file", (whole, used(OLD, "v2"))),
        Holder("", "prod", "current", (used(OLD, "v2"),)),
    ]
    found = [(where, holder.name) for where, holder, _, _ in stale(holders, KeyRows([row(OLD, "v2")]))]
    assert found == [("Git", "half"), ("Cluster", "whole"), ("Git", "whole"), ("File", "file")]
