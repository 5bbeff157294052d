"""What files name where it cannot be counted: every shape that a wrapping can hide in, and what is no trace."""

import json
import os
from pathlib import Path

import pytest

from kmseal.cli.filetree import find_files
from kmseal.cli.traces import find_traces
from kmseal.holdings import KeyUse

ARN = "acs:kms:cn-hangzhou:1234567890123456"
KEY = KeyUse(f"{ARN}:key/key-hzz62f1cb66fa42qo1234")
VERSION = KeyUse(KEY.key_id, "2ab1a983-7072-4bbc-a582-584b5bd8a0c4")
LOCAL = KeyUse("local:dev", "1")

OBJECT = f"""\
apiVersion: kmseal.dev/v1alpha1
kind: EncryptedSecret
metadata: {{name: db}}
spec:
  dataKeys:
  - wrappings:
    - keyId: {KEY.key_id}
      keyVersionId: {VERSION.key_version_id}
      wrapped: QUJD
"""
INDENTED = "".join(f"    {line}\n" for line in OBJECT.splitlines())
JSON = json.dumps(
    {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "X",
        "spec": {"keyId": KEY.key_id, "keyVersionId": VERSION.key_version_id},
    }
)


def traces(path: Path, *uses: KeyUse) -> list[tuple[str, KeyUse]]:
    """File and what it names."""
    found = find_traces(find_files([str(path)], everything=True), uses)
    return [(os.path.relpath(trace.file, path), trace.use) for trace in found]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("values.yaml", f"extraObjects:\n  -\n{INDENTED}"),
        ("map.yaml", f"kind: ConfigMap\ndata:\n  db.yaml: |\n{INDENTED}"),
        ("patch.yaml", f"- op: replace\n  value: {{keyId: {KEY.key_id}, keyVersionId: {VERSION.key_version_id}}}\n"),
        (".deploy/db.yaml", f"- {JSON}"),
        ("db.yaml.tpl", f"{{{{ if .Values.db }}}}\n{OBJECT}{{{{ end }}}}\n"),
        ("db.j2", OBJECT + "{% endif %}\n{{"),
        ("list.json", f"[{JSON}]"),
        ("commented.yaml", "".join(f"# {line}\n" for line in OBJECT.splitlines())),
        ("twice.yaml", f"{OBJECT}# {VERSION.key_version_id} {KEY.key_id}\n"),
        ("status.yaml", f"kind: Other\nversion: {VERSION.key_version_id}\nkey: {ARN}:key/key-hzz62f1cb66fa42qo1234\n"),
        ("binary", f"\0\1{VERSION.key_version_id}\0{KEY.key_id}"),
    ],
)
def test_what_cannot_be_counted_is_a_trace(tmp_path: Path, name: str, content: str) -> None:
    """Of the version, and of the key; whatever the file is called."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    assert traces(tmp_path, KEY, VERSION) == [(name, KEY), (name, VERSION)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_searched_as_well(tmp_path: Path, encoding: str) -> None:
    """kubectl reads it."""
    (tmp_path / "db.yaml").write_bytes(OBJECT.encode(encoding))
    assert traces(tmp_path, VERSION) == [("db.yaml", VERSION)]


def test_a_name_across_two_pieces_is_found(tmp_path: Path) -> None:
    """Files are read in pieces of a mebibyte; one of any size is searched to its end."""
    for distance in (1, 18, 35):
        text = b" " * (2 * 1_048_576 - distance) + VERSION.key_version_id.encode() + b" "
        (tmp_path / "large").write_bytes(text)
        assert traces(tmp_path, VERSION) == [("large", VERSION)]
    with (tmp_path / "large").open("ab") as file:
        file.truncate(70_000_000)
    assert traces(tmp_path, VERSION) == [("large", VERSION)]


@pytest.mark.parametrize(
    "content",
    [
        OBJECT,
        f"{OBJECT}---\n{OBJECT}",
        f"apiVersion: v1\nkind: List\nitems:\n- kind: EncryptedSecret\n  apiVersion: kmseal.dev/v1alpha1\n  spec: "
        f"{{dataKeys: [{{wrappings: [{{keyId: {KEY.key_id}, keyVersionId: {VERSION.key_version_id}}}]}}]}}\n",
        f"apiVersion: kmseal.dev/v1alpha1\nkind: KMSKey\nspec: {{keyId: {ARN}:alias/a, replaces: [{KEY.key_id}]}}\n",
        f"other: {KEY.key_id}56\nversion: x{VERSION.key_version_id}\n",
        "nothing: of interest\n",
    ],
)
def test_what_is_counted_or_said_in_a_kmskey_is_none(tmp_path: Path, content: str) -> None:
    """Nor is a longer name that begins alike."""
    (tmp_path / "db.yaml").write_text(content)
    assert traces(tmp_path, KEY, VERSION) == []


def test_a_version_that_tells_nothing_is_searched_by_its_key(tmp_path: Path) -> None:
    """As those of key files: an object under a newer version is no trace, a second mention is one."""
    newer = OBJECT.replace(KEY.key_id, "local:dev").replace(VERSION.key_version_id, '"2"')
    (tmp_path / "db.yaml").write_text(newer)
    (tmp_path / "other.yaml").write_text("key: local:develop\nport: 1\n")
    assert traces(tmp_path, LOCAL) == []
    (tmp_path / "db.yaml").write_text(f"{newer}---\nvalues:\n  key: local:dev\n")
    assert traces(tmp_path, LOCAL) == [("db.yaml", LOCAL)]


def test_what_cannot_be_searched_counts_as_a_trace(tmp_path: Path) -> None:
    """A broken link, and a pipe that would never end."""
    os.symlink("nowhere", tmp_path / "broken.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert traces(tmp_path, VERSION, LOCAL) == [
        *(("pipe.yaml", use) for use in (VERSION, LOCAL)),
        *(("broken.yaml", use) for use in (VERSION, LOCAL)),
    ]
    assert traces(tmp_path) == []
