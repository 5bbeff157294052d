"""What the agent writes, read by the rules of the kubelet: by a parser that shares nothing with the writer."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kmseal_agent.envfile import env_text
from kmseal_agent.errors import Terminal
from kmseal_dev.envfile import EnvFileError, find_variable

NAMES = st.from_regex(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,8}", fullmatch=True)
CONTENTS = st.text(max_size=60).map(str.encode) | st.text("ab'\"\r\n#= \\$", max_size=12).map(str.encode)


def written(values: dict[str, bytes]) -> bytes | Terminal:
    """The file, or the refusal."""
    try:
        return env_text("db", values)
    except Terminal as error:
        return error


@given(st.dictionaries(NAMES, CONTENTS, max_size=4))
@example({"A": b"\n#\n", "B": b"x"})
@example({"A": b"a\r", "B": b"\r"})
@example({"A": b"first\rsecond", "B": b"\n\n"})
@example({"A": b"a\r\nb"})
@example({"A": b"x" * 65_530})
def test_every_value_comes_back_or_is_refused(values: dict[str, bytes]) -> None:
    """The kubelet gives a container exactly the value, or the agent has said which one cannot be had."""
    content = written(values)
    if isinstance(content, Terminal):
        assert content.field.removeprefix("db/") in values
        return
    for name, value in values.items():
        assert find_variable(content, name).encode() == value


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"K='v'\n", "v"),
        (b"K='v'", "v"),
        (b"# a comment\n\nOTHER='x'\nK='v'\n", "v"),
        (b"K='two\nlines'\n", "two\nlines"),
        (b"K='$HOME \\n \"x\" # y'\n", '$HOME \\n "x" # y'),
        (b"K='first'\nK='second'\n", "first"),
        (b"K='v'\nnonsense\n", "v"),
        (b"OTHER='\nK=in quotes\n'\nK='v'\n", "v"),
    ],
)
def test_what_the_kubelet_reads(content: bytes, value: str) -> None:
    """As it was found by trying: literal between the quotes, the first of two wins, what is behind does not matter."""
    assert find_variable(content, "K") == value


@pytest.mark.parametrize(
    "content",
    [
        b"", b"K=v\n", b'K="v"\n', b"K ='v'\n", b"K='v\n", b"K=''\n", b"OTHER='x'\n", b"nonsense\nK='v'\n",
        b"A='" + b"x" * 65_536 + b"'\nK='v'\n",
    ],
)  # fmt: skip
def test_what_the_kubelet_refuses(content: bytes) -> None:
    """As it was found by trying: any other quoting, no value, a bad line before it, a line of 64 KiB."""
    with pytest.raises(EnvFileError):
        find_variable(content, "K")
