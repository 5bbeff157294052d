"""kmseal decrypt: everything or nothing, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CANARY = "canary-7f3a9c"
CREATE = ("create", "-n", "prod", "--key", "local:dev")


@pytest.fixture
def db(run: Any) -> Path:
    """A file with a text and bytes that are none."""
    Path("binary").write_bytes(bytes(range(256)))
    path = Path("db.yaml")
    run(*CREATE, "db", "--from-file", "binary", "--from-file", "password=-", "-w", "db.yaml", stdin=CANARY)
    return path


def test_the_default_is_the_secret_in_yaml(run: Any, db: Path) -> None:
    """With data in base64, whatever the bytes are."""
    done = run("decrypt", "db.yaml")
    assert yaml.safe_load(done.stdout) == json.loads(run("decrypt", "db.yaml", "-o", "json").stdout)
    secret = yaml.safe_load(done.stdout)
    assert (secret["kind"], secret["type"], secret["metadata"]) == (
        *("Secret", "Opaque"),
        {"name": "db", "namespace": "prod"},
    )
    assert list(secret["data"]) == ["binary", "password"]
    assert done.stderr == ""


def test_one_value_comes_as_raw_bytes(run: Any, db: Path) -> None:
    """Without a line end that was not there."""
    assert run("decrypt", "db.yaml", "binary").stdout_bytes == bytes(range(256))
    assert run("decrypt", "-", "password", "-o", "raw", stdin=db.read_text()).stdout == CANARY


def test_values_come_as_an_env_file(run: Any) -> None:
    """That reads back through --from-env-file."""
    Path(".env").write_text("A='x y'\nB=\"l1\nl2\"\n")
    run(*CREATE, "app", "--from-env-file", ".env", "-w", "app.yaml")
    assert run("decrypt", "app.yaml", "-o", "env").stdout == "A='x y'\nB='l1\nl2'\n"


def test_several_objects_are_several_secrets(run: Any, db: Path) -> None:
    """Other kinds in the file are left out."""
    other = run(*CREATE, "cache", "--from-literal", "a=b").stdout
    db.write_text(f"{db.read_text()}---\nkind: ConfigMap\n---\n{other}")
    names = [item["metadata"]["name"] for item in yaml.safe_load_all(run("decrypt", "db.yaml").stdout)]
    assert names == ["db", "cache"]
    assert json.loads(run("decrypt", "db.yaml", "-o", "json").stdout)["kind"] == "List"
    assert run("decrypt", "db.yaml", "a", "--object", "cache").stdout == "b"


def test_templates_are_not_rendered_here_and_that_is_said(run: Any, db: Path) -> None:
    """Only the operator has the template engine."""
    db.write_text(db.read_text() + "  target:\n    data: {url: 'x'}\n")
    assert "which only the operator renders" in run("decrypt", "db.yaml").stderr


def test_an_altered_value_opens_nothing(run: Any, db: Path) -> None:
    """Not even the values that are intact (O3)."""
    manifest = yaml.safe_load(db.read_text())
    line = manifest["spec"]["encryptedData"]["password"]
    altered = line[:-8] + ("A" if line[-8] != "A" else "B") + line[-7:]
    db.write_text(db.read_text().replace(line, altered))
    done = run("decrypt", "db.yaml", "binary", fails=3)
    assert "db.yaml: spec.encryptedData.password: does not authenticate" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("db.yaml", "nobody"), 3, 'has no value "nobody"; it has: binary, password'),
        (("db.yaml", "-o", "env"), 3, "binary: is not UTF-8 text; choose -o yaml or -o json"),
        (("missing.yaml",), 3, "missing.yaml: cannot be read: no such file or directory"),
        (("plain.yaml",), 3, "plain.yaml: kind: is a plain Secret, not an EncryptedSecret; encrypt it with: kmseal"),
        (("map.yaml",), 3, "map.yaml: kind: is not EncryptedSecret"),
        (("empty.yaml",), 3, "empty.yaml: holds no object"),
        (("bytes.yaml",), 3, "bytes.yaml: is not UTF-8 text (byte 1)"),
        (("text.yaml",), 3, "text.yaml: must be an object, not a string"),
        (("db.yaml", "--local-key-file", "missing"), 6, "db.yaml: "),
        (("db.yaml", "--local-key-file", "bytes.yaml"), 6, "db.yaml: "),
        (("db.yaml", "--local-key-file", "."), 6, "db.yaml: "),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    run: Any, db: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    """With the documented exit code."""
    Path("plain.yaml").write_text(f"apiVersion: v1\nkind: Secret\nstringData: {{a: {CANARY}}}\n")
    Path("map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    Path("empty.yaml").write_text("# nothing\n---\n")
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    Path("text.yaml").write_text(CANARY)
    done = run("decrypt", *arguments, fails=code)
    assert line in done.stderr
