"""The env file: what is written is what the kubelet reads, and what cannot be expressed is refused by its name.

The reader here is written from the rules of the kubelet's own parser, apart from the writer.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kmseal_agent.envfile import env_text
from kmseal_agent.errors import Terminal

names = st.from_regex(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,20}", fullmatch=True)
pieces = st.sampled_from([b"'", b"\n", b"\r", b"\r\n", b"\0", b"\\", b'"', b"#", b"=", b"$HOME", b" ", b"\t", b"\xff"])
values = st.lists(pieces | st.text(max_size=5).map(str.encode) | st.binary(max_size=3), max_size=8).map(b"".join)


class Unreadable(Exception):
    """The kubelet would not start the container."""


def kubelet_reads(text: bytes, key: str) -> bytes:
    """One variable: the first of its name; empty where there is none."""
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    # The scanner takes lines of up to 64 KiB with their end, and drops a carriage return before it.
    position = 0

    def scan() -> bytes | None:
        nonlocal position
        if position == len(lines):
            return None
        line = lines[position]
        position += 1
        if len(line) + 1 > 64 * 1024:
            raise Unreadable("line too long")
        return line.removesuffix(b"\r")

    while (line := scan()) is not None:
        line = line.lstrip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        name, equals, rest = line.partition(b"=")
        if not equals or not name or name != name.rstrip(b" \t"):
            raise Unreadable("no assignment")
        if rest[:1] in {b" ", b"\t"}:
            if name == key.encode():
                return b""
            continue
        if not rest.startswith(b"'"):
            raise Unreadable("not quoted")
        rest = rest[1:]
        value = b""
        while b"'" not in rest:
            value += rest + b"\n"
            following = scan()
            if following is None:
                raise Unreadable("not closed")
            rest = following
        inside, _, after = rest.partition(b"'")
        if after.lstrip(b" \t")[:1] not in {b"", b"#"}:
            raise Unreadable("something after the quote")
        if name == key.encode():
            return value + inside
    return b""


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.dictionaries(names, values, min_size=1, max_size=4))
@example({"A": b"a\r\nb", "B": b"x"})
@example({"A": b"\n\n", "B": b"\r", "C": b"# no comment"})
def test_what_is_written_is_read(variables: dict[str, bytes]) -> None:
    """Either every variable is read by the kubelet exactly as it is, or one that could not be is refused by name."""
    try:
        text = env_text("db", variables)
    except Terminal as error:
        refused = error
    else:
        assert {name: kubelet_reads(text, name) for name in variables} == variables
        return
    assert "kmseal.dev/as: files" in str(refused)
    name = refused.field.removeprefix("db/")
    value = variables[name]
    # Refused for cause: written down all the same, it would be lost, changed, or no string for a process.
    try:
        survives = kubelet_reads(b"%s='%s'\n" % (name.encode(), value), name) == value != b""
    except Unreadable:
        survives = False
    assert not survives or b"\0" in value or not is_utf8(value)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("A", b"it's", "single quote"),
        ("A", b"", "empty"),
        ("A", b"a\0b", "NUL"),
        ("A", b"a\r\nb", "carriage return"),
        ("A", b"\xff\xfe", "UTF-8"),
        ("A", b"x" * (65_535 - 4) + b"y", "64 KiB"),
        ("A", b"first\n" + b"x" * 65_536 + b"\nlast", "64 KiB"),
        ("A", b"line\n" * 26_214, "128 KiB"),
        ("1A", b"x", "name"),
        ("", b"x", "name"),
        ("A B", b"x", "name"),
        ("A\n", b"x", "name"),
    ],
)
def test_the_refusal_says_why(name: str, value: bytes, word: str) -> None:
    """The refusal names the value and the obstacle, and shows nothing of the content."""
    with pytest.raises(Terminal) as caught:
        env_text("db", {name: value})
    assert (caught.value.reason, caught.value.field) == ("NotAVariable", f"db/{name}")
    assert word in caught.value.message


def test_the_longest_line() -> None:
    """A line that just fits the kubelet's buffer is written, and the kubelet reads it."""
    value = b"x" * (65_535 - len("A=''"))
    assert kubelet_reads(env_text("db", {"A": value}), "A") == value
    with pytest.raises(Unreadable):
        kubelet_reads(b"A='%sx'\n" % value, "A")


def test_the_order() -> None:
    """The file depends on the values alone, not on the order in which they came."""
    assert env_text("db", {"b": b"2", "a": b"1"}) == b"a='1'\nb='2'\n"
