"""What we write is read as the same by kubectl's YAML 1.1 and by YAML 1.2."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kmseal.cli.yamltext import Form, render, render_all, scalar

TEXTS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[-+.0-9eExXoObB_:]{1,10}", fullmatch=True),
    st.sampled_from(["yes", "n", "null", "~", "1_000", "0o17", "12:30:45", "2001-01-01", "1e5", ".inf", "=", "<<"]),
)


@given(name=TEXTS.filter(bool), text=TEXTS)
def test_every_text_reads_back_as_itself_by_both_versions_of_yaml(name: str, text: str) -> None:
    """A text never turns into a number, a boolean, a date or null."""
    rendered = render({name: text, "list": [{"inner": text}, text]}, Form.YAML)
    expected = {name: text, "list": [{"inner": text}, text]}
    assert yaml.safe_load(rendered) == expected
    assert YAML(typ="safe", pure=True).load(rendered) == expected


@pytest.mark.parametrize(
    "text",
    [
        "acs:kms:cn-hangzhou:1234567890123456:key/key-hzz62f1cb66fa42qo1234",
        "local:dev",
        "v1.k4q7x2mz.p3Vw8J1c+/==",
        "prod/db",
        "prod/*",
        "key-hzz62f1cb66fa42qo1234-20v29b1234",
    ],
)
def test_what_the_format_consists_of_needs_no_quotes(text: str) -> None:
    """Key ids, value lines and places stand plain, also where they are put into files of others."""
    assert scalar(text) == text
    assert yaml.safe_load(f"{{a: [{text}, {text}]}}") == {"a": [text, text]}


@pytest.mark.parametrize("text", ["23456722", "2e234567", "1_2", "0x12", "*/*", "-1", "yes", "", "a: b", "a:"])
def test_what_yaml_would_misread_is_quoted(text: str) -> None:
    """A random data key id that looks like a number stays a text."""
    assert scalar(text) == json.dumps(text)


def test_several_objects_are_documents_in_yaml_and_a_list_in_json() -> None:
    """As kubectl does it."""
    objects = [{"a": True}, {"b": 1, "c": {}}]
    assert list(yaml.safe_load_all(render_all(objects, Form.YAML))) == objects
    assert json.loads(render_all(objects, Form.JSON)) == {"apiVersion": "v1", "kind": "List", "items": objects}
