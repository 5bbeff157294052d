"""Templates: what may be written, what is refused, and that nothing is told about the values."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cluster.templates import TEMPLATES_CHARACTERS_MAX, render, require_possible
from kmseal.envelope import VALUES_BYTES_MAX
from kmseal.errors import TemplateFailed
from kmseal.redacted import Redacted

VALUES = {
    "user": b"app",
    "password": b"s3cr3t-\xc3\xa9 \n",
    "tls.key": b"line1\nline2\n",
    "bin": b"\xff\x00\xfe",
    "empty": b"",
    "b64": b"aGk=",
}


def rendered(template: str, **more: bytes) -> bytes:
    values = {name: Redacted(value) for name, value in {**VALUES, **more}.items()}
    return render({"out": template}, values)["out"].reveal()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain text\n", b"plain text\n"),
        ("postgres://{{ values.user }}:{{ values['empty'] }}@db", b"postgres://app:@db"),
        ('{{ values["tls.key"] }}x', b"line1\nline2\nx"),
        ("{{ values.user | upper }}{{ values.user | upper | lower }}", b"APPapp"),
        ("{{ values.password | urlencode }}", b"s3cr3t-%C3%A9%20%0A"),
        ("{{ values.password | tojson }}", '"s3cr3t-é \\n"'.encode()),
        ("[{{ values.password | trim }}]", "[s3cr3t-é]".encode()),
        ('{{ values["tls.key"] | indent(4) }}', b"line1\n    line2\n    "),
        ("{{ values.user | b64encode }}", b"YXBw"),
        ("{{ values.b64 | b64decode }}", b"hi"),
        ("{{ values.empty | default('none') }}", b"none"),
        ("{% if values.user == 'app' and not values.empty %}yes{% else %}no{% endif %}", b"yes"),
        ("{{ 'a' if values.empty or values.user != 'app' else 'b' }}", b"b"),
        ("{{ values.user | b64encode | b64decode }}", b"app"),
        ("{{ values.password | trim | urlencode }}", b"s3cr3t-%C3%A9"),
        ("{% if values.absent is defined %}yes{% elif values.user is defined %}no{% endif %}", b"no"),
        ("{% raw %}{{ values.user }}{% endraw %}", b"{{ values.user }}"),
        ("{# a remark #}x", b"x"),
    ],
)
def test_the_allowed_subset_renders(template: str, expected: bytes) -> None:
    """Text, values, every filter, conditions, raw text and remarks."""
    assert rendered(template) == expected


@given(value=st.binary(max_size=200))
def test_a_template_of_one_value_passes_its_bytes_through(value: bytes) -> None:
    """Any bytes, text or not, arrive unchanged in either spelling; base64 carries them too."""
    assert rendered("{{ values.v }}", v=value) == value
    assert rendered('{{ values["v"] }}', v=value) == value
    assert rendered("{{ values.v | b64encode }}", v=value) == base64.b64encode(value)


@pytest.mark.parametrize(
    "template",
    [
        "x{{ values.bin }}",
        "{{ values.bin | upper }}",
        "{{ values.bin | tojson }}",
        "{{ values.bin | urlencode }}",
        "{{ values.bin | trim }}",
        "{{ values.bin | indent }}",
        "{{ values.bin | b64decode }}",
        "{{ values.bin | default('x') }}",
    ],
)
def test_a_binary_value_goes_through_b64encode_only(template: str) -> None:
    """What is not text is never turned into text by guessing."""
    with pytest.raises(TemplateFailed):
        rendered(template)


@pytest.mark.parametrize(
    "template",
    [
        "{% for v in values %}{{ v }}{% endfor %}",
        "{% for v in values recursive %}{{ loop(v) }}{% endfor %}",
        "{% set x = 1 %}",
        "{% set x %}y{% endset %}",
        "{% macro m() %}{% endmacro %}",
        "{% call m() %}{% endcall %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% with x = 1 %}{% endwith %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape true %}x{% endautoescape %}",
        "{% do values.clear() %}",
        "{{ values.user.upper() }}",
        "{{ values.items() }}",
        "{{ values() }}",
        "{{ range(10) }}",
        "{{ 1 + 1 }}",
        "{{ 10 ** 10 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 7 % 2 }}",
        "{{ 7 // 2 }}",
        "{{ -1 }}",
        "{{ 'a' ~ values.user }}",
        "{{ values.user[1:2] }}",
        "{{ [1, 2] }}",
        "{{ (1, 2) }}",
        "{{ {'a': 1} }}",
        "{{ other }}",
        "{{ self }}",
        "{{ values.__class__ }}",
        "{{ values['__class__'] }}",
        "{{ values.user.__class__ }}",
        "{{ values.items }}",
        "{{ values.user[0] }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ values.user | map('upper') }}",
        "{{ values.user | attr('__class__') }}",
        "{{ values.user | format }}",
        "{{ values.user | center(1000000000) }}",
        "{{ values.user | indent(width=4) }}",
        "{{ values.user | indent(65) }}",
        "{{ values.user | indent(1000000000) }}",
        "{{ values.user | indent(-1) }}",
        "{{ values.user | b64decode }}",
        "{{ values.absent }}",
        "{{ values.absent | default('x') }}",
        "{% if values.user is callable %}{% endif %}",
        "{% if 5 is divisibleby 0 %}{% endif %}",
        "{% if '%999999999d' is divisibleby 1 %}{% endif %}",
        "{{ values.user",
        "{% if %}",
        '{{ "\\ud800" }}',
        "{{ " + "not " * 300 + "values.user }}",
        "{{ values.user" + " | upper" * 300 + " }}",
        "{{ " + "(" * 5000 + "values.user" + ")" * 5000 + " }}",
        "{% if values.user %}" * 150 + "{% endif %}" * 150,
    ],
    ids=lambda template: template[:40],
)
def test_everything_else_is_refused(template: str) -> None:
    """Loops, assignments, calls, arithmetic, attributes, and what would only overload the renderer."""
    with pytest.raises(TemplateFailed) as caught:
        rendered(template)
    assert caught.value.field == "spec.target.data.out"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "template",
    [
        "{{ values.password | b64decode }}",
        "{{ values.password.nothing }}",
        "{{ values[values.password] }}",
        "{% if values.password < 1 %}{% endif %}",
        "x{{ values.bin }}",
        "{{ values.user | indent(values.password) }}",
    ],
)
def test_an_error_never_tells_a_value(template: str) -> None:
    """Neither the message nor the chain of exceptions shows what the values are."""
    with pytest.raises(TemplateFailed) as caught:
        rendered(template)
    shown = f"{caught.value} {caught.value!r}"
    for secret in ("s3cr3t", "\\xff", "�"):
        assert secret not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "template",
    [
        "{{ values.big }}" * 3,
        "{{ values.big | tojson | tojson | tojson }}",
        "{{ values.big" + " | b64encode" * 12 + " }}",
        '{% if values.big | urlencode == "" %}{% endif %}' * 60,
        "x" * (VALUES_BYTES_MAX + 1),
    ],
    ids=["many times", "escaped", "encoded", "compared only", "text"],
)
def test_a_result_is_not_larger_than_a_secret_can_be(template: str) -> None:
    """The bound holds however a result grows."""
    with pytest.raises(TemplateFailed):
        rendered(template, big=b'"' * (VALUES_BYTES_MAX // 2))


def test_all_results_together_are_bounded() -> None:
    """Several templates that each fit are refused when they do not fit together, and none is handed out."""
    values = {"big": Redacted(b"x" * (VALUES_BYTES_MAX // 2))}
    assert set(render({"a": "{{ values.big }}"}, values)) == {"a"}
    with pytest.raises(TemplateFailed, match="larger than a Secret"):
        render(dict.fromkeys("abc", "{{ values.big }}"), values)


def test_one_template_that_fails_fails_them_all() -> None:
    """A Secret never holds a part of what its object says."""
    with pytest.raises(TemplateFailed):
        render({"good": "x", "bad": "{{ values.no }}"}, {})


def test_a_template_with_too_many_parts_is_refused() -> None:
    """The number of parts is bounded even where each is small."""
    with pytest.raises(TemplateFailed, match="parts"):
        rendered("{{ values.user }}" * 1000)


@pytest.mark.parametrize("piece", [" | upper", " | trim"])
def test_nesting_is_bounded_before_anything_is_compiled(piece: str) -> None:
    """What a person writes is shallow; what is deep would stall all objects while it is compiled."""
    assert rendered("x{{ values.empty" + piece * 20 + " }}") == b"x"
    with pytest.raises(TemplateFailed, match="nested more than"):
        rendered("x{{ values.empty" + piece * 40 + " }}")


def test_a_template_that_no_values_could_render_is_known_without_any() -> None:
    """What only some values make fail is left to rendering."""
    require_possible({"a": "{{ values.missing | b64decode }}{% if values.x is defined %}y{% endif %}", "b": "plain"})
    deep = "{% if values.a %}" * 500 + "{% endif %}" * 500
    for template in ("{{ values.a", "{{ values.a | hash }}", "{{ cycler }}", "{{ values.a() }}", deep):
        with pytest.raises(TemplateFailed) as caught:
            require_possible({"good": "plain", "bad": template})
        assert caught.value.field == "spec.target.data.bad"


def test_all_templates_together_are_bounded_before_they_are_parsed() -> None:
    """Parsing alone takes a second for a hundred kilobytes; nothing is looked at that is longer."""
    half = TEMPLATES_CHARACTERS_MAX // 2
    assert set(render({"a": "x" * half, "b": "x" * half}, {})) == {"a", "b"}
    require_possible({"a": "x" * half, "b": "x" * half})
    for templates in ({"a": "x" * half, "b": "{{" + "x" * half}, {"a": "{{" * half + "x"}):
        for look in (require_possible, lambda templates: render(templates, {})):
            with pytest.raises(TemplateFailed, match="65536") as caught:
                look(templates)
            assert caught.value.field == "spec.target.data"
            assert caught.value.remedy


def test_compiling_is_work_as_well() -> None:
    """Many templates that each pass are refused when all their parts together would take too long to compile."""
    pieces = "{%if 1%}{%endif%}" * 400
    assert len(render(dict.fromkeys("abc", pieces), {})) == 3
    with pytest.raises(TemplateFailed, match="too much work"):
        render(dict.fromkeys("abcdefgh", pieces), {})
