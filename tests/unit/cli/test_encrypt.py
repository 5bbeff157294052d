"""kmseal encrypt: Secrets become EncryptedSecrets, and everything else stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CANARY = "canary-7f3a9c"
KEY = ("--key", "local:dev")
SECRET = f"""\
# remember: {CANARY}
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: prod
  labels: {{app: shop}}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{{"stringData": "{CANARY}"}}'
    example.com/owner: platform
type: example.com/x
immutable: true
data:
  binary: //8=
stringData:
  password: {CANARY}
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap # untouched\ndata: {a:   b}\n"


def test_a_secret_becomes_an_encrypted_secret(run: Any) -> None:
    """Labels, annotations, type and immutable go to the target; nothing in plain text is left."""
    done = run("encrypt", *KEY, stdin=SECRET)
    manifest = yaml.safe_load(done.stdout)
    assert manifest["kind"] == "EncryptedSecret"
    assert manifest["metadata"] == {"name": "db", "namespace": "prod"}
    assert manifest["spec"]["target"] == {
        "type": "example.com/x",
        "labels": {"app": "shop"},
        "annotations": {"example.com/owner": "platform"},
        "immutable": True,
    }
    assert CANARY not in done.output
    secret = json.loads(run("decrypt", "-", "-o", "json", stdin=done.stdout).stdout)
    assert secret["data"] == {"binary": "//8=", "password": "Y2FuYXJ5LTdmM2E5Yw=="}


def test_what_decrypt_prints_can_be_encrypted_again(run: Any) -> None:
    """The two are each other's inverse."""
    plain = run("decrypt", "-", stdin=run("encrypt", *KEY, stdin=SECRET).stdout).stdout
    assert run("decrypt", "-", stdin=run("encrypt", *KEY, stdin=plain).stdout).stdout == plain


def test_json_in_json_out(run: Any) -> None:
    """As other tools expect it."""
    done = run("encrypt", *KEY, stdin=json.dumps(yaml.safe_load(SECRET)))
    assert json.loads(done.stdout)["kind"] == "EncryptedSecret"


def test_other_kinds_pass_through_byte_for_byte(run: Any) -> None:
    """With a note, and their comments and separators."""
    stream = f"# head\n{CONFIG_MAP}--- # secret\n{SECRET}---\n\n---\n{CONFIG_MAP}...\n# end\n"
    done = run("encrypt", *KEY, stdin=stream)
    first, encrypted, empty, last = done.stdout.split("---\n")
    assert (first, empty, last) == (f"# head\n{CONFIG_MAP}", "\n", f"{CONFIG_MAP}...\n# end\n")
    assert yaml.safe_load(encrypted)["kind"] == "EncryptedSecret"
    assert done.stderr.splitlines() == [
        "document 1 (ConfigMap): passed through unchanged",
        "document 4 (ConfigMap): passed through unchanged",
    ]
    assert CANARY not in done.output


@pytest.mark.parametrize("kind", ["List", "SecretList"])
def test_a_list_of_secrets_is_encrypted_one_by_one(run: Any, kind: str) -> None:
    """As kubectl get prints it: documents in YAML, a List in JSON; each with a data key of its own."""
    items = [yaml.safe_load(SECRET), yaml.safe_load(SECRET.replace("name: db", "name: cache"))]
    raw = {"apiVersion": "v1", "kind": kind, "items": items}
    objects = list(yaml.safe_load_all(run("encrypt", *KEY, stdin=yaml.safe_dump(raw)).stdout))
    assert [item["metadata"]["name"] for item in objects] == ["db", "cache"]
    assert objects[0]["spec"]["dataKeys"][0]["wrappings"] != objects[1]["spec"]["dataKeys"][0]["wrappings"]
    listed = json.loads(run("encrypt", *KEY, stdin=json.dumps(raw)).stdout)
    assert listed["kind"] == "List"
    assert [item["kind"] for item in listed["items"]] == ["EncryptedSecret"] * 2


def test_in_place_replaces_the_file(run: Any) -> None:
    """And reminds that the old content may be in the history."""
    path = Path("app.yaml")
    path.write_text(f"{SECRET}---\n{CONFIG_MAP}")
    done = run("encrypt", "-f", "app.yaml", *KEY, "--in-place")
    assert done.stdout == ""
    assert "change the values as well" in done.stderr
    assert CANARY not in path.read_text()
    assert path.read_text().endswith(f"---\n{CONFIG_MAP}")


def test_in_place_writes_nothing_where_nothing_changes(run: Any) -> None:
    """The second run finds no Secret."""
    path = Path("app.yaml")
    path.write_text(SECRET)
    run("encrypt", "-f", "app.yaml", *KEY, "--in-place")
    before = path.stat()
    done = run("encrypt", "-f", "app.yaml", *KEY, "--in-place")
    assert "nothing to encrypt" in done.stderr
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_namespace_can_be_given(run: Any) -> None:
    """For manifests that name none."""
    done = run("encrypt", *KEY, "-n", "dev", "-w", "out.yaml", stdin=SECRET.replace("  namespace: prod\n", ""))
    assert done.stdout == ""
    assert yaml.safe_load(Path("out.yaml").read_text())["metadata"]["namespace"] == "dev"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SECRET.replace("  namespace: prod\n", ""), "standard input: metadata.namespace: is missing; add it, or pass"),
        (f"{SECRET}---\n{SECRET.replace('//8=', CANARY)}", "standard input: document 2: data.binary: is not base64"),
        (SECRET.replace("stringData:", "stringdata:"), "standard input: stringdata: is not a field"),
        (SECRET.replace("type: ex", "type: ex: "), "standard input: is not valid YAML"),
        (SECRET.replace("password:", "pass word:"), '"pass word" is not a valid value name'),
        (SECRET + f"  big: {'x' * 1_048_577}\n", "the values are 10485"),
        (SECRET.partition("\ndata:")[0], "there are 0 values"),
        (f"- {CANARY}\n", "standard input: is not an object"),
        (
            json.dumps({"kind": "List", "items": [yaml.safe_load(SECRET), {"kind": "ConfigMap"}]}),
            "items: lists Secrets and other kinds together",
        ),
        (
            json.dumps({"kind": "SecretList", "items": [{"metadata": {"name": 1}}]}),
            "standard input: items[0]: metadata.name: must be a string, not a number",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_any_call(
    run: Any, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    """Nothing is printed where any part fails."""
    monkeypatch.delenv("KMSEAL_LOCAL_KEY_FILE")
    done = run("encrypt", *KEY, stdin=text, fails=3)
    assert line in done.stderr


def test_a_failure_leaves_the_file_as_it_was(run: Any) -> None:
    """Also where the first Secret could have been encrypted."""
    path = Path("app.yaml")
    path.write_text(SECRET)
    run("encrypt", "-f", "app.yaml", "--key", "local:missing", "--in-place", fails=4)
    assert path.read_text() == SECRET
    assert list(Path().iterdir()) == [path]
