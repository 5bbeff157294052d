"""Edits of wrappings in a file: the lines that must change do, and every other byte stays."""

import difflib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cli.documents import Edit, Spot, Stream
from kmseal.cli.splices import PlacedWrapping
from kmseal.errors import Malformed


def wrapping(key: str, version: str = "1", wrapped: str = "QUJD") -> dict[str, str]:
    return {"keyId": f"local:{key}", "keyVersionId": version, "algorithm": "LOCAL_AES_256_GCM", "wrapped": wrapped}


def placing(*placed: PlacedWrapping, data_key: str = "oldk2345") -> Edit:
    return Edit(wrappings={data_key: placed})


NASTY = """\
# Database of the shop. Owner: platform team.
apiVersion: kmseal.dev/v1alpha1   # odd spacing
kind:   "EncryptedSecret"
metadata: {namespace: prod,   name: db}
spec:
    dataKeys:
      # the first one
      -   sealedFor: prod/db
          wrappings:   # any one opens
              # Hangzhou
              -  wrapped:   QUJD   # tail
                 keyId: local:one
                 # since the audit
                 keyVersionId: "1"   # was 0
                 algorithm: 'LOCAL_AES_256_GCM'
              # Shanghai
              - keyId:    >-
                  local:two
                keyVersionId: '1'
                algorithm: LOCAL_AES_256_GCM
                wrapped: "QU\\
                  JD"

              # behind the wrappings
          id: oldk2345
      - {id: keep2345, sealedFor: prod/db, wrappings: [{keyId: local:one, keyVersionId: "1",
          algorithm: LOCAL_AES_256_GCM, wrapped: QUJD}]}
    encryptedData:
        # the password
        password: 'v1.oldk2345.AAAA'
---
data: {list: [1,
  2]}
"""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went and the lines that came."""
    lines = list(difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)))
    return [line[2:] for line in lines if line.startswith("- ")], [line[2:] for line in lines if line.startswith("+ ")]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_new_version_changes_two_lines(newline: str, mark: str) -> None:
    """The version and the wrapped bytes, in their quotes and before their comments."""
    text = mark + NASTY.replace("\n", newline)
    change = placing((0, wrapping("one", "2", "REVG")), (1, wrapping("two")))
    went, came = changed(text, Stream.parse(text.encode()).edit(0, change))
    assert went == [
        f"              -  wrapped:   QUJD   # tail{newline}",
        f'                 keyVersionId: "1"   # was 0{newline}',
    ]
    assert came == [
        f"              -  wrapped:   REVG   # tail{newline}",
        f'                 keyVersionId: "2"   # was 0{newline}',
    ]


def test_block_and_folded_texts_are_replaced_as_such() -> None:
    """What stands over two lines may become one; the neighbours stay."""
    change = placing((0, wrapping("one")), (1, wrapping("three", "1", "REVG")))
    went, came = changed(NASTY, Stream.parse(NASTY.encode()).edit(0, change))
    assert went == ["                  local:two\n", '                wrapped: "QU\\\n', '                  JD"\n']
    assert came == ["                  local:three\n", '                wrapped: "REVG"\n']


def test_a_wrapping_is_added_behind_the_last_and_laid_out_like_it() -> None:
    """No other line changes."""
    change = placing((0, wrapping("one")), (1, wrapping("two")), (None, wrapping("three", "1", "REVG")))
    went, came = changed(NASTY, Stream.parse(NASTY.encode()).edit(0, change))
    assert went == []
    assert came == [
        "              - keyId: local:three\n",
        '                keyVersionId: "1"\n',
        "                algorithm: LOCAL_AES_256_GCM\n",
        "                wrapped: REVG\n",
    ]


def test_a_wrapping_goes_with_its_lines() -> None:
    """Its own lines, and no comment that may be about another one."""
    went, came = changed(NASTY, Stream.parse(NASTY.encode()).edit(0, placing((1, wrapping("two")))))
    assert came == []
    assert went == [
        "              -  wrapped:   QUJD   # tail\n",
        "                 keyId: local:one\n",
        "                 # since the audit\n",
        '                 keyVersionId: "1"   # was 0\n',
        "                 algorithm: 'LOCAL_AES_256_GCM'\n",
    ]


def test_wrappings_change_come_and_go_in_one_edit() -> None:
    """The added one stands behind those that stay, also where the last one goes."""
    change = placing((0, wrapping("one", "2", "REVG")), (None, wrapping("three")))
    after = Stream.parse(Stream.parse(NASTY.encode()).edit(0, change).encode())
    found = after.values()[0][1]["spec"]["dataKeys"][0]["wrappings"]
    assert found == [wrapping("one", "2", "REVG"), wrapping("three")]
    assert "# behind the wrappings" in after.text


def test_flow_style_keeps_its_line_breaks() -> None:
    """As somebody wrote it to save lines."""
    change = placing((0, wrapping("one", "2", "REVG")), (None, wrapping("two")), data_key="keep2345")
    after = Stream.parse(NASTY.encode()).edit(0, change)
    assert (
        '[{keyId: local:one, keyVersionId: "2",\n          algorithm: LOCAL_AES_256_GCM, wrapped: REVG}, {\n' in after
    )
    assert Stream.parse(after.encode()).values()[0][1]["spec"]["dataKeys"][1]["wrappings"] == [
        wrapping("one", "2", "REVG"),
        wrapping("two"),
    ]


OBJECT = {
    "kind": "EncryptedSecret",
    "spec": {
        "dataKeys": [{"id": "oldk2345", "wrappings": [wrapping("one"), wrapping("two")]}],
        "encryptedData": {"password": "v1.oldk2345.A"},
    },
}


@pytest.mark.parametrize("layout", [{"indent": 2}, {"indent": "\t"}, {}, {"separators": (",", ":")}])
@pytest.mark.parametrize(
    "placed",
    [
        [(0, wrapping("one", "2", "REVG")), (1, wrapping("two", "2", "REVG"))],
        [(1, wrapping("two"))],
        [(0, wrapping("one"))],
        [(0, wrapping("one")), (1, wrapping("two")), (None, wrapping("three"))],
        [(0, wrapping("three", "7", "REVG")), (None, wrapping("four"))],
    ],
)
def test_json_stays_json_in_its_own_layout(layout: dict[str, Any], placed: list[PlacedWrapping]) -> None:
    """What Python's writer wrote looks afterwards as if it had written the new object."""
    text = json.dumps(OBJECT, **layout) + "\n"
    change = placing(*placed)
    assert Stream.parse(text.encode()).edit(0, change) == json.dumps(change.apply(OBJECT), **layout) + "\n"


