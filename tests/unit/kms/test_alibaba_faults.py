"""Everything that can go wrong between us and KMS, against a server that does it on purpose."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    KeyUnusable,
    KmsealError,
    Misconfigured,
    Refused,
    Throttled,
    Unavailable,
)
from kmseal.kms.keyring import Keyring
from kmseal.kms.timing import Timing
from kmseal.manifest import Algorithm, Wrapping

Server = Callable[..., Awaitable[Any]]
CANARY = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


def body(**members: Any) -> bytes:
    return json.dumps({"RequestId": "0A1B-2C", **members}).encode()


GOOD = body(KeyId="key-hzz62f1cb66fa42qo1234", KeyVersionId="version-1", Plaintext=CANARY)


@pytest.fixture
def wrapping(arn: str) -> Wrapping:
    return Wrapping(arn, "version-1", Algorithm.KMS_SYMMETRIC, b"wrapped-bytes")


@pytest.fixture
def open_keyring(
    static_environment: dict[str, str], settings_for: Callable[..., Any], fake_time: Any
) -> Callable[..., Keyring]:
    """Keyrings whose pauses take no time; their requests' limits are real."""

    def make(server: Any, observer: Any = None, timing: Any = None, **changes: Any) -> Keyring:
        settings = settings_for(server.endpoint, **{"deadline_seconds": 0.4, "attempt_seconds": 0.3} | changes)
        told = {"observer": observer} if observer else {}
        return Keyring(settings, static_environment, timing=timing or fake_time.timing, **told)

    return make


async def fail(keyring: Keyring, wrapping: Wrapping) -> KmsealError:
    """Unwraps, and gives the error after checking what is true of every error."""
    async with keyring:
        with pytest.raises(KmsealError) as caught:
            await keyring.unwrap([wrapping], {"a": "b"})
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    text = f"{error} {error!r} {error.__dict__}"
    assert not re.search(r"CiphertextBlob|https?://|\?|q83vEjRW|d3JhcHBlZC1ieXRlcw|secret-canary", text)
    return error


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason", "words"),
    [
        (429, "Rejected.Throttling", Throttled, "Throttled", "fewer requests"),
        (400, "Throttling", Throttled, "Throttled", "fewer requests"),
        (400, "Throttling.User", Throttled, "Throttled", "fewer requests"),
        (500, "InternalFailure", Unavailable, "Unavailable", "InternalFailure"),
        (503, "ServiceUnavailableTemporary", Unavailable, "Unavailable", "503"),
        (400, "SignatureNonceUsed", Unavailable, "Unavailable", "SignatureNonceUsed"),
        (400, "InvalidTimeStamp.Expired", Unavailable, "ClockSkew", "set the clock"),
        (400, "IllegalTimestamp", Unavailable, "ClockSkew", "set the clock"),
        (403, "Forbidden.NoPermission", AccessDenied, "AccessDenied", "grant kms:Decrypt"),
        (403, "Forbidden.KmsServiceNotEnabled", AccessDenied, "AccessDenied", "open the KMS service"),
        (403, "Forbidden.InDebt", AccessDenied, "AccessDenied", "in debt"),
        (403, "Forbidden.AccessKey", BadCredentials, "BadCredentials", "credentials"),
        (404, "InvalidAccessKeyId.NotFound", BadCredentials, "BadCredentials", "credentials"),
        (400, "InvalidSecurityToken.Expired", BadCredentials, "BadCredentials", "credentials"),
        (400, "SignatureDoesNotMatch", BadCredentials, "BadCredentials", "credentials"),
        (401, "Whatever", BadCredentials, "BadCredentials", "credentials"),
        (409, "Rejected.Disabled", KeyUnusable, "KeyDisabled", "is disabled; enable the key"),
        (409, "Rejected.PendingDeletion", KeyUnusable, "KeyPendingDeletion", "scheduled for deletion"),
        (409, "Rejected.PendingImport", KeyUnusable, "KeyPendingImport", "no key material"),
        (409, "Rejected.Somehow", KeyUnusable, "KeyUnusable", "HTTP 409 Rejected.Somehow"),
        (404, "Forbidden.KeyNotFound", KeyUnusable, "KeyNotFound", "not found in region cn-hangzhou"),
        (404, "Forbidden.AliasNotFound", KeyUnusable, "AliasNotFound", "check the alias"),
        (404, "Forbidden.KeyVersionNotFound", KeyUnusable, "KeyVersionNotFound", "the version that wrapped"),
        (400, "UnsupportedOperation", Refused, "UnsupportedOperation", "does not offer Decrypt"),
        (404, "InvalidAction.NotFound", Refused, "UnsupportedOperation", "does not offer Decrypt"),
        (400, "InvalidParameter", Refused, "KmsRefused", "altered, or sealed for another place"),
        (400, "SomethingNew", Refused, "KmsRefused", "altered, or sealed for another place"),
        (413, "", Refused, "KmsRefused", "HTTP 413"),
    ],
)
async def test_a_refusal_becomes_the_error_that_says_what_to_do(
    status: int,
    code: str,
    kind: type[KmsealError],
    reason: str,
    words: str,
    raw_server: Server,
    respond: Any,
    open_keyring: Any,
    wrapping: Wrapping,
) -> None:
    """Class, reason, words and remedy by code and status; the answer's message is never repeated, its id is kept."""
    server = await raw_server(respond(status, body(Code=code, Message=f"{CANARY} http://x?y")))
    error = await fail(open_keyring(server), wrapping)
    assert type(error) is kind
    assert error.reason == reason
    assert words in str(error)
    assert error.request_id == "0A1B-2C"


