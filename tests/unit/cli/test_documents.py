"""Edits of a file: what was meant changes, and every other byte stays."""

import difflib
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cli.documents import Edit, Stream
from kmseal.cli.yamltext import Form, scalar
from kmseal.errors import Malformed

WRAPPING = {"keyId": "local:dev", "keyVersionId": "1", "algorithm": "LOCAL_AES_256_GCM", "wrapped": "QUJD"}
NEW_KEY = {"id": "newk2345", "sealedFor": "prod/db", "wrappings": [WRAPPING, WRAPPING | {"keyId": "local:two"}]}

BLOCK = """\
# Database of the shop. Owner: platform team.
apiVersion: kmseal.dev/v1alpha1   # odd spacing
kind:   "EncryptedSecret"
metadata: {namespace: prod,   name: db}
spec:
    scope: Strict

    dataKeys:
      # the first one
      -   id: oldk2345   # goes
          sealedFor: prod/db
          wrappings:
              -  keyId: local:dev
                 keyVersionId: "1"
                 algorithm: LOCAL_AES_256_GCM
                 wrapped: QUJD
      # the second one
      -   id: keep2345
          sealedFor: prod/db
          wrappings:
              -  keyId: local:dev
                 keyVersionId: '1'
                 algorithm: LOCAL_AES_256_GCM
                 wrapped: QUJD   # tail

      # behind the data keys
    encryptedData:
        # the password
        password: 'v1.oldk2345.AAAA'  # rotated weekly
        gone: v1.oldk2345.BBBB
        folded: >-   # header
          v1.keep2345.CCCC

        "quoted":   "v1.keep2345.DDDD"   # last

    # end of spec
    target: &target
        labels: {a:  b}
---
# another object
apiVersion: v1
kind: ConfigMap
data: {list: [1,
  2]}
"""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went and the lines that came."""
    lines = list(difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)))
    return [line[2:] for line in lines if line.startswith("- ")], [line[2:] for line in lines if line.startswith("+ ")]


def edit(text: str, change: Edit, index: int = 0) -> str:
    """The edited text."""
    return Stream.parse(text.encode()).edit(index, change)


def setting(**lines: str) -> Edit:
    """An edit that sets values under the new data key and drops the old one."""
    return Edit({name: f"v1.newk2345.{line}" for name, line in lines.items()}, NEW_KEY, (), ("oldk2345",))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_only_the_meant_lines_change(newline: str, mark: str) -> None:
    """Comments, quotes, indentation, order, line ends and the other document stay byte for byte."""
    text = mark + BLOCK.replace("\n", newline)
    change = Edit({"password": "v1.newk2345.NEW=", "extra": "v1.newk2345.MORE"}, NEW_KEY, ("gone",), ("oldk2345",))
    went, came = changed(text, edit(text, change))
    assert went == [
        f"{line}{newline}"
        for line in (
            "      -   id: oldk2345   # goes",
            "          sealedFor: prod/db",
            "          wrappings:",
            "              -  keyId: local:dev",
            '                 keyVersionId: "1"',
            "                 algorithm: LOCAL_AES_256_GCM",
            "                 wrapped: QUJD",
            "        password: 'v1.oldk2345.AAAA'  # rotated weekly",
            "        gone: v1.oldk2345.BBBB",
        )
    ]
    assert came == [
        f"{line}{newline}"
        for line in (
            "      -   id: newk2345",
            "          sealedFor: prod/db",
            "          wrappings:",
            "              -  keyId: local:dev",
            '                 keyVersionId: "1"',
            "                 algorithm: LOCAL_AES_256_GCM",
            "                 wrapped: QUJD",
            "              -  keyId: local:two",
            '                 keyVersionId: "1"',
            "                 algorithm: LOCAL_AES_256_GCM",
            "                 wrapped: QUJD",
            "        password: 'v1.newk2345.NEW='  # rotated weekly",
            '        "extra":   "v1.newk2345.MORE"',
        )
    ]


def test_a_folded_value_keeps_its_header_and_its_comment() -> None:
    """Only the line below the header is the value's."""
    after = edit(BLOCK, Edit({"folded": "v1.newk2345.X"}, NEW_KEY, (), ()))
    assert "        folded: >-   # header\n          v1.newk2345.X\n\n" in after


