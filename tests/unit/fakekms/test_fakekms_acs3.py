"""Signatures: what the SDK signs is accepted, and anything altered, stale, replayed or unknown is refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kmseal.fakekms import FakeKms, Identity
from kmseal.fakekms.authentication import MAX_SKEW
from kmseal.fakekms.requests import Request

Sign = Callable[..., Request]


def code(fake: FakeKms, request: Request) -> tuple[int, str]:
    """Status and code of the answer; ``Success`` for a good one."""
    answer = fake.service.answer(request)
    assert json.loads(answer.content)["RequestId"] == answer.request_id
    return answer.status, answer.result


def with_header(request: Request, name: str, value: str | None) -> Request:
    """The request with one header changed, or without it."""
    headers = {key: text for key, text in request.headers.items() if key != name}
    return replace(request, headers=headers if value is None else headers | {name: value})


def test_a_request_signed_by_the_sdk_is_accepted(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """What the SDK signs verifies, with spaces, umlauts, plus signs and slashes in the values."""
    parameters = {"Description": "a b+c/d=é~*'()", "Tags": [{"TagKey": "k", "TagValue": "ü &%"}]}
    assert code(fake, sign(admin, "CreateKey", parameters)) == (200, "Success")


def test_an_unsigned_content_type_without_a_body_is_ignored(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """HTTP clients add a content type after signing; without a body it decides nothing."""
    request = with_header(sign(admin, "ListKeys"), "content-type", "application/octet-stream")
    assert code(fake, request) == (200, "Success")


def test_a_signed_form_body_is_accepted(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """Parameters may be in a form body, if its digest and its type are signed."""
    assert code(fake, sign(admin, "ListKeys", body="PageSize=5")) == (200, "Success")


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("PageSize=11&PageNumber=1", "a changed value"),
        ("PageSize=10&PageNumber=1&Filters=%5B%5D", "an added parameter"),
        ("PageSize=10", "a removed parameter"),
        ("PageSize=10&PageNumber=1&PageNumber=1", "a repeated parameter"),
    ],
)
def test_an_altered_query_is_refused(fake: FakeKms, admin: Identity, sign: Sign, query: str, why: str) -> None:
    """Every change of the query shows in the signature."""
    request = sign(admin, "ListKeys", {"PageSize": 10, "PageNumber": 1})
    assert code(fake, replace(request, query=query)) == (400, "SignatureDoesNotMatch"), why


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "kms.cn-beijing.aliyuncs.com"),
        ("x-acs-action", "DescribeKey"),
        ("x-acs-signature-nonce", "0" * 32),
        ("accept", "text/html"),
    ],
)
def test_an_altered_header_is_refused(fake: FakeKms, admin: Identity, sign: Sign, name: str, value: str) -> None:
    """Every signed header counts, also those that did not have to be signed."""
    assert code(fake, with_header(sign(admin, "ListKeys"), name, value)) == (400, "SignatureDoesNotMatch")


def test_an_altered_method_or_body_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """The method and the body are signed as well."""
    assert code(fake, replace(sign(admin, "ListKeys"), method="GET")) == (400, "SignatureDoesNotMatch")
    altered = replace(sign(admin, "ListKeys", body="PageSize=5"), body=b"PageSize=6")
    assert code(fake, altered) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize("name", ["x-acs-action", "x-acs-date", "x-acs-version", "x-acs-content-sha256", "host"])
def test_a_missing_header_is_refused(fake: FakeKms, admin: Identity, sign: Sign, name: str) -> None:
    """Without a header that has to be signed the signature is incomplete."""
    assert code(fake, with_header(sign(admin, "ListKeys"), name, None)) == (400, "IncompleteSignature")


def test_an_unsigned_acs_header_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """A header of the gateway that was added after signing is refused."""
    request = with_header(sign(admin, "ListKeys"), "x-acs-retry-attempts", "1")
    assert code(fake, request) == (400, "IncompleteSignature")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer abc",
        "ACS3-HMAC-SHA256 Credential=x",
        "ACS3-HMAC-SM3 Credential=x,SignedHeaders=host,Signature=00",
        "ACS3-HMAC-SHA256 Credential=x,SignedHeaders=x-acs-date;host,Signature=00",
    ],
)
def test_a_malformed_authorization_is_refused(fake: FakeKms, admin: Identity, sign: Sign, authorization: str) -> None:
    """What is no complete ACS3-HMAC-SHA256 authorization is called so."""
    request = with_header(sign(admin, "ListKeys"), "authorization", authorization)
    assert code(fake, request) == (400, "IncompleteSignature")


def test_a_signature_that_is_not_ascii_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """Strange bytes in the signature are a mismatch, not a failure of the server."""
    request = sign(admin, "ListKeys")
    authorization = request.headers["authorization"][:-1] + "é"
    assert code(fake, with_header(request, "authorization", authorization)) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        (0, (200, "Success")),
        (-MAX_SKEW, (200, "Success")),
        (MAX_SKEW, (200, "Success")),
        (-MAX_SKEW - 1, (400, "InvalidTimeStamp.Expired")),
        (MAX_SKEW + 1, (400, "InvalidTimeStamp.Expired")),
    ],
)
def test_the_date_may_be_a_quarter_of_an_hour_off(
    fake: FakeKms, admin: Identity, sign: Sign, skew: float, expected: tuple[int, str]
) -> None:
    """A date further away than fifteen minutes is refused, in both directions."""
    assert code(fake, sign(admin, "ListKeys", date=fake.service.clock() + skew)) == expected


@pytest.mark.parametrize(
    "date", ["yesterday", "2026-11-24 05:32:41Z0", "2026-11-24T05:32:41+0", "2026-13-24T05:32:41Z"]
)
def test_a_date_of_another_form_is_refused(fake: FakeKms, admin: Identity, sign: Sign, date: str) -> None:
    """Only the one documented form of a date is taken."""
    assert code(fake, sign(admin, "ListKeys", headers={"x-acs-date": date})) == (400, "IllegalTimestamp")


def test_a_replayed_nonce_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """The same request is served once, and its nonce is used up for other requests too."""
    request = sign(admin, "ListKeys", nonce="n" * 32)
    assert code(fake, request) == (200, "Success")
    assert code(fake, request) == (400, "SignatureNonceUsed")
    assert code(fake, sign(admin, "ListAliases", nonce="n" * 32)) == (400, "SignatureNonceUsed")


def test_a_forged_request_does_not_use_up_a_nonce(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """Only a genuine request uses up its nonce."""
    request = sign(admin, "ListKeys")
    assert code(fake, replace(request, query="PageSize=1"))[1] == "SignatureDoesNotMatch"
    assert code(fake, request) == (200, "Success")


def test_two_identities_may_use_the_same_nonce(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """Nonces are remembered for each access key."""
    other = fake.add_identity("other")
    assert code(fake, sign(admin, "ListKeys", nonce="n" * 32)) == (200, "Success")
    assert code(fake, sign(other, "ListKeys", nonce="n" * 32)) == (200, "Success")


def test_old_nonces_are_forgotten(fake: FakeKms, admin: Identity, sign: Sign, clock: Any) -> None:
    """A nonce is remembered only for as long as its date could still pass."""
    assert code(fake, sign(admin, "ListKeys", nonce="n" * 32)) == (200, "Success")
    clock.now += 2 * MAX_SKEW + 1
    assert code(fake, sign(admin, "ListKeys", nonce="n" * 32)) == (200, "Success")


def test_an_unknown_access_key_is_refused(fake: FakeKms, sign: Sign) -> None:
    """An access key that is not there is 404, before its signature matters."""
    stranger = Identity("stranger", "LTAI5tNobody", "secret")
    assert code(fake, sign(stranger, "ListKeys")) == (404, "InvalidAccessKeyId.NotFound")


def test_a_wrong_secret_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """A signature by another secret does not match."""
    assert code(fake, sign(replace(admin, access_key_secret="wrong"), "ListKeys")) == (400, "SignatureDoesNotMatch")


def test_a_temporary_key_needs_its_token(fake: FakeKms, sign: Sign) -> None:
    """Temporary keys work with their security token only: none, another one and an expired one have names of theirs."""
    temporary = fake.add_temporary_identity("session", 3600)
    assert temporary.access_key_id.startswith("STS.")
    assert code(fake, sign(temporary, "ListKeys")) == (200, "Success")
    assert code(fake, sign(replace(temporary, security_token=""), "ListKeys")) == (400, "MissingSecurityToken")
    assert code(fake, sign(replace(temporary, security_token="other"), "ListKeys")) == (
        400,
        "InvalidSecurityToken.Malformed",
    )


def test_an_expired_token_is_refused(fake: FakeKms, admin: Identity, sign: Sign, clock: Any) -> None:
    """From its expiry on a temporary key is refused as expired; an hour later it may be forgotten."""
    temporary = fake.add_temporary_identity("session", 3600)
    clock.now += 3600
    assert code(fake, sign(temporary, "ListKeys")) == (400, "InvalidSecurityToken.Expired")
    clock.now += 3601
    fake.add_temporary_identity("next", 3600)
    assert code(fake, sign(temporary, "ListKeys")) == (404, "InvalidAccessKeyId.NotFound")


def test_a_token_with_a_permanent_key_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """A token does not go with a permanent key."""
    request = sign(replace(admin, security_token="token"), "ListKeys")
    assert code(fake, request) == (400, "InvalidSecurityToken.Malformed")


def test_other_versions_and_actions_are_not_found(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """An unknown action and another version of the API are 404."""
    assert code(fake, sign(admin, "Frobnicate")) == (404, "InvalidAction.NotFound")
    assert code(fake, sign(admin, "ListKeys", headers={"x-acs-version": "2015-01-01"})) == (
        404,
        "InvalidAction.NotFound",
    )


def test_another_path_or_method_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """The API has one path and two methods."""
    assert code(fake, replace(sign(admin, "ListKeys"), path="/other")) == (403, "UnsupportedHTTPMethod")
    assert code(fake, replace(sign(admin, "ListKeys"), method="PUT")) == (403, "UnsupportedHTTPMethod")


def test_a_query_that_cannot_be_decoded_is_refused(fake: FakeKms, admin: Identity, sign: Sign) -> None:
    """Bytes that are not UTF-8 and pairs without a name are refused, not guessed."""
    for query in ("a=%ff", "novalue", "a=1&&b=2"):
        request = replace(sign(admin, "ListKeys"), query=query)
        assert code(fake, request) == (400, "ParseRequestParameterException"), query
