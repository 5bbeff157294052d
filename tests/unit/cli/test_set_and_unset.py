"""kmseal set and unset: values change in a file, by somebody who can read none of them."""

import difflib
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmseal.manifest import EncryptedSecret

CANARY = "canary-7f3a9c"
COMMENTED = "# Owner: platform\n"


@pytest.fixture
def db(run: Any) -> Path:
    """A file with an EncryptedSecret between a comment and another object."""
    made = run(
        *("create", "db", "-n", "prod", "--key", "local:dev", "--key", "local:other"),
        *("--from-literal", "user=app", "--from-literal", "password=old"),
    )
    path = Path("db.yaml")
    path.write_text(f"{COMMENTED}{made.stdout}---\nkind: ConfigMap # other\n")
    return path


def parsed(path: Path) -> EncryptedSecret:
    """The first object of a file."""
    return EncryptedSecret.parse(next(yaml.safe_load_all(path.read_text())))


def value(run: Any, name: str) -> bytes:
    """What is inside the file."""
    return bytes(run("decrypt", "db.yaml", name).stdout_bytes)


def touched(before: str, after: str) -> set[str]:
    """The first words of the lines that went or came."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return {line[2:].strip().removeprefix("- ").split(":")[0] for line in lines if line[:2] in ("- ", "+ ")}


def test_a_value_is_replaced_and_the_others_stay_as_they_are(run: Any, db: Path) -> None:
    """One line of values and one data key, wrapped by the same keys; bytes that are no text survive."""
    before = db.read_text()
    run("set", "db.yaml", "password=-", stdin=b"\xff\x00new")
    assert value(run, "password") == b"\xff\x00new"
    assert value(run, "user") == b"app"
    old, new = EncryptedSecret.parse(next(yaml.safe_load_all(before))), parsed(db)
    assert new.values["user"] == old.values["user"]
    assert new.data_keys[:-1] == old.data_keys
    assert [item.key_id for item in new.data_keys[-1].wrappings] == ["local:dev", "local:other"]
    assert touched(before, db.read_text()) == {
        *("password", "id", "sealedFor", "wrappings"),
        *("keyId", "keyVersionId", "algorithm", "wrapped"),
    }


def test_all_values_of_one_call_share_a_data_key_and_unused_ones_go(run: Any, db: Path) -> None:
    """Setting everything leaves one data key."""
    Path("user").write_text("u")
    old = parsed(db)
    run("set", "db.yaml", "user=@user", "password=-", "third=x", stdin=CANARY)
    new = parsed(db)
    assert len({item.data_key_id for item in new.values.values()}) == len(new.data_keys) == 1
    assert new.data_keys[0].id != old.data_keys[0].id
    assert [value(run, name) for name in ("user", "password", "third")] == [b"u", CANARY.encode(), b"x"]


def test_the_key_can_be_chosen_anew(run: Any, db: Path) -> None:
    """Instead of the keys that the object has."""
    run("set", "db.yaml", "password=-", "--key", "local:other", stdin=CANARY)
    assert [item.key_id for item in parsed(db).data_keys[-1].wrappings] == ["local:other"]


def test_an_argument_with_a_value_warns(run: Any, db: Path) -> None:
    """And does not show it."""
    done = run("set", "db.yaml", f"password={CANARY}")
    assert done.stderr.startswith("warning: the value of password was an argument")
    assert value(run, "password") == CANARY.encode()


def test_a_prompt_asks_twice_and_shows_nothing(run: Any, db: Path) -> None:
    """At a real terminal."""
    terminal, inside = pty.openpty()
    try:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("kmseal")), "set", "db.yaml", "password"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        shown = b""
        for _ in range(2):
            while not shown.endswith(b": "):
                shown += os.read(terminal, 1024)
            os.write(terminal, f"{CANARY}\n".encode())
            shown += b"|"
        assert process.wait(timeout=30) == 0
        shown += os.read(terminal, 4096)
    finally:
        os.close(terminal)
        os.close(inside)
    assert CANARY.encode() not in shown
    assert value(run, "password") == CANARY.encode()


def test_json_stays_json(run: Any, db: Path) -> None:
    """The layout included."""
    made = run(*("create", "db", "-n", "prod", "--key", "local:dev", "-o", "json", "--from-literal", "a=b"))
    db.write_text(made.stdout)
    run("set", "db.yaml", "c=-", stdin=CANARY)
    assert value(run, "c") == CANARY.encode()
    text = db.read_text()
    assert text.startswith('{\n  "apiVersion"')
    assert text.endswith("}\n")


def test_the_object_is_chosen_among_several(run: Any, db: Path) -> None:
    """By name, or namespace and name; the others stay byte for byte."""
    other = run("create", "cache", "-n", "prod", "--key", "local:dev", "--from-literal", "user=c").stdout
    before = db.read_text()
    db.write_text(f"{before}---\n{other}")
    done = run("set", "db.yaml", "user=-", stdin=CANARY, fails=3)
    assert "db.yaml: has 2 EncryptedSecrets: prod/db, prod/cache; say which one with --object" in done.stderr
    assert db.read_text() == f"{before}---\n{other}"
    for reference in ("cache", "prod/cache"):
        run("set", "db.yaml", "user=-", "--object", reference, stdin=CANARY)
        assert db.read_text().startswith(f"{before}---\n")
        assert run("decrypt", "db.yaml", "user", "--object", reference).stdout == CANARY
    for reference in ("nobody", "dev/cache"):
        assert "--object: names no" in run("unset", "db.yaml", "x", "--object", reference, fails=3).stderr


def test_unset_removes_values_and_data_keys_without_any_key(
    run: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else changes."""
    run("set", "db.yaml", "password=-", stdin=CANARY)
    before = db.read_text()
    monkeypatch.delenv("KMSEAL_LOCAL_KEY_FILE")
    done = run("unset", "db.yaml", "password", "nobody")
    assert done.stderr.splitlines() == ["db.yaml: has no value nobody", "db.yaml: removed password"]
    after = db.read_text()
    assert set(parsed(db).values) == {"user"}
    assert len(parsed(db).data_keys) == 1
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert not [line for line in lines if line.startswith("+ ")]


