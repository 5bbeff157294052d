"""Templates over the values of one object: a small, bounded subset of Jinja2 in its sandbox.

Called while an object is opened. What a template may contain is an allow-list of syntax: text, values, constants, a few
filters, and choosing. There are no loops, calls, assignments or arithmetic, so that the work and the size of a
result are bounded by the template and the values; and there is nothing to name but the values. A template that is
nothing but one value passes its bytes through unchanged.
"""

import base64
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, cast
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kmseal.envelope import VALUES_BYTES_MAX, shorten
from kmseal.errors import TemplateFailed
from kmseal.redacted import Redacted
from kmseal.structure import member_path

ROOT: Final = "values"
_ALLOWED: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getitem,
    nodes.Getattr,
    nodes.Filter,
    nodes.If,
    nodes.CondExpr,
    nodes.Test,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
)
TEMPLATES_CHARACTERS_MAX: Final = 65_536
"""Of all templates of an object together: parsing takes time before anything else can be bounded."""
_BUDGET: Final = 4 * VALUES_BYTES_MAX
_PART: Final = 1024  # What compiling a part of a template costs, in bytes: some 0.1 ms.
_STEP: Final = 64  # What a filter or piece costs even if it is empty, in bytes.
_SPENT: ContextVar[list[int]] = ContextVar("spent")
# Others calculate: `divisibleby` formats a text, to any width.
_TESTS: Final = frozenset({"defined", "undefined"})
_NODES_MAX: Final = 1000  # Nothing can interrupt a rendering: its time is bounded by parts times values.
_DEPTH_MAX: Final = 32  # Compiling takes seconds for what is nested by the hundred.
_FOREIGN: Final = (
    TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    SyntaxError,
    MemoryError,
    ArithmeticError,
)
"""What Jinja2 raises for a template or a value that it cannot take."""
_REMEDY: Final = (
    'write {{ values["name"] }} or {{ values.name }}, with the filters b64encode, b64decode, tojson, urlencode, trim, '
    "indent, upper, lower and default, and {% if %}"
)


def render(templates: Mapping[str, str], values: Mapping[str, Redacted]) -> dict[str, Redacted]:
    """Renders every template, or raises TemplateFailed for the first that cannot be; never hands out a part."""
    _require_length(templates)
    token = _SPENT.set([0])
    try:
        rendered = {name: Redacted(_render(name, text, values)) for name, text in templates.items()}
    finally:
        _SPENT.reset(token)
    if sum(map(len, rendered.values())) > VALUES_BYTES_MAX:
        raise TemplateFailed("the rendered data is larger than a Secret can hold", field="spec.target.data")
    return rendered


def require_possible(templates: Mapping[str, str]) -> None:
    """Refuses templates that no values could make render; to be known before there are any. Raises TemplateFailed."""
    _require_length(templates)
    for name, text in templates.items():
        field = member_path("spec.target.data", name)
        try:
            _require_allowed(_ENVIRONMENT.parse(text), field)
        except _FOREIGN as error:
            raise _failure(field, error) from None


def _render(name: str, text: str, values: Mapping[str, Redacted]) -> bytes:
    field = member_path("spec.target.data", name)
    try:
        tree = _ENVIRONMENT.parse(text)
        parts = _require_allowed(tree, field)
        only = _only_value(tree)
        if only is not None and only in values:
            return values[only].reveal()
        _spend(_PART * parts)
        result, size = [], 0
        for piece in _ENVIRONMENT.from_string(tree).generate(
            {ROOT: {key: _text(value) for key, value in values.items()}}
        ):
            # The limit holds while rendering: a short template can name a long value many times.
            size += len(piece)
            _spend(len(piece))
            if size > VALUES_BYTES_MAX:
                raise TemplateFailed("renders to more than a Secret can hold", field=field, remedy="shorten it")
            result.append(piece)
        return "".join(result).encode()
    except TemplateFailed:
        raise
    except _FOREIGN as error:
        raise _failure(field, error) from None


def _require_length(templates: Mapping[str, str]) -> None:
    total = sum(map(len, templates.values()))
    if total > TEMPLATES_CHARACTERS_MAX:
        raise TemplateFailed(
            f"all templates together have {total} characters, and may have {TEMPLATES_CHARACTERS_MAX}",
            field="spec.target.data",
            remedy="shorten them, or split the object into several",
        )


