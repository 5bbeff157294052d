"""Reading the broker's answers: only what has the broker's own form is believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal_agent.answer import read_answer
from kmseal_agent.errors import AgentError, Denied, Retryable, Terminal

GRANT: dict[str, Any] = {"expiresInSeconds": 600, "secrets": {"db": {"values": {"password": "c2VjcmV0"}}}}
words = st.sampled_from(["reason", "message", "retry", "wipe", "secrets", "expiresInSeconds", "db", "values"])
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(words, inner)
)


def read(status: int, body: object, *, after: str | None = None) -> Any:
    return read_answer(status, after, body if isinstance(body, bytes) else json.dumps(body).encode(), asked=["db"])


def refusal(status: int, **members: object) -> AgentError:
    body = {"reason": "Word", "message": "text", "retry": False, "wipe": False, **members}
    with pytest.raises(AgentError) as caught:
        read(status, body)
    return caught.value


def test_a_grant() -> None:
    """Values are decoded; members of later releases are ignored; the representation shows nothing."""
    grant = read(200, {**GRANT, "later": 1})
    assert (grant.lifetime, grant.secrets) == (600.0, {"db": {"password": b"secret"}})
    assert repr(grant) == "Grant(…)"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        {},
        {**GRANT, "expiresInSeconds": "600"},
        {**GRANT, "expiresInSeconds": True},
        {**GRANT, "expiresInSeconds": 0},
        {**GRANT, "expiresInSeconds": -1},
        {**GRANT, "expiresInSeconds": float("inf")},
        {**GRANT, "expiresInSeconds": float("nan")},
        {**GRANT, "secrets": []},
        {**GRANT, "secrets": {}},
        {**GRANT, "secrets": {"db": {"values": {}}, "more": {"values": {}}}},
        {**GRANT, "secrets": {"db": None}},
        {**GRANT, "secrets": {"db": {"values": {"password": "c2VjcmV0!"}}}},
        {**GRANT, "secrets": {"db": {"values": {"password": "c2VjcmV"}}}},
        {**GRANT, "secrets": {"db": {"values": {"password": "c2Vj\ncmV0"}}}},
        {**GRANT, "secrets": {"db": {"values": {"password": "ä"}}}},
        {**GRANT, "secrets": {"db": {"values": {"password": 7}}}},
    ],
)
def test_what_is_no_grant(body: object) -> None:
    """A grant that is incomplete or cannot be read is a fault, told without a word of it and without a cause."""
    with pytest.raises(Retryable) as caught:
        read(200, body)
    assert str(caught.value) == "the broker's grant cannot be read"
    assert caught.value.__suppress_context__


@given(jsons, st.integers(200, 599))
def test_any_json_is_answered_by_our_own_errors(body: object, status: int) -> None:
    """Whatever JSON comes with whatever status, it is a fault, not a crash, and never an order to remove values."""
    with pytest.raises(AgentError) as caught:
        read(status, body)
    assert not getattr(caught.value, "wipe", False)


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_wrong_input(status: int) -> None:
    """What is wrong with the object or the request is terminal, with the broker's reason."""
    error = refusal(status, reason="Unauthentic")
    assert isinstance(error, Terminal)
    assert (error.reason, error.exit_code) == ("Unauthentic", 3)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("wipe", [True, False])
def test_denials(status: int, wipe: bool) -> None:
    """A denial says itself whether the values must go."""
    error = refusal(status, wipe=wipe)
    assert isinstance(error, Denied)
    assert (error.wipe, error.exit_code) == (wipe, 4)


@pytest.mark.parametrize("status", [200 + 1, 302, 429, 500, 502, 503])
def test_faults_never_wipe(status: int) -> None:
    """A fault is retried even if it claims that the values must go."""
    assert isinstance(refusal(status, wipe=True), Retryable)


def test_the_broker_may_ask_for_a_retry() -> None:
    """A refusal that the broker itself expects to pass is a fault."""
    assert isinstance(refusal(403, retry=True), Retryable)


@pytest.mark.parametrize("members", [{"reason": "two words"}, {"reason": 1}, {"message": None}, {"reason": "lower"}])
def test_an_imitation(members: dict[str, object]) -> None:
    """An error that is not quite the broker's is not the broker's."""
    error = refusal(403, wipe=True, **members)
    assert isinstance(error, Retryable)
    assert error.reason == "UnexpectedAnswer"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("999999", 3600.0), ("-1", None), ("1.5", None), ("²", None), ("", None),
     (None, None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Retry-After is taken in whole seconds up to an hour; anything else is as if it were not there."""
    with pytest.raises(Retryable) as caught:
        read(503, b"", after=header)
    assert caught.value.retry_after == seconds