def test_unset_writes_nothing_where_nothing_changes(run: Any, db: Path) -> None:
    """The file is not even touched."""
    before = db.stat()
    run("unset", "db.yaml", "nobody")
    assert (db.stat().st_mtime_ns, db.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("  namespace: prod", "  namespace: dev"), 'spec.dataKeys[0].sealedFor: sealed for namespace "prod", this'),
        (("  name: db", "  name: web"), 'spec.dataKeys[0].sealedFor: sealed for name "db", this object is named "web"'),
        (("scope: Strict", "scope: Cluster"), "sealed with scope Strict, this object has scope Cluster"),
        (("  namespace: prod\n", ""), "metadata.namespace: is missing; add it, or pass --namespace"),
        (("kind: EncryptedSecret", "kind: Secret"), "apiVersion: is not"),
        (("v1alpha1", "v9"), "apiVersion: is not kmseal.dev/v1alpha1; a newer kmseal may know it"),
        (("spec:", "sepc:"), "spec: is missing"),
        (("  scope:", "  scoop:"), "spec.scoop: is not a field that this kmseal knows"),
        (("    user: v1.", "    user: v2."), "spec.encryptedData.user: has a format label other than v1"),
        (("    user: v1.", f"    user: {CANARY} #"), "spec.encryptedData.user: is not an encrypted value"),
        (("    user:", "    admin:"), "spec.encryptedData.admin: was sealed under another value name"),
        (("  - id:", "  - id: x #"), "spec.dataKeys[0].id: the data key id does not have its form"),
        (("metadata:", "metadata: metadata:"), "is not valid YAML: a colon is not possible here"),
    ],
)
@pytest.mark.parametrize("command", [("set", "db.yaml", "password=-"), ("decrypt", "db.yaml")])
def test_a_wrong_file_is_named_before_any_call(
    run: Any,
    db: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    change: tuple[str, str],
    line: str,
) -> None:
    """With the field and the remedy; the file stays as it is."""
    monkeypatch.delenv("KMSEAL_LOCAL_KEY_FILE")
    text = db.read_text().partition("---\n")[0].replace(*change, 1)
    assert text not in db.read_text()
    db.write_text(text)
    if change[1] == "kind: Secret":
        line = "kind: is not EncryptedSecret"
    done = run(*command, stdin=CANARY, fails=3)
    assert f"error: db.yaml: {line}" in done.stderr or line in done.stderr
    assert db.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("set", "db.yaml", "password"), 3, "argument 1: standard input is not a terminal"),
        (("set", "db.yaml", "a=x", CANARY), 3, "argument 2: standard input is not a terminal"),
        (("set", "db.yaml", f"{CANARY} b"), 3, "argument 1: an argument without = has to be the name of a value"),
        (("set", "db.yaml", "a b=x"), 3, '"a b" is not a valid value name; use letters'),
        (("set", "db.yaml", "a=@missing"), 3, "argument 1: missing: cannot be read: no such file or directory"),
        (("set", "db.yaml", "a=-", "b=-"), 3, "standard input can be read only once"),
        (("set", "db.yaml", "a=@big"), 3, "big: is larger than 1048576 bytes"),
        (("set", "db.yaml", "a=@full"), 3, "db.yaml: the values are 1048577 bytes together"),
        (("set", "missing.yaml", "a=x"), 3, "missing.yaml: cannot be read: no such file or directory"),
        (("set", "-", "a=x"), 3, "cannot be edited; name a file"),
        (("set", "db.yaml", "a=x", "-n", "dev"), 3, "metadata.namespace: is not the one that --namespace names"),
        (("set", "db.yaml", "a=x", "--key", "local:missing"), 4, "db.yaml: "),
        (("unset", "db.yaml", "user", "password"), 3, "spec.encryptedData: would have no value left"),
        (("unset", "-", "a"), 3, "cannot be edited; name a file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_the_file(
    run: Any, db: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    """Nothing is written when any part fails."""
    Path("big").write_bytes(bytes(1_048_577))
    Path("full").write_bytes(bytes(1_048_571))
    before = db.read_text()
    done = run(*arguments, stdin=CANARY, fails=code)
    assert line in done.stderr
    assert db.read_text() == before


def test_a_value_that_its_type_needs_stays(run: Any, db: Path) -> None:
    """Or the API server would refuse the Secret."""
    db.write_text(
        db.read_text().replace("  encryptedData:", "  target: {type: kubernetes.io/ssh-auth}\n  encryptedData:")
    )
    run("set", "db.yaml", "ssh-privatekey=-", stdin=CANARY)
    done = run("unset", "db.yaml", "ssh-privatekey", fails=3)
    assert "must have the value ssh-privatekey" in done.stderr


def test_a_file_that_changes_meanwhile_is_not_overwritten(run: Any, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody saved while the key service was asked: try again."""
    from kmseal.cli.documents import Stream

    edit = Stream.edit

    def edit_slowly(self: Stream, *arguments: Any) -> str:
        db.write_text("saved by an editor")
        return edit(self, *arguments)

    monkeypatch.setattr(Stream, "edit", edit_slowly)
    done = run("set", "db.yaml", "password=-", stdin=CANARY, fails=5)
    assert "changed while it was being edited; run the command again" in done.stderr
    assert db.read_text() == "saved by an editor"
