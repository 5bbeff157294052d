"""Which files are meant, and which objects are ours."""

import os
from pathlib import Path
from typing import Any

import pytest

from kmseal.cli.filetree import find_files
from kmseal.cli.repository import name_of, parse_object, read_manifests
from kmseal.errors import Malformed, WrongBinding

CIRCLE = [f"a/b/circle/{name}" for name in ("a/one.yaml", "a/linked/e.yaml", "c[1].yaml")]
OURS = "apiVersion: kmseal.dev/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db}\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with everything that is met in one."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a/one.yaml",
        "a/b/two.yml",
        "a/b/three.json",
        "a/readme.md",
        "a/.git/x.yaml",
        "c[1].yaml",
        "d/e.yaml",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(OURS)
    os.symlink("../..", "a/b/circle")
    os.symlink("../d", "a/linked")
    os.symlink("nowhere.yaml", "a/broken.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["a/one.yaml"], ["a/one.yaml"]),
        (["a/readme.md"], ["a/readme.md"]),
        (["d", "a/linked"], ["d/e.yaml"]),
        (["a/linked"], ["a/linked/e.yaml"]),
        (["a/**/*.json"], ["a/b/three.json"]),
        (["**/*.yaml"], ["a/one.yaml", "c[1].yaml", "d/e.yaml"]),
        (["a/b"], [*(f"a/b/{name}" for name in ("three.json", "two.yml")), *CIRCLE]),
        (["a/.git/*.yaml"], ["a/.git/x.yaml"]),
        (["?/*.yaml"], ["a/one.yaml", "d/e.yaml"]),
        (["c[1].yaml"], ["c[1].yaml"]),
        (["a/b/two.yml", "a/b/two.yml", "./a/b/two.yml"], ["a/b/two.yml"]),
    ],
)  # fmt: skip
def test_files_folders_and_globs_are_found(tree: Path, arguments: list[str], found: list[str]) -> None:
    """Each file once, in the order of the arguments; hidden folders and circles of links are passed over."""
    assert [path for path in find_files(arguments).files if path != "a/broken.yaml"] == found


def test_a_whole_tree_is_searched_once(tree: Path) -> None:
    """Through a circle of links back to its root as well."""
    names = ("a/one.yaml", "a/b/two.yml", "a/b/three.json", "c[1].yaml", "d/e.yaml")
    assert "a/one.yaml" in find_files(["."]).files
    for start in (".", "a/b/circle", str(tree)):
        assert sorted(map(os.path.realpath, find_files([start]).files)) == sorted(str(tree / name) for name in names)


@pytest.mark.parametrize("argument", ["missing.yaml", "none/*.yaml", "-", "a/**/*.toml"])
def test_an_argument_that_means_nothing_is_refused(tree: Path, argument: str) -> None:
    """It is a typing error, and silence would look like success."""
    with pytest.raises(Malformed):
        find_files(["a", argument])


def test_a_file_that_cannot_hold_one_is_not_parsed(tmp_path: Path) -> None:
    """Templates of charts are not YAML, and nobody's business."""
    path = tmp_path / "template.yaml"
    path.write_text("{{ if .Values.x }}\nkind: Secret\n{{ end }}")
    assert read_manifests(str(path)) is None


def test_a_file_that_may_hold_one_must_be_readable(tmp_path: Path) -> None:
    """What is in it is not known."""
    path = tmp_path / "template.yaml"
    path.write_text("{{ if .Values.x }}\nkind: EncryptedSecret\n{{ end }}")
    with pytest.raises(Malformed):
        read_manifests(str(path))


def test_only_our_objects_count(tmp_path: Path) -> None:
    """Not those of another API group, nor a CRD that mentions the kind; those in a List do."""
    path = tmp_path / "mixed.yaml"
    item = "{apiVersion: kmseal.dev/v1alpha1, kind: EncryptedSecret, metadata: {name: web}}"
    path.write_text(
        f"{OURS}---\nkind: EncryptedSecret\napiVersion: other.io/v1\n---\nkind: CustomResourceDefinition\n---\n"
        f"- kind: EncryptedSecret\n---\nkind: List\nitems: [{item}, {{kind: Secret}}]\n"
    )
    found = read_manifests(str(path))
    assert found is not None
    assert [name_of(raw, "prod") for _, raw in found.objects] == [("prod", "db"), ("prod", "web")]


def manifest(sealed_for: str, scope: str, **metadata: str) -> dict[str, Any]:
    """An object that was sealed somewhere."""
    wrapping = {"keyId": "local:dev", "keyVersionId": "1", "algorithm": "LOCAL_AES_256_GCM", "wrapped": "QUJD"}
    from kmseal.envelope import DataKeyId, Place, encrypt_value
    from kmseal.redacted import Redacted

    place = Place.parse_sealed_for(sealed_for)
    line = encrypt_value(Redacted(bytes(32)), DataKeyId("oldk2345"), place, "a", Redacted(b"x")).line()
    return {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db", **metadata},
        "spec": {
            "scope": scope,
            "dataKeys": [{"id": "oldk2345", "sealedFor": sealed_for, "wrappings": [wrapping]}],
            "encryptedData": {"a": line},
        },
    }


@pytest.mark.parametrize(
    ("sealed_for", "scope", "own", "given", "namespace"),
    [
        ("prod/db", "Strict", {"namespace": "prod"}, None, "prod"),
        ("prod/db", "Strict", {"namespace": "prod"}, "dev", "prod"),
        ("prod/db", "Strict", {}, "prod", "prod"),
        ("prod/db", "Strict", {}, None, "prod"),
        ("prod/*", "Namespace", {}, None, "prod"),
        ("*/*", "Cluster", {}, "dev", "dev"),
    ],
)
def test_an_object_without_a_namespace_is_in_the_one_it_was_sealed_for(
    sealed_for: str, scope: str, own: dict[str, str], given: str | None, namespace: str
) -> None:
    """Unless the command line says another one; its own always wins."""
    raw = manifest(sealed_for, scope, **own)
    assert parse_object(raw, given).namespace == namespace
    assert name_of(raw, given) == (namespace, "db")


def test_an_object_of_the_scope_cluster_needs_no_namespace_to_be_read() -> None:
    """It binds nothing; and messages do not invent one."""
    raw = manifest("*/*", "Cluster")
    parse_object(raw, None)
    assert name_of(raw, None) == ("", "db")


def test_an_object_that_was_moved_is_refused() -> None:
    """By its own namespace, or by the one that is given."""
    for raw, given in ((manifest("prod/db", "Strict", namespace="dev"), None), (manifest("prod/db", "Strict"), "dev")):
        with pytest.raises(WrongBinding):
            parse_object(raw, given)
