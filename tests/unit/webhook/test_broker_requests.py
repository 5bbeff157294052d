"""The broker's requests: one form, read strictly, and nothing of them quoted."""

import json

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from kmseal_webhook.refusals import Reason, Refusal
from kmseal_webhook.requests import SECRETS_MAX, parse_names, read_token

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer aa.bb_-.cc"}


def refused(body: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        parse_names(body)
    assert (caught.value.reason, caught.value.status) == (Reason.MALFORMED, 400)
    return caught.value.message


def test_names_keep_their_order() -> None:
    """As they were asked for, so will they be answered."""
    assert parse_names(b' {"secrets": ["db", "a.b-c", "cache"]}\n') == ("db", "a.b-c", "cache")
    most = [f"n{index}" for index in range(SECRETS_MAX)]
    assert parse_names(json.dumps({"secrets": most}).encode()) == tuple(most)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"1", b'"db"', b'["db"]', b'{"secret": ["db"]}', b'{"secrets": "db"}',
        b'{"secrets": {}}', b'{"secrets": []}', b'{"secrets": [1]}', b'{"secrets": [null]}', b'{"secrets": [["db"]]}',
        b'{"secrets": ["db", "db"]}', b'{"secrets": ["db"], "namespace": "other"}',
        b'{"secrets": ["x"], "secrets": ["db"]}', b'{"secrets": ["db"]} x', b'{"secrets": ["db"],}',
        b'{"secrets": ["\xff"]}', b'\xef\xbb\xbf{"secrets": ["db"]}', '{"secrets": ["db"]}'.encode("utf-16"),
        b"[" * 60_000, b'{"secrets": [NaN]}',
        json.dumps({"secrets": [f"n{index}" for index in range(SECRETS_MAX + 1)]}).encode(),
    ],
)  # fmt: skip
def test_what_is_not_the_one_form_is_refused(body: bytes) -> None:
    """No other members, nothing twice, no other encoding, and no recursion that ends the process."""
    refused(body)


@pytest.mark.parametrize("name", ["other/db", "..", "", "Db", "db\n", "db\x00", "ⅾb", "db.", "a" * 254, "%2e", "db?x"])
def test_what_cannot_be_a_name_is_refused_and_not_quoted(name: str) -> None:
    """It would become part of a path."""
    message = refused(json.dumps({"secrets": ["db", name]}).encode())
    assert message == "secrets holds what cannot be the name of an EncryptedSecret"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_names(body: bytes) -> None:
    """There is no third way out."""
    outcome: tuple[str, ...] | Reason
    try:
        outcome = parse_names(body)
    except Refusal as refusal:
        outcome = refusal.reason
    assert outcome is Reason.MALFORMED or 1 <= len(outcome) <= SECRETS_MAX


def test_the_token_is_taken_and_not_shown() -> None:
    """What travels on is redacted."""
    token = read_token(make_mocked_request("POST", "/v1/decrypt", headers=HEADERS))
    assert token.reveal() == b"aa.bb_-.cc"
    assert "aa" not in repr(token)


@pytest.mark.parametrize(
    ("method", "path", "changes", "reason"),
    [
        ("GET", "/v1/decrypt", {}, Reason.METHOD_NOT_ALLOWED),
        ("PUT", "/v1/decrypt", {}, Reason.METHOD_NOT_ALLOWED),
        ("POST", "/v1/decrypt?token=aa.bb.cc", {}, Reason.MALFORMED),
        ("POST", "/v1/decrypt", {"Content-Type": "text/plain"}, Reason.UNSUPPORTED_MEDIA_TYPE),
        ("POST", "/v1/decrypt", {"Content-Type": "application/jsonx"}, Reason.UNSUPPORTED_MEDIA_TYPE),
        ("POST", "/v1/decrypt", {"Content-Type": ""}, Reason.UNSUPPORTED_MEDIA_TYPE),
        ("POST", "/v1/decrypt", {"Content-Encoding": "gzip"}, Reason.UNSUPPORTED_MEDIA_TYPE),
        ("POST", "/v1/decrypt", {"Content-Length": "65537"}, Reason.TOO_LARGE),
        ("POST", "/v1/decrypt", {"Authorization": "Bearer aa.bb"}, Reason.BAD_TOKEN),
        ("POST", "/v1/decrypt", {"Authorization": "Bearer aa.bb.cc\u0661"}, Reason.BAD_TOKEN),
        ("POST", "/v1/decrypt", {"Authorization": "Bearer " + "a" * 8000 + ".b.c"}, Reason.BAD_TOKEN),
    ],
)
def test_heads_that_are_refused(method: str, path: str, changes: dict[str, str], reason: Reason) -> None:
    """Before anything of the body is read."""
    with pytest.raises(Refusal) as caught:
        read_token(make_mocked_request(method, path, headers={**HEADERS, **changes}))
    assert caught.value.reason is reason


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=UTF-8"])
def test_json_may_be_written_in_several_ways(content_type: str) -> None:
    """As HTTP allows it."""
    read_token(make_mocked_request("POST", "/v1/decrypt", headers={**HEADERS, "Content-Type": content_type}))