def test_a_file_without_a_line_end_at_its_end_can_be_edited() -> None:
    """The new line is put in front of the end of the file."""
    text = "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: v1.oldk2345.A"
    assert edit(text, setting(b="B")).endswith("    a: v1.oldk2345.A\n    b: v1.newk2345.B")


OBJECT = {
    "kind": "EncryptedSecret",
    "spec": {
        "dataKeys": [
            {"id": "oldk2345", "sealedFor": "prod/db", "wrappings": [WRAPPING]},
            {"id": "keep2345", "sealedFor": "prod/db", "wrappings": [WRAPPING]},
        ],
        "encryptedData": {"password": "v1.oldk2345.A", "gone": "v1.oldk2345.B", "kept": "v1.keep2345.C"},
        "suspend": False,
    },
}


@pytest.mark.parametrize(
    "layout",
    [
        {"indent": 2},
        {"indent": 4},
        {"indent": "\t"},
        {},
        {"separators": (",", ":")},
        {"indent": 2, "ensure_ascii": True},
    ],
)
@pytest.mark.parametrize("dropped", [("gone",), ("password",), ("kept",), ("gone", "kept"), ()])
def test_json_stays_json_in_its_own_layout(layout: dict[str, object], dropped: tuple[str, ...]) -> None:
    """What Python's writer wrote looks afterwards as if it had written the new object."""
    text = json.dumps(OBJECT, **layout) + "\n"  # type: ignore[arg-type]  # The layouts above.
    change = Edit({"new": "v1.newk2345.N"}, NEW_KEY, dropped, ("oldk2345",))
    assert Stream.parse(text.encode()).form is Form.JSON
    assert edit(text, change) == json.dumps(change.apply(OBJECT), **layout) + "\n"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "spec: {dataKeys: [{id: oldk2345}], encryptedData: {a: v1.oldk2345.A}}\n",
        "spec: {dataKeys: [{id: oldk2345, }, ], encryptedData: {a: v1.oldk2345.A, }}\n",
        "spec:\n  dataKeys: [\n    {id: oldk2345} # one\n  ]\n  encryptedData: {\n    a: v1.oldk2345.A\n  }\n",
        "spec:\n  encryptedData: {'a' : 'v1.oldk2345.A'}\n  dataKeys:\n  -\n    id: oldk2345\n",
        'spec:\n  dataKeys:\n  - {id: oldk2345, wrappings: []}\n  encryptedData: {"a":"v1.oldk2345.A"}\n',
        "spec:\n  dataKeys:\n  - # first\n    id: oldk2345\n  encryptedData:\n    a: v1.oldk2345.A\n",
        "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: !!str v1.oldk2345.A\n",
        "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: &anchor v1.oldk2345.A\n",
        "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a:\n      v1.oldk2345.A\n",
        "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: |-\n      v1.oldk2345.A\n",
        "x: &line v1.oldk2345.A\nspec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: *line\n",
    ],
)
def test_any_layout_is_edited_as_meant(text: str) -> None:
    """The edited text means the edited object, whatever the layout."""
    change = setting(a="NEW", b="MORE")
    before, after = Stream.parse(text.encode()), Stream.parse(edit(text, change).encode())
    assert after.values()[0][1] == change.apply(before.values()[0][1])


@pytest.mark.parametrize(
    "text",
    [
        "spec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: &x v1.oldk2345.A\n    b: *x\n",
        "x: &x {a: v1.oldk2345.A}\nspec:\n  dataKeys:\n  - id: oldk2345\n  encryptedData: *x\n",
        "x: &x [{id: oldk2345}]\nspec:\n  dataKeys: *x\n  encryptedData:\n    a: v1.oldk2345.A\n",
        "x: &x\n  dataKeys:\n  - id: oldk2345\n  encryptedData:\n    a: v1.oldk2345.A\nspec: *x\n",
    ],
)
def test_what_cannot_be_changed_alone_is_refused(text: str) -> None:
    """Text that two places share, and forms that nobody writes by hand."""
    with pytest.raises(Malformed) as caught:
        edit(text, setting(a="NEW"))
    assert caught.value.reason == "Uneditable"