def test_objects_of_a_list_are_edited_in_place() -> None:
    """A List in JSON, as kubectl get prints it; the other items stay."""
    other = {"kind": "EncryptedSecret", "spec": {"dataKeys": []}}
    text = json.dumps({"kind": "List", "items": [{"kind": "ConfigMap"}, OBJECT, other]}, indent=4)
    stream = Stream.parse(text.encode())
    assert [spot for spot, _ in stream.objects("EncryptedSecret")] == [Spot(0, 1), Spot(0, 2)]
    change = placing((0, wrapping("one", "2", "REVG")), (1, wrapping("two")))
    after = stream.edit_all({Spot(0, 1): change}).text
    wanted = {"kind": "List", "items": [{"kind": "ConfigMap"}, change.apply(OBJECT), other]}
    assert after == json.dumps(wanted, indent=4)


def test_several_objects_are_edited_at_once() -> None:
    """Each in its document; what stands between them stays."""
    text = f"{NASTY}---\n# third\n{NASTY}"
    change = placing((0, wrapping("one", "2", "REVG")), (1, wrapping("two")))
    went, came = changed(text, Stream.parse(text.encode()).edit_all({Spot(0): change, Spot(2): change}).text)
    assert (len(went), len(came)) == (4, 4)


@pytest.mark.parametrize(
    "text",
    [
        "x: &w [{keyId: local:one, keyVersionId: '1', algorithm: LOCAL_AES_256_GCM, wrapped: QUJD}]\n"
        "spec:\n  dataKeys:\n  - id: oldk2345\n    wrappings: *w\n  encryptedData: {a: v1.oldk2345.A}\n",
        "spec:\n  dataKeys:\n  - id: oldk2345\n    wrappings:\n    - &w {keyId: local:one, keyVersionId: '1', "
        "algorithm: LOCAL_AES_256_GCM, wrapped: QUJD}\n  - id: keep2345\n    wrappings: [*w]\n"
        "  encryptedData: {a: v1.oldk2345.A}\n",
    ],
)
def test_what_two_places_share_is_not_changed(text: str) -> None:
    """An edit of one would be an edit of both."""
    with pytest.raises(Malformed) as caught:
        Stream.parse(text.encode()).edit(0, placing((0, wrapping("one", "2", "REVG"))))
    assert caught.value.reason == "Uneditable"