@pytest.mark.parametrize("code", [CANARY, 7, None, "Code with spaces", "x" * 500, "AKIA1234567890"])
async def test_a_code_that_is_no_code_is_not_repeated(
    code: Any, raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """Only letters and full stops of an answer ever stand in a message."""
    server = await raw_server(respond(400, body(Code=code)))
    error = await fail(open_keyring(server), wrapping)
    assert "(HTTP 400)" in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1500", 1.5), (None, 1.0), ("0", 1.0), ("-5", 1.0), ("soon", 1.0), ("9" * 400, 1.0), ("86400000", 60.0)],
)
async def test_throttling_says_how_long_to_wait(
    header: str | None, seconds: float, raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """x-acs-retry-after is milliseconds; nonsense counts as absent, absent means a second, a day means a minute."""
    headers = {} if header is None else {"x-acs-retry-after": header}
    server = await raw_server(respond(429, body(Code="Rejected.Throttling"), headers))
    error = await fail(open_keyring(server), wrapping)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


async def test_retry_after_alone_means_throttling(
    raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """Whatever status the header comes with."""
    server = await raw_server(respond(503, body(Code="X"), {"x-acs-retry-after": "700"}))
    assert isinstance(await fail(open_keyring(server), wrapping), Throttled)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (502, b"<html><body>Bad Gateway q83vEjRWeJA</body></html>"),
        (200, b"<html>login</html>"),
        (403, b"<html>denied by a proxy</html>"),
        (200, GOOD[: len(GOOD) // 2]),
        (200, b""),
        (200, b"[]"),
        (200, b"null"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, b'{"Plaintext": "' + b"A" * 300_000 + b'"}'),
        (204, b""),
        (302, b"{}"),
        (302, GOOD),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_what_is_no_answer_of_kms_is_unavailable(
    status: int, content: bytes, raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """HTML, truncated or strange JSON, redirects, and answers without end."""
    server = await raw_server(respond(status, content, {"Location": "/elsewhere"}))
    assert type(await fail(open_keyring(server), wrapping)) is Unavailable
    assert {request.path for request in server.requests} == {"/"}


@pytest.mark.parametrize(
    "changes",
    [
        {"Plaintext": None},
        {"Plaintext": 5},
        {"Plaintext": ["AAAA"]},
        {"Plaintext": "not base64!"},
        {"KeyVersionId": None},
        {"KeyVersionId": {"a": 1}},
        {"KeyVersionId": "with space"},
        {"KeyId": None},
        {"KeyId": True},
        {"KeyId": "../../etc"},
    ],
    ids=str,
)
async def test_an_answer_with_a_field_of_the_wrong_form_is_unavailable(
    changes: dict[str, Any], raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """Each field of Decrypt's answer is checked before it is used."""
    server = await raw_server(respond(200, json.dumps(json.loads(GOOD) | changes).encode()))
    assert type(await fail(open_keyring(server), wrapping)) is Unavailable


async def test_a_request_id_of_the_wrong_form_is_left_out(
    raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """It goes into logs, so it must not be able to hold anything else."""
    server = await raw_server(respond(200, json.dumps(json.loads(GOOD) | {"RequestId": "a\nb"}).encode()))
    async with open_keyring(server) as keyring:
        assert (await keyring.unwrap([wrapping], {})).request_id == ""


async def test_a_data_key_wrapped_by_another_key_than_its_wrapping_names_is_refused(
    raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """Decrypt finds the key in the ciphertext: a manifest must not borrow the name of a key that is allowed."""
    server = await raw_server(respond(200, json.dumps(json.loads(GOOD) | {"KeyId": "key-other"}).encode()))
    error = await fail(open_keyring(server), wrapping)
    assert isinstance(error, Refused)
    assert error.reason == "WrongKey"


async def test_a_closed_or_reset_connection_is_unavailable(
    raw_server: Server, open_keyring: Any, wrapping: Wrapping
) -> None:
    """The server takes the request and hangs up without an answer."""

    async def hang_up(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await raw_server(hang_up)
    assert "broke" in str(await fail(open_keyring(server), wrapping))


async def test_a_cut_off_body_is_unavailable(raw_server: Server, open_keyring: Any, wrapping: Wrapping) -> None:
    """Fewer bytes arrive than were announced."""

    async def cut(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD)
        writer.close()

    server = await raw_server(cut)
    assert type(await fail(open_keyring(server), wrapping)) is Unavailable


async def test_what_is_not_http_is_unavailable(raw_server: Server, open_keyring: Any, wrapping: Wrapping) -> None:
    """Another service listens on the port."""

    async def greet(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        writer.close()

    server = await raw_server(greet)
    assert type(await fail(open_keyring(server), wrapping)) is Unavailable


async def test_nobody_listening_is_unavailable(open_keyring: Any, raw_server: Server, wrapping: Wrapping) -> None:
    """A refused connection names the host and no URL."""

    class Nobody:
        endpoint = "http://127.0.0.1:9"

    error = await fail(open_keyring(Nobody()), wrapping)
    assert type(error) is Unavailable
    assert "KMS at 127.0.0.1:9 cannot be reached" in str(error)


async def test_a_name_that_does_not_resolve_is_unavailable(
    static_environment: dict[str, str], settings_for: Any, wrapping: Wrapping
) -> None:
    """The top-level domain ``invalid`` never exists."""
    settings = settings_for("kms.invalid", attempt_seconds=5.0)
    error = await fail(Keyring(settings, static_environment), wrapping)
    assert type(error) is Unavailable
    assert "kms.invalid" in str(error)


async def test_an_answer_that_drips_ends_at_the_deadline(
    raw_server: Server, open_keyring: Any, wrapping: Wrapping
) -> None:
    """A byte now and then does not extend the deadline: it is a total one."""

    async def drip(request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)

    server = await raw_server(drip)
    started = time.monotonic()
    error = await fail(open_keyring(server), wrapping)
    assert type(error) is Unavailable
    assert "did not answer within" in str(error)
    assert time.monotonic() - started < 2.0


async def test_a_hanging_request_leaves_time_for_another_one(
    raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping
) -> None:
    """The time of one attempt is shorter than the deadline, so that one lost request is not a failed operation."""
    seen: list[tuple[Any, ...]] = []

    async def first_hangs(request: Any, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await asyncio.sleep(10)
        await respond(200, GOOD)(request, writer)

    server = await raw_server(first_hangs)
    keyring = open_keyring(server, deadline_seconds=5.0, attempt_seconds=0.1, observer=lambda *told: seen.append(told))
    async with keyring:
        await keyring.unwrap([wrapping], {})
    assert [told[2] for told in seen] == ["Unavailable", "ok"]


async def test_success_costs_one_request_and_the_observer_is_told_of_each(
    raw_server: Server, respond: Any, open_keyring: Any, wrapping: Wrapping, arn: str
) -> None:
    """Operation, key, result and seconds, once per real request."""
    seen: list[tuple[Any, ...]] = []
    server = await raw_server(respond(200, GOOD))
    async with open_keyring(server, observer=lambda *told: seen.append(told), timing=Timing()) as keyring:
        for _ in range(5):
            await keyring.unwrap([wrapping], {})
    assert len(server.requests) == 5
    assert [told[:3] for told in seen] == [("Decrypt", arn, "ok")] * 5
    assert all(0 < told[3] < 5 for told in seen)


async def test_a_cancelled_request_is_observed_and_leaves_nothing_behind(
    raw_server: Server, open_keyring: Any, wrapping: Wrapping
) -> None:
    """Cancelling an unwrap cancels the request; it shows as such in the metrics."""
    arrived = asyncio.Event()
    seen: list[str] = []

    async def hang(request: Any, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.sleep(10)

    server = await raw_server(hang)
    keyring = open_keyring(
        server, deadline_seconds=9.0, attempt_seconds=9.0, observer=lambda *told: seen.append(told[2])
    )
    async with keyring:
        task = asyncio.create_task(keyring.unwrap([wrapping], {}))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen == ["Cancelled"]


async def test_a_dead_endpoint_trips_its_breaker_and_a_living_one_is_heard_of(
    raw_server: Server, respond: Any, static_environment: dict[str, str], settings_for: Any, wrapping: Wrapping,
    fake_time: Any,
) -> None:  # fmt: skip
    """After five failures requests stop; after the pause one goes through, and the listener is told."""
    replies = [respond(502, b"<html>")] * 8 + [respond(200, GOOD)]
    recovered: list[str] = []

    async def play(request: Any, writer: asyncio.StreamWriter) -> None:
        await replies[len(server.requests) - 1](request, writer)

    server = await raw_server(play)
    settings = settings_for(server.endpoint, breaker_failures=8)
    async with Keyring(settings, static_environment, timing=fake_time.timing, on_recovered=recovered.append) as keyring:
        for _ in range(6):
            with pytest.raises(Unavailable):
                await keyring.unwrap([wrapping], {})
        assert len(server.requests) == 8
        fake_time.now += 10.0
        assert recovered == []
        await keyring.unwrap([wrapping], {})
        assert recovered == [server.endpoint.removeprefix("http://")]


async def test_throttling_of_one_caller_holds_the_others_too(
    raw_server: Server, respond: Any, static_environment: dict[str, str], settings_for: Any, wrapping: Wrapping,
    fake_time: Any,
) -> None:  # fmt: skip
    """After KMS asked for three seconds no request is made before they are over, whoever wants it."""
    throttle = respond(429, body(Code="Rejected.Throttling"), {"x-acs-retry-after": "3000"})
    at: list[float] = []

    async def play(request: Any, writer: asyncio.StreamWriter) -> None:
        at.append(fake_time.now)
        await (throttle if len(at) == 1 else respond(200, GOOD))(request, writer)

    server = await raw_server(play)
    settings = settings_for(server.endpoint)
    async with Keyring(settings, static_environment, timing=fake_time.timing) as keyring:
        await keyring.unwrap([wrapping], {})
        await keyring.unwrap([wrapping], {})
    assert at[0] == 1000.0
    assert at[1] >= 1003.0


async def test_a_missing_ca_file_is_misconfigured(
    static_environment: dict[str, str], settings_for: Any, wrapping: Wrapping, tmp_path: Any
) -> None:
    """The error names setting and file; a file without a certificate is no better."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("missing.pem", "empty.pem"):
        settings = settings_for("localhost:9", ca_file=tmp_path / name)
        error = await fail(Keyring(settings, static_environment), wrapping)
        assert isinstance(error, Misconfigured)
        assert error.field == "KMSEAL_KMS_CA_FILE"
        assert name in str(error)


METADATA = {"Arn": "acs:kms:cn-hangzhou:1:key/k-1", "KeyState": "Enabled", "PrimaryKeyVersion": "v-1", "KeyId": "k-1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"Arn": None},
        {"Arn": "acs:kms:cn-hangzhou:1:alias/k"},
        {"Arn": "acs:kms:cn-beijing:1:key/k-1"},
        {"KeyState": "Asleep"},
        {"KeyState": 1},
        {"PrimaryKeyVersion": None},
        {"PrimaryKeyVersion": "a b"},
    ],
    ids=str,
)
async def test_a_description_of_the_wrong_form_is_unavailable(
    changes: dict[str, Any], raw_server: Server, respond: Any, open_keyring: Any, arn: str
) -> None:
    """Unknown states too: nothing is decided by what we do not know."""
    server = await raw_server(respond(200, body(KeyMetadata=METADATA | changes)))
    async with open_keyring(server) as keyring:
        with pytest.raises(Unavailable):
            await keyring.describe(arn)


@pytest.mark.parametrize("metadata", [None, [], "x", 5])
async def test_a_description_without_metadata_is_unavailable(
    metadata: Any, raw_server: Server, respond: Any, open_keyring: Any, arn: str
) -> None:
    """Whatever JSON stands in its place."""
    server = await raw_server(respond(200, body(KeyMetadata=metadata)))
    async with open_keyring(server) as keyring:
        with pytest.raises(Unavailable):
            await keyring.describe(arn)


async def test_a_description_names_the_key_by_its_own_account(
    raw_server: Server, respond: Any, open_keyring: Any, arn: str
) -> None:
    """An account that somebody made up in a key's name does not come back."""
    server = await raw_server(respond(200, body(KeyMetadata=METADATA)))
    async with open_keyring(server) as keyring:
        description = await keyring.describe(arn)
    assert (description.key_id, description.primary_version) == ("acs:kms:cn-hangzhou:1:key/k-1", "v-1")


FRESH = {"KeyId": "k-1", "KeyVersionId": "v-1", "Plaintext": CANARY, "CiphertextBlob": "d3JhcHBlZA=="}


@pytest.mark.parametrize(
    "changes",
    [
        {"Plaintext": "c2hvcnQ="},
        {"Plaintext": ""},
        {"CiphertextBlob": ""},
        {"CiphertextBlob": None},
        {"CiphertextBlob": "A" * 16_000},
        {"KeyId": "alias/x"},
    ],
    ids=lambda changes: str(changes)[:30],
)
async def test_a_fresh_data_key_of_the_wrong_form_is_unavailable(
    changes: dict[str, Any], raw_server: Server, respond: Any, open_keyring: Any, arn: str
) -> None:
    """A data key that is not 32 bytes, or a wrapping that the format does not know, is never sealed with."""
    server = await raw_server(respond(200, body(**FRESH | changes)))
    async with open_keyring(server) as keyring:
        with pytest.raises(Unavailable):
            await keyring.generate(arn, {})


async def test_a_wrapping_by_a_public_key_is_opened_with_its_key_and_version(
    raw_server: Server, respond: Any, open_keyring: Any, arn: str
) -> None:
    """AsymmetricDecrypt needs both, and knows no context."""
    server = await raw_server(respond(200, GOOD))
    asymmetric = Wrapping(arn, "version-1", Algorithm.RSAES_OAEP_SHA_256, b"wrapped")
    async with open_keyring(server) as keyring:
        opened = await keyring.unwrap([asymmetric], {"a": "b"})
    (request,) = server.requests
    assert request.headers["x-acs-action"] == "AsymmetricDecrypt"
    assert dict(request.query) == {
        "Algorithm": "RSAES_OAEP_SHA_256",
        "CiphertextBlob": "d3JhcHBlZA==",
        "KeyId": arn,
        "KeyVersionId": "version-1",
    }
    assert opened.key_version_id == "version-1"


async def test_requests_that_run_into_the_deadline_open_the_breaker(
    raw_server: Server, open_keyring: Any, wrapping: Wrapping
) -> None:
    """A hanging region must cost a few time-outs and not one per object, even where the deadline is what ends them."""

    async def hang(request: Any, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    server = await raw_server(hang)
    keyring = open_keyring(server, timing=Timing(), deadline_seconds=0.15, attempt_seconds=9.0, breaker_failures=2)
    async with keyring:
        for _ in range(6):
            with pytest.raises(Unavailable):
                await keyring.unwrap([wrapping], {})
    assert len(server.requests) == 2