def test_a_value_that_a_merge_brings_is_overridden_here() -> None:
    """The merged object stays as it is; the own member wins."""
    text = (
        "x: &x {a: v1.oldk2345.A}\nspec:\n  dataKeys:\n  - id: oldk2345\n"
        "  encryptedData:\n    <<: *x\n    b: v1.oldk2345.B\n"
    )
    after = edit(text, Edit({"a": "v1.newk2345.N"}, NEW_KEY, (), ()))
    assert after.startswith("x: &x {a: v1.oldk2345.A}\n")
    assert Stream.parse(after.encode()).values()[0][1]["spec"]["encryptedData"]["a"] == "v1.newk2345.N"


NAMES = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True).filter(lambda name: scalar(name) == name)


@dataclass(frozen=True, slots=True)
class Layout:
    """How somebody writes YAML."""

    comment: str
    indent: int
    list_indent: int
    quote: str
    newline: str
    tail: str


LAYOUTS = st.builds(
    Layout,
    comment=st.sampled_from(["", "  # why", " #"]),
    indent=st.integers(1, 6),
    list_indent=st.integers(0, 5),
    quote=st.sampled_from(["", "'", '"']),
    newline=st.sampled_from(["\n", "\r\n"]),
    tail=st.sampled_from(["", "\n", "\n# end\n", "\n---\nkind: Other\n"]),
)


@given(
    names=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    data=st.data(),
    layout=LAYOUTS,
)
def test_any_block_layout_keeps_every_line_that_is_not_meant(
    names: list[str], data: st.DataObject, layout: Layout
) -> None:
    """Set, add and remove in one edit, over indentation, quotes, comments and line ends."""
    pad, newline, tail = " " * layout.indent, layout.newline, layout.tail.replace("\n", layout.newline)
    lines = ["spec:", f"{pad}dataKeys:", f"{pad}{' ' * layout.list_indent}- id: oldk2345", f"{pad}encryptedData:"]
    value_lines = {
        name: f"{pad * 2}{name}: {layout.quote}v1.oldk2345.A{layout.quote}{layout.comment}" for name in names
    }
    text = newline.join([*lines, *value_lines.values()]) + tail
    setting_names = data.draw(st.lists(st.sampled_from(names), unique=True))
    dropping = [name for name in data.draw(st.lists(st.sampled_from(names), unique=True)) if name not in setting_names]
    dropping = dropping[: len(names) - 1]
    change = Edit(dict.fromkeys(setting_names, "v1.newk2345.N"), NEW_KEY, dropping, ())
    after = edit(text, change)
    kept = [line for name, line in value_lines.items() if name not in (*setting_names, *dropping)]
    after_lines = after.split(newline)
    assert [line for line in after_lines if line in kept] == kept
    for name in setting_names:
        assert value_lines[name].replace("v1.oldk2345.A", "v1.newk2345.N") in after_lines
    if not dropping or dropping[-1] != names[-1]:
        assert after.endswith(tail)


def test_documents_are_replaced_between_others() -> None:
    """Separators, comments and other documents stay."""
    text = "# head\na: 1\n---\nkind: Secret\n---  # three\nc:   3\n...\nd: 4\n"
    stream = Stream.parse(text.encode())
    assert stream.replace({1: "new: 2\n"}) == "# head\na: 1\n---\nnew: 2\n---  # three\nc:   3\n...\nd: 4\n"
    assert stream.replace({0: "x: 1\n"}) == "x: 1\n---\nkind: Secret\n---  # three\nc:   3\n...\nd: 4\n"
    assert stream.replace({2: "x: 3\n"}) == "# head\na: 1\n---\nkind: Secret\n---\nx: 3\n---\nd: 4\n"
    assert stream.replace({}) == text


def test_what_is_not_utf_8_is_refused_with_its_place() -> None:
    """The byte is named, its surroundings are not shown."""
    with pytest.raises(Malformed, match=r"not UTF-8 text \(byte 11\)"):
        Stream.parse(b"password: \xff\xfe")
