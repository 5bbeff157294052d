"""What a pod lists, and how much one answer may hold."""

import json

import pytest

from kmseal.redacted import Redacted
from kmseal_agent.broker import LONGEST_ANSWER
from kmseal_webhook.broker import EXPIRES_IN_SECONDS
from kmseal_webhook.grants import ANSWER_BYTES_MAX, Values, require_listed, require_size
from kmseal_webhook.refusals import Reason, Refusal


def test_what_is_listed_comes_in_the_order_of_the_request() -> None:
    """With the pod's templates."""
    annotations = {"kmseal.dev/inject": "a, b, c", "kmseal.dev/template.c": "x", "kmseal.dev/file.c": "f"}
    listed = require_listed(annotations, ["c", "a"])
    assert [(secret.name, secret.template, secret.file) for secret in listed] == [("c", "x", "f"), ("a", None, "a")]


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({}, Reason.NOT_LISTED),
        ({"kmseal.dev/injected": "0123456789abcdef"}, Reason.NOT_LISTED),
        ({"kmseal.dev/path": "/run"}, Reason.NOT_LISTED),
        ({"kmseal.dev/inject": "a"}, Reason.NOT_LISTED),
        ({"kmseal.dev/inject": "a, db-x"}, Reason.NOT_LISTED),
        ({"kmseal.dev/inject": ""}, Reason.INVALID),
        ({"kmseal.dev/inject": "a, db", "kmseal.dev/unknown": "x"}, Reason.INVALID),
    ],
)
def test_what_is_not_listed_is_refused(annotations: dict[str, str], reason: Reason) -> None:
    """Every name must be there, as a whole."""
    with pytest.raises(Refusal) as caught:
        require_listed(annotations, ["a", "db"])
    assert caught.value.reason is reason


def answer_bytes(granted: dict[str, Values]) -> int:
    """As long as the broker's answer is, with the longest base64 that the values can have."""
    secrets = {
        name: {"values": {value: "x" * (4 * ((len(secret) + 2) // 3)) for value, secret in values.items()}}
        for name, values in granted.items()
    }
    return len(json.dumps({"expiresInSeconds": EXPIRES_IN_SECONDS, "secrets": secrets}))


@pytest.mark.parametrize("value_bytes", [0, 1, 100, 100_000])
def test_what_is_granted_is_what_an_agent_takes(value_bytes: int) -> None:
    """However small or large the values are: the last size that is granted fits, with its names and all of its JSON."""
    assert ANSWER_BYTES_MAX == LONGEST_ANSWER
    values = {f"{number:0>50}": Redacted(b"x" * value_bytes) for number in range(90_000 if value_bytes < 1000 else 70)}
    names = list(values)
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            require_size({"db": {name: values[name] for name in names[:middle]}})
            low = middle
        except Refusal:
            high = middle
    with pytest.raises(Refusal) as caught:
        require_size({"db": {name: values[name] for name in names[: low + 1]}})
    assert (caught.value.reason, caught.value.status, caught.value.wipe) == (Reason.GRANT_TOO_LARGE, 409, False)
    granted: dict[str, Values] = {"db": {name: values[name] for name in names[:low]}}
    assert answer_bytes(granted) <= LONGEST_ANSWER
