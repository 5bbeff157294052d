"""kmseal dev: what a developer needs to seal without a cloud. The fake itself is run in test_end_to_end."""

import stat
from pathlib import Path
from typing import Any

import pytest


def test_a_key_file_is_made_for_its_owner_only(run: Any) -> None:
    """With the key local:dev where nothing else is said."""
    done = run("dev", "local-key", "keys")
    assert done.stdout == "local:dev\n"
    assert stat.S_IMODE(Path("keys").stat().st_mode) == 0o600
    sealed = run("create", "a", "-n", "b", "--key", "local:dev", "--from-literal", "x=y", "--local-key-file", "keys")
    assert run("decrypt", "-", "x", "--local-key-file", "keys", stdin=sealed.stdout).stdout == "y"


def test_a_key_file_is_never_overwritten(run: Any) -> None:
    """What was sealed with it would be lost."""
    run("dev", "local-key", "keys")
    before = Path("keys").read_bytes()
    assert "keys" in run("dev", "local-key", "keys", fails=6).stderr
    assert Path("keys").read_bytes() == before


def test_a_rotated_key_opens_what_it_sealed_before(run: Any) -> None:
    """And wraps with its new version from now on."""
    arguments = ("create", "a", "-n", "b", "--key", "local:dev", "--from-literal", "x=y", "--local-key-file", "keys")
    run("dev", "local-key", "keys")
    old = run(*arguments).stdout
    assert "version 2 is primary" in run("dev", "local-key", "keys", "--rotate").stderr
    new = run(*arguments).stdout
    assert 'keyVersionId: "1"' in old
    assert 'keyVersionId: "2"' in new
    for sealed in (old, new):
        assert run("decrypt", "-", "x", "--local-key-file", "keys", stdin=sealed).stdout == "y"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("local-key", "keys", "--name", "A B"), 3, "local:"),
        (("local-key", "missing/keys"), 6, "missing/keys"),
        (("local-key", "missing", "--rotate"), 6, "missing"),
        (("kms", "--tls-ca", "ca.pem"), 6, "a certificate of one's own needs three files"),
        (("kms", "--state", "missing/folder/state"), 6, "--state: the state file missing/folder/state"),
        (("key", "list", "--admin", "file:///etc/passwd"), 6, "--admin: is not an http:// URL"),
        (("key", "list", "--admin", "http://127.0.0.1:1"), 5, "--admin: does not answer"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Any, arguments: tuple[str, ...], code: int, line: str) -> None:
    """With the documented exit code."""
    assert line in run("dev", *arguments, fails=code).stderr
