"""Templates: what they can do, and all that they cannot."""

from collections.abc import Mapping

import pytest

from kmseal.errors import TemplateFailed
from kmseal.redacted import Redacted
from kmseal_operator.templates import render

VALUES = {"user": b"u", "pw": b'p"\n', "bin": b"\xff\x00", "with.dot": b"d", "empty": b""}


def rendered(text: str, values: Mapping[str, bytes] = VALUES) -> bytes:
    return render({"x": text}, {name: Redacted(value) for name, value in values.items()})["x"].reveal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", b"plain"),
        ("{{ values.user }}", b"u"),
        ('{{ values["with.dot"] }}', b"d"),
        ("{{ values.bin }}", b"\xff\x00"),
        ('{{ values["bin"] }}', b"\xff\x00"),
        ("a {{ values.user }} {{ values.pw | tojson }}\n", b'a u "p\\"\\n"\n'),
        ("{{ values.bin | b64encode }}", b"/wA="),
        ("{{ values.user | b64encode | b64decode }}", b"u"),
        ("{{ values.empty | default('none') }}", b"none"),
        ("{% if values.user == 'u' %}yes{% else %}no{% endif %}", b"yes"),
        ("{{ values.pw | trim | urlencode }}", b"p%22"),
        ("{{ values.user | upper }}", b"U"),
        ("{{ values.pw | indent(2) }}", b'p"\n  '),
    ],
)
def test_what_templates_can_do(text: str, expected: bytes) -> None:
    """Values by either form, a few filters, choosing; one value alone passes its bytes through."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in values %}{% endfor %}",
        "{% set a = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{{ values.user() }}",
        "{{ values.items() }}",
        "{{ values.__class__ }}",
        "{{ values.user.__class__ }}",
        "{{ ''.__class__ }}",
        "{{ 1 + 1 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ values.user ~ values.user }}",
        "{{ range(10) }}",
        "{{ self }}",
        "{{ values.user | format }}",
        "{{ values.user | attr('x') }}",
        "{{ values.user | center(1000000000) }}",
        "{{ values.user | indent(1000000000) }}",
        "{{ values.missing }}",
        "{{ values.bin | upper }}",
        "x{{ values.bin }}",
        "{{",
        "{{ values.user" + " | b64encode" * 300 + " }}",
    ],
)
def test_what_templates_cannot_do(text: str) -> None:
    """Everything else is refused with the field and the remedy, before or while it renders."""
    with pytest.raises(TemplateFailed) as caught:
        rendered(text)
    assert caught.value.field == "spec.target.data.x"


def test_growth_is_bounded() -> None:
    """Escaping what is escaped, and naming a long value often, end at the limit of a Secret."""
    with pytest.raises(TemplateFailed):
        rendered("{{ values.a" + " | tojson" * 19 + " }}", {"a": b'"' * 100_000})
    with pytest.raises(TemplateFailed):
        rendered("{{ values.a }}" * 300, {"a": b"x" * 100_000})
    with pytest.raises(TemplateFailed):
        rendered('{% if values.a | urlencode == "" %}{% endif %}' * 60, {"a": b"x" * 100_000})


def test_errors_do_not_quote_values() -> None:
    """No message holds a value, whichever way the rendering failed."""
    for text in ("{{ values.a | b64decode }}", "{{ values.a.b }}", "{{ values.a | indent(99) }}"):
        with pytest.raises(TemplateFailed) as caught:
            rendered(text, {"a": b"canary!"})
        assert "canary" not in str(caught.value)


def test_all_or_nothing() -> None:
    """One template that fails fails them all."""
    with pytest.raises(TemplateFailed):
        render({"good": "x", "bad": "{{ values.no }}"}, {})
