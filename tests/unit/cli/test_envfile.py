"""Reading .env files as docker compose users expect, and never quoting them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cli import envfile
from kmseal.errors import Malformed
from kmseal.redacted import Redacted


def revealed(raw: bytes) -> dict[str, str]:
    """The parsed values in plain text."""
    return {name: value.reveal().decode() for name, value in envfile.parse(raw).items()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b c  ", "b c"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A= # comment", ""),
        ("A=b#c", "b#c"),
        ("A=#b", "#b"),
        ("A='b # c' # d", "b # c"),
        ('A="b # c"\t# d', "b # c"),
        (r"A='b\n$c'", r"b\n$c"),
        (r'A="b\n\"\\\$x\t\q"', 'b\n"\\$x\t\\q'),
        ("A=$b ${c}", "$b ${c}"),
        ("A='two\nlines'", "two\nlines"),
        ('A="two\r\nlines"', "two\nlines"),
        ("A=b=c==", "b=c=="),
        ("A=it's", "it's"),
        ("A=é", "é"),
    ],
)
def test_a_line_means(line: str, value: str) -> None:
    """Quotes, comments, escapes and white space have the meaning that docker compose gives them."""
    assert revealed(line.encode()) == {"A": value}


def test_order_blank_lines_comments_and_a_byte_order_mark() -> None:
    """What a file from a Windows editor looks like."""
    raw = b"\xef\xbb\xbf# comment\r\n\r\nB=1\r\n  # more\r\nA='2'\r\n"
    assert list(revealed(raw).items()) == [("B", "1"), ("A", "2")]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"A=1\nhunter2\n", 2),
        (b"A=1\nhunter2/x==\n", 2),
        (b"hunter2 x=1\n", 1),
        (b"A='hunter2\nB=2\n", 1),
        (b"A='hunter2' hunter2\n", 1),
        (b"A=1\n\nA=hunter2\n", 3),
        (b"A=1\nB=\xffhunter2", 2),
        (b'A="two\nlines"\nhunter2', 3),
    ],
)
def test_an_error_names_the_line_and_nothing_of_it(raw: bytes, line: int) -> None:
    """Any piece of a broken line may be a piece of a secret."""
    with pytest.raises(Malformed) as caught:
        envfile.parse(raw)
    assert caught.value.field == f"line {line}"
    assert "hunter2" not in str(caught.value)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True), st.text(), max_size=5))
def test_what_is_written_reads_back(values: dict[str, str]) -> None:
    """Any text value survives."""
    wanted = {name: value.replace("\0", "") for name, value in values.items()}
    written = envfile.write({name: Redacted(value.encode()) for name, value in wanted.items()})
    assert revealed(written.encode()) == wanted


@pytest.mark.parametrize(("name", "value"), [("tls.key", b"\xff"), ("A", b"a\0b"), ("1a", b""), ("-", b"")])
def test_what_no_variable_can_hold_is_refused(name: str, value: bytes) -> None:
    """Bytes that are not text, and names that are not those of variables."""
    with pytest.raises(Malformed, match="choose -o yaml"):
        envfile.write({name: Redacted(value)})
