"""What a secret becomes: names, renaming, and refusals before anything is written."""

import pytest

from kmseal_agent.config import Wanted
from kmseal_agent.content import Content, prepare
from kmseal_agent.errors import Terminal

VALUES = {"user": b"u", "password": b"p"}


def wanted(*, files: bool = True, env: bool = False, names: dict[str, str] | None = None) -> Wanted:
    return Wanted("db", files, env, 0o400, names)


def test_files_and_env() -> None:
    """A pod gets the files, the env file, or both, as it asked."""
    assert prepare(wanted(), VALUES).files == VALUES
    assert prepare(wanted(), VALUES).env is None
    assert prepare(wanted(files=False, env=True), VALUES).files is None
    both = prepare(wanted(env=True), VALUES)
    assert (both.files, both.env) == (VALUES, b"password='p'\nuser='u'\n")


def test_renaming() -> None:
    """Values get the names that the pod asked for, and what is not listed is left out."""
    content = prepare(wanted(env=True, names={"password": "DB_PASSWORD"}), VALUES)
    assert (content.files, content.env) == ({"DB_PASSWORD": b"p"}, b"DB_PASSWORD='p'\n")


def test_a_value_that_is_not_there() -> None:
    """A name for a value that the secret has not is an error that names both."""
    with pytest.raises(Terminal) as caught:
        prepare(wanted(names={"pass": "P"}), VALUES)
    assert str(caught.value).startswith("db/pass: the secret has no such value; correct kmseal.dev/names.db")


@pytest.mark.parametrize("name", ["", ".", "..", "..data", "../up", "a/b", "/etc", "a\0b", "a\n", "ä", "a" * 254])
def test_names_that_are_no_files(name: str) -> None:
    """A name that could leave the folder, hide or collide with the layout is refused, from the broker or renamed."""
    with pytest.raises(Terminal, match="is not a name for a file"):
        prepare(wanted(), {name: b"x"})
    with pytest.raises(Terminal, match="is not a name for a file"):
        prepare(wanted(names={"user": name}), VALUES)


@pytest.mark.parametrize("name", ["a", "tls.crt", ".hidden", "-", "_", "a..b", "1", "a" * 253])
def test_names_that_are_files(name: str) -> None:
    """What a Secret takes as a key is a file's name."""
    assert prepare(wanted(), {name: b"x"}).files == {name: b"x"}


def test_it_shows_nothing() -> None:
    """The content does not appear in its representation."""
    assert repr(Content({"a": b"secret"}, b"secret")) == "Content(…)"