def _require_allowed(tree: nodes.Template, field: str) -> int:
    """Returns the number of the tree's parts."""
    all_nodes, level = [], [cast(nodes.Node, tree)]
    for _ in range(_DEPTH_MAX):
        all_nodes += level
        level = [child for node in level for child in node.iter_child_nodes()]
    if level:
        raise TemplateFailed(f"is nested more than {_DEPTH_MAX} deep", field=field, remedy="split it into several")
    if len(all_nodes) > _NODES_MAX:
        raise TemplateFailed(f"has more than {_NODES_MAX} parts", field=field, remedy="split it into several")
    for node in all_nodes:
        if not isinstance(node, _ALLOWED):
            raise TemplateFailed(f"{type(node).__name__} is not possible here", field=field, remedy=_REMEDY)
        if isinstance(node, nodes.Name) and node.name != ROOT:
            raise TemplateFailed(f"there is nothing named {shorten(node.name)}", field=field, remedy=_REMEDY)
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise TemplateFailed(f"there is no filter {shorten(node.name)}", field=field, remedy=_REMEDY)
        if isinstance(node, nodes.Test) and node.name not in _TESTS:
            raise TemplateFailed(f"there is no test {shorten(node.name)}", field=field, remedy=_REMEDY)
    return len(all_nodes)


def _failure(field: str, error: Exception) -> TemplateFailed:
    # The exception's own text may quote the template's input: its class must do.
    return TemplateFailed(
        f"cannot be rendered ({type(error).__name__})",
        field=field,
        remedy=_REMEDY + "; name only values that exist",
    )


def _only_value(tree: nodes.Template) -> str | None:
    match tree.body:
        case [nodes.Output(nodes=[nodes.Getitem(node=nodes.Name(name="values"), arg=nodes.Const(value=str(name)))])]:
            return name
        case [nodes.Output(nodes=[nodes.Getattr(node=nodes.Name(name="values"), attr=str(name))])]:
            return name
    return None


def _spend(size: int) -> None:
    """Charges the one budget of all templates of an object, so that many small ones cannot hold up all others."""
    spent = _SPENT.get()
    spent[0] += size + _STEP
    if spent[0] > _BUDGET:
        raise TemplateFailed(
            "the templates are too much work together",
            field="spec.target.data",
            remedy="shorten them, or split the object into several",
        )


class _Binary(bytes):
    """A value that is not text: it may be passed through whole or go through b64encode, and nothing else."""

    def __str__(self) -> str:
        raise ValueError("not text")


def _text(value: Redacted) -> str | bytes:
    raw = value.reveal()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _Binary(raw)


def _b64encode(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _b64decode(value: str) -> str:
    return base64.b64decode(value, validate=True).decode()


def _indent(value: str, width: int = 2) -> str:
    if not 0 <= width <= 64:
        raise ValueError("width")
    return str(value).replace("\n", "\n" + " " * width)


def _default(value: Any, fallback: str = "") -> Any:
    return value or fallback


def _bounded(work: Callable[..., Any]) -> Callable[..., Any]:
    """Escaping an escaped text grows it each time: without a bound a chain of filters could fill the memory."""

    @wraps(work)
    def checked(*arguments: Any) -> Any:
        result = work(*arguments)
        _spend(len(result))
        if len(result) > VALUES_BYTES_MAX:
            raise ValueError("too long")
        return result

    return checked


_FILTERS: Final = {
    name: _bounded(work)
    for name, work in {
        "b64encode": _b64encode,
        "b64decode": _b64decode,
        "tojson": lambda value: json.dumps(str(value), ensure_ascii=False),
        "urlencode": lambda value: quote(str(value), safe=""),
        "trim": lambda value: str(value).strip(),
        "indent": _indent,
        "upper": lambda value: str(value).upper(),
        "lower": lambda value: str(value).lower(),
        "default": _default,
    }.items()
}


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """A full stop means an entry, never a Python attribute."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Entries of the values only."""
        if isinstance(obj, dict) and argument in obj:
            return obj[argument]
        return self.undefined(name="value")


_ENVIRONMENT: Final = _Environment(
    undefined=StrictUndefined,
    autoescape=False,  # The results are configuration files, not HTML.
    keep_trailing_newline=True,
    cache_size=0,  # Templates come from many tenants: what one has is not kept for another.
)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.filters.clear()
_ENVIRONMENT.filters.update(_FILTERS)
