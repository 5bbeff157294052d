"""The older RPC signature: vectors computed elsewhere, the plain SDK over TLS, and everything that must not pass."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.utils import Utils

from kmseal.fakekms import FakeKms, Identity, throttling
from kmseal.fakekms.authentication import MAX_SKEW
from kmseal.fakekms.requests import Request
from kmseal.fakekms.rpc1 import sign
from kmseal.fakekms.service import action_of

FORM = {"content-type": "application/x-www-form-urlencoded"}


def code(fake: FakeKms, request: Request) -> tuple[int, str]:
    answer = fake.service.answer(request)
    return answer.status, answer.result


@pytest.fixture
def signed(clock: Any) -> Callable[..., dict[str, str]]:
    """All parameters of a request, signed by the SDK's own code."""

    def signed(identity: Identity, action: str, method: str = "POST", **more: str | None) -> dict[str, str]:
        date = datetime.fromtimestamp(clock.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parameters = {
            "Action": action,
            "Format": "json",
            "Version": "2016-01-20",
            "Timestamp": date,
            "SignatureNonce": "n-1",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "AccessKeyId": identity.access_key_id,
        }
        if identity.security_token:
            parameters["SecurityToken"] = identity.security_token
        given = {name: value for name, value in {**parameters, **more}.items() if value is not None}
        return given | {"Signature": Utils.get_rpcsignature(given, method, identity.access_key_secret)}

    return signed


def in_query(parameters: dict[str, str], method: str = "POST") -> Request:
    return Request(method, "/", urlencode(parameters), {"host": "kms"})


def test_a_published_vector() -> None:
    """The signature that Alibaba Cloud's documentation of the RPC style works out, for a request of ECS."""
    pairs = [
        ("Version", "2014-05-26"),
        ("Timestamp", "2016-02-23T12:46:24Z"),
        ("SignatureVersion", "1.0"),
        ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("Format", "XML"),
        ("Action", "DescribeRegions"),
        ("AccessKeyId", "testid"),
    ]
    assert sign("GET", pairs, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


def test_a_vector_with_letters_that_are_encoded_twice() -> None:
    """Space, plus, asterisk, tilde, umlaut, slash and equals sign; worked out by hand and signed by openssl."""
    pairs = [
        ("AccessKeyId", "testid"),
        ("Action", "CreateKey"),
        ("Description", "a b+c*~é/="),
        ("Format", "json"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", "n-1"),
        ("SignatureVersion", "1.0"),
        ("Timestamp", "2026-11-24T05:32:41Z"),
        ("Version", "2016-01-20"),
        ("Signature", "left out"),
    ]
    assert sign("POST", pairs, "testsecret") == "HWt0usv2FIp2ENetU09oALgqWqo="


async def test_the_sdk_signs_in_the_older_way(
    running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """The plain SDK, told to sign so, does the whole round over TLS, with a session's token as well."""
    arn = running.create_key("alias/app")
    context = {"namespace": "shop", "name": "größe +/=*~"}
    for identity in (running.add_identity("admin"), running.add_temporary_identity("session", 3600)):
        client = sdk(running, identity, signature_algorithm="v2")
        fresh = await ask(client, "GenerateDataKey", key_id="alias/app", encryption_context=context)
        opened = await ask(client, "Decrypt", ciphertext_blob=fresh.ciphertext_blob, encryption_context=context)
        assert opened.plaintext == fresh.plaintext
        described = await ask(client, "DescribeKey", key_id=arn)
        assert described.key_metadata.arn == arn
    assert [record.action for record in running.audit][:3] == ["GenerateDataKey", "Decrypt", "DescribeKey"]


async def test_the_sdk_reads_refusals_of_the_older_way(
    running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """A wrong secret, a wrong right and an ordered fault reach it as they do with the newer signature."""
    developer = running.add_identity("developer", ("GenerateDataKey",))
    forger = sdk(running, replace(developer, access_key_secret="wrong"), signature_algorithm="v2")
    with pytest.raises(ClientException) as caught:
        await ask(forger, "ListKeys")
    assert caught.value.code == "SignatureDoesNotMatch"
    client = sdk(running, developer, signature_algorithm="v2")
    with pytest.raises(ClientException) as caught:
        await ask(client, "ListKeys")
    assert (caught.value.code, caught.value.status_code) == ("Forbidden.NoPermission", 403)
    running.faults.add(throttling("ListKeys", times=1))
    with pytest.raises(ClientException) as caught:
        await ask(client, "ListKeys")
    assert caught.value.code == "Rejected.Throttling"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_parameters_in_the_query(fake: FakeKms, admin: Identity, signed: Any, method: str) -> None:
    """Everything may be in the query, with either method, which is signed too."""
    parameters = signed(admin, "CreateKey", method, Description="a b+c/d=é~*'()&%", SignatureType="")
    other = {"GET": "POST", "POST": "GET"}[method]
    assert code(fake, in_query(parameters, other)) == (400, "SignatureDoesNotMatch")
    assert code(fake, in_query(parameters, method)) == (200, "Success")
    assert fake.store.keys_of()[0].description == "a b+c/d=é~*'()&%"


def test_parameters_in_a_form(fake: FakeKms, admin: Identity, signed: Any) -> None:
    """Everything, or a part, may be in a form body; all of it is signed."""
    whole = signed(admin, "CreateKey", Description="d")
    assert code(fake, Request("POST", "/", "", FORM, urlencode(whole).encode())) == (200, "Success")
    whole = signed(admin, "CreateKey", Description="d", SignatureNonce="n-2")
    rest = urlencode({name: value for name, value in whole.items() if name != "Description"})
    assert code(fake, Request("POST", "/", rest, FORM, b"Description=e")) == (400, "SignatureDoesNotMatch")
    assert code(fake, Request("POST", "/", rest, FORM, b"Description=d")) == (200, "Success")


def test_the_signed_action_counts(fake: FakeKms, admin: Identity, signed: Any) -> None:
    """Headers are not signed here: one that names another action, or another version, changes nothing."""
    request = replace(
        in_query(signed(admin, "ListKeys")),
        headers={"x-acs-action": "CreateKey", "x-acs-version": "2015-01-01", "host": "kms"},
    )
    assert action_of(request) == "ListKeys"
    answer = fake.service.answer(request)
    assert "Keys" in json.loads(answer.content)
    assert fake.calls["ListKeys", "Success"] == 1


@pytest.mark.parametrize("name", ["Action", "Version", "Timestamp", "SignatureNonce", "AccessKeyId", "Description"])
def test_every_parameter_is_signed(fake: FakeKms, admin: Identity, signed: Any, name: str) -> None:
    """No parameter can be altered."""
    fake.add_identity("other")
    altered = {
        "Action": "ListKeys",
        "Version": "2016-01-21",
        "Timestamp": "2026-11-24T05:32:42Z",
        "SignatureNonce": "n-2",
        "AccessKeyId": next(item.access_key_id for item in fake.identities if item.name == "other"),
        "Description": "e",
    }
    parameters = signed(admin, "CreateKey", Description="d") | {name: altered[name]}
    assert code(fake, in_query(parameters)) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize("name", ["Action", "Version", "Timestamp", "SignatureNonce", "AccessKeyId", "Signature"])
def test_every_part_is_needed(fake: FakeKms, admin: Identity, signed: Any, name: str) -> None:
    """Without a part of it the signature is incomplete."""
    parameters = {key: value for key, value in signed(admin, "ListKeys").items() if key != name}
    assert code(fake, in_query(parameters)) == (400, "IncompleteSignature")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"SignatureMethod": "HMAC-SHA256"}, (400, "IncompleteSignature")),
        ({"SignatureVersion": "2.0"}, (400, "IncompleteSignature")),
        ({"Format": "XML"}, (400, "InvalidParameter")),
        ({"Format": None}, (400, "InvalidParameter")),
        ({"Version": "2015-01-01"}, (404, "InvalidAction.NotFound")),
        ({"Timestamp": "yesterday"}, (400, "IllegalTimestamp")),
        ({"AccessKeyId": "nobody"}, (404, "InvalidAccessKeyId.NotFound")),
        ({"SecurityToken": "token"}, (400, "InvalidSecurityToken.Malformed")),
    ],
)
def test_well_signed_and_wrong(
    fake: FakeKms, admin: Identity, signed: Any, more: dict[str, str | None], expected: tuple[int, str]
) -> None:
    """Other methods of signing, formats, versions, dates, keys and tokens have the codes of the gateway."""
    assert code(fake, in_query(signed(admin, "ListKeys", **more))) == expected


def test_a_repeated_parameter_is_refused(fake: FakeKms, admin: Identity, signed: Any) -> None:
    """A parameter in the query and in the body, or twice in one of them, would be two answers to one question."""
    whole = urlencode(signed(admin, "ListKeys", PageSize="5"))
    assert code(fake, Request("POST", "/", whole, FORM, b"PageSize=5")) == (400, "IncompleteSignature")
    assert code(fake, Request("POST", "/", whole + "&PageSize=5", {})) == (400, "IncompleteSignature")


@pytest.mark.parametrize(("skew", "result"), [(MAX_SKEW, "Success"), (MAX_SKEW + 1, "InvalidTimeStamp.Expired")])
def test_the_window_of_the_timestamp(
    fake: FakeKms, admin: Identity, signed: Any, clock: Any, skew: float, result: str
) -> None:
    """A quarter of an hour, as for the newer signature."""
    parameters = signed(admin, "ListKeys")
    clock.now += skew
    assert code(fake, in_query(parameters))[1] == result


def test_a_nonce_is_used_once_by_either_signature(fake: FakeKms, admin: Identity, signed: Any, sign: Any) -> None:
    """A replay is refused, and the nonces of both signatures are the same ones."""
    parameters = signed(admin, "ListKeys")
    assert code(fake, in_query(parameters)) == (200, "Success")
    assert code(fake, in_query(parameters)) == (400, "SignatureNonceUsed")
    assert code(fake, sign(admin, "ListKeys", nonce="n-1")) == (400, "SignatureNonceUsed")


def test_a_session_needs_its_token(fake: FakeKms, signed: Any) -> None:
    """A temporary key works with its own security token only."""
    session = fake.add_temporary_identity("session", 3600)
    assert code(fake, in_query(signed(session, "ListKeys"))) == (200, "Success")
    without = signed(replace(session, security_token=""), "ListKeys", SignatureNonce="n-2")
    assert code(fake, in_query(without)) == (400, "MissingSecurityToken")
    other = signed(replace(session, security_token="other"), "ListKeys", SignatureNonce="n-3")
    assert code(fake, in_query(other)) == (400, "InvalidSecurityToken.Malformed")