def test_an_alias_of_a_single_text_is_written_out() -> None:
    """Somebody named the key once and refers to it: the reference that moves is replaced, the anchor stays."""
    text = (
        "x: &key local:one\nspec:\n  dataKeys:\n  - id: oldk2345\n    wrappings:\n    - keyId: *key\n"
        '      keyVersionId: "1"\n      algorithm: LOCAL_AES_256_GCM\n      wrapped: QUJD\n'
        "  encryptedData: {a: v1.oldk2345.A}\n"
    )
    after = Stream.parse(text.encode()).edit(0, placing((0, wrapping("two"))))
    assert after == text.replace("*key", "local:two")


def test_a_version_that_yaml_would_take_for_a_number_is_quoted() -> None:
    """Where the old one stood without quotes."""
    text = (
        "spec:\n  dataKeys:\n  - id: oldk2345\n    wrappings:\n    - keyId: local:one\n      keyVersionId: v-1\n"
        "      algorithm: LOCAL_AES_256_GCM\n      wrapped: QUJD\n  encryptedData: {a: v1.oldk2345.A}\n"
    )
    after = Stream.parse(text.encode()).edit(0, placing((0, wrapping("one", "12"))))
    assert after == text.replace("v-1", '"12"')


KEYS = st.lists(st.sampled_from([f"key{number}" for number in range(8)]), min_size=1, max_size=6, unique=True)


@given(old=KEYS, new=KEYS, data=st.data())
def test_any_rearrangement_means_what_was_asked_for(old: list[str], new: list[str], data: st.DataObject) -> None:
    """Over layouts, comments and quotes; lines of wrappings that stay are not touched."""
    indent, quote = " " * data.draw(st.integers(0, 4)), data.draw(st.sampled_from(["'", '"']))
    comment, newline = data.draw(st.sampled_from(["", "  # why"])), data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = ["spec:", "  dataKeys:", "  - id: oldk2345", "    wrappings:"]
    for key in old:
        lines += [f"    {indent}- keyId: {quote}local:{key}{quote}{comment}", f"      {indent}keyVersionId: '1'"]
        lines += [f"      {indent}algorithm: LOCAL_AES_256_GCM", f"      {indent}wrapped: QUJD{comment}"]
    text = newline.join([*lines, "  encryptedData:", "    a: v1.oldk2345.A", "# end", ""])
    kept = [key for key in old if key in new]
    placed: list[PlacedWrapping] = [(old.index(key), wrapping(key, "2")) for key in kept]
    placed += [(None, wrapping(key)) for key in new if key not in old]
    if not kept:
        placed[0] = (0, placed[0][1])
    change = placing(*placed)
    after = Stream.parse(text.encode()).edit(0, change)
    found = Stream.parse(after.encode()).values()[0][1]["spec"]["dataKeys"][0]["wrappings"]
    assert found == [item for _, item in placed]
    assert all(f"- keyId: {quote}local:{key}{quote}{comment}{newline}" in after for key in kept)
    assert after.endswith(newline.join(["  encryptedData:", "    a: v1.oldk2345.A", "# end", ""]))
