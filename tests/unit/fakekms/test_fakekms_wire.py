"""Over the wire: the plain SDK client against the listeners, every fault as the client meets it, and quiet logs."""

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from alibabacloud_tea_openapi.exceptions import ClientException, ServerException, ThrottlingException
from darabonba.exceptions import UnretryableException

from kmseal.fakekms import FakeKms, Fault, FaultKind, latency, throttling

Sdk = Callable[..., Any]
Ask = Callable[..., Any]


async def test_the_sdk_wraps_and_opens(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """The plain SDK client does the whole round over TLS: generate, decrypt, encrypt, re-encrypt, describe."""
    client, arn = sdk(running, running.add_identity("admin")), running.create_key(alias="alias/app")
    context = {"namespace": "shop", "name": "größe +/="}
    fresh = await ask(client, "GenerateDataKey", key_id="alias/app", encryption_context=context)
    opened = await ask(client, "Decrypt", ciphertext_blob=fresh.ciphertext_blob, encryption_context=context)
    assert (opened.plaintext, opened.key_id, opened.key_version_id) == (
        fresh.plaintext,
        fresh.key_id,
        fresh.key_version_id,
    )
    version = running.rotate(arn)
    moved = await ask(
        client,
        "ReEncrypt",
        ciphertext_blob=fresh.ciphertext_blob,
        source_encryption_context=context,
        destination_key_id=arn,
        destination_encryption_context=context,
    )
    assert moved.key_version_id == fresh.key_version_id
    described = await ask(client, "DescribeKey", key_id=arn)
    assert described.key_metadata.primary_key_version == version
    big = base64.b64encode(b"\xff" * 6144).decode()
    assert (await ask(client, "Encrypt", key_id=arn, plaintext=big)).key_version_id == version


async def test_the_sdk_manages_keys(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """The SDK's models read the answers of the management actions."""
    client = sdk(running, running.add_identity("admin"))
    created = await ask(client, "CreateKey", description="d", enable_automatic_rotation=True, rotation_interval="30d")
    key_id = created.key_metadata.key_id
    await ask(client, "CreateAlias", key_id=key_id, alias_name="alias/app")
    aliases = await ask(client, "ListAliases")
    assert [alias.alias_name for alias in aliases.aliases.alias] == ["alias/app"]
    by_key = await ask(client, "ListAliasesByKeyId", key_id=key_id)
    assert [alias.key_id for alias in by_key.aliases.alias] == [key_id]
    keys = await ask(client, "ListKeys", page_number=1, page_size=10)
    assert [key.key_id for key in keys.keys.key] == [key_id]
    versions = await ask(client, "ListKeyVersions", key_id=key_id)
    version = versions.key_versions.key_version[0].key_version_id
    one = await ask(client, "DescribeKeyVersion", key_id=key_id, key_version_id=version)
    assert one.key_version.key_version_id == created.key_metadata.primary_key_version
    await ask(client, "TagResource", key_id=key_id, tags='[{"TagKey": "a", "TagValue": "b"}]')
    tags = await ask(client, "ListResourceTags", key_id=key_id)
    assert [(tag.tag_key, tag.tag_value) for tag in tags.tags.tag] == [("a", "b")]
    await ask(client, "UntagResource", key_id=key_id, tag_keys='["a"]')
    await ask(client, "UpdateRotationPolicy", key_id=key_id, enable_automatic_rotation=False)
    await ask(client, "UpdateKeyDescription", key_id=key_id, description="e")
    await ask(client, "DisableKey", key_id=key_id)
    await ask(client, "EnableKey", key_id=key_id)
    await ask(client, "ScheduleKeyDeletion", key_id=key_id, pending_window_in_days=7)
    await ask(client, "CancelKeyDeletion", key_id=key_id)
    metadata = (await ask(client, "DescribeKey", key_id="alias/app")).key_metadata
    assert (metadata.key_state, metadata.description, metadata.automatic_rotation) == ("Enabled", "e", "Disabled")
    await ask(client, "UpdateAlias", key_id=key_id, alias_name="alias/app")
    await ask(client, "DeleteAlias", alias_name="alias/app")
    assert running.calls.total == len(running.audit) == 19
    assert {record.result for record in running.audit} == {"Success"}


async def test_the_sdk_reads_refusals(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """A refusal arrives in the SDK's exception with code, status, request id and the detail of the denial."""
    client = sdk(running, running.add_identity("developer", ("GenerateDataKey",)))
    with pytest.raises(ClientException) as caught:
        await ask(client, "Decrypt", ciphertext_blob="AAAA")
    assert (caught.value.code, caught.value.status_code) == ("Forbidden.NoPermission", 403)
    assert caught.value.request_id == running.audit[-1].request_id
    assert caught.value.access_denied_detail["AuthAction"] == "kms:Decrypt"


async def test_a_session_works_over_the_wire(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """The SDK sends the security token of temporary credentials, and it is verified."""
    session = running.add_temporary_identity("session", 3600)
    assert (await ask(sdk(running, session), "ListKeys")).total_count == 0


async def test_regions_have_ports_of_their_own(sdk: Sdk, ask: Ask) -> None:
    """Each region listens on its own port and serves its own keys; identities are the same."""
    async with FakeKms(("cn-hangzhou", "cn-beijing")) as kms:
        admin, arn = kms.add_identity("admin"), kms.create_key(region="cn-beijing")
        assert kms.endpoint("cn-hangzhou") != kms.endpoint("cn-beijing")
        here, there = sdk(kms, admin, "cn-hangzhou"), sdk(kms, admin, "cn-beijing")
        blob = (await ask(there, "GenerateDataKey", key_id=arn)).ciphertext_blob
        with pytest.raises(ClientException) as caught:
            await ask(here, "Decrypt", ciphertext_blob=blob)
        assert (caught.value.code, caught.value.status_code) == ("Forbidden.KeyNotFound", 404)
        assert [record.region for record in kms.audit] == ["cn-beijing", "cn-hangzhou"]


async def test_throttling_with_and_without_a_time_to_wait(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """Ordered throttling is 429; with a time to wait the SDK finds it in the header."""
    client = sdk(running, running.add_identity("admin"))
    running.faults.add(throttling("ListKeys", times=1))
    running.faults.add(throttling("ListKeys", times=1, retry_after=250))
    with pytest.raises(ClientException) as caught:
        await ask(client, "ListKeys")
    assert (caught.value.code, caught.value.status_code) == ("Rejected.Throttling", 429)
    with pytest.raises(ThrottlingException) as throttled:
        await ask(client, "ListKeys")
    assert throttled.value.retry_after == 250
    await ask(client, "ListKeys")
    assert (running.calls["ListKeys", "Rejected.Throttling"], running.calls["ListKeys", "Success"]) == (2, 1)


async def test_server_errors(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """An ordered 5xx arrives as the server's exception with its code."""
    client = sdk(running, running.add_identity("admin"))
    running.faults.add(Fault(FaultKind.ERROR, times=1, status=500, code="InternalFailure"))
    with pytest.raises(ServerException) as caught:
        await ask(client, "ListKeys")
    assert (caught.value.code, caught.value.status_code) == ("InternalFailure", 500)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (FaultKind.BAD_GATEWAY, "Fault.BadGateway"),
        (FaultKind.HTML, "Fault.Html"),
        (FaultKind.RESET, "Fault.Reset"),
        (FaultKind.TRUNCATE, "Success"),
        (FaultKind.LOST, "Success"),
    ],
)
async def test_answers_that_are_none(running: FakeKms, sdk: Sdk, ask: Ask, kind: FaultKind, result: str) -> None:
    """HTML, half an answer and a reset cannot be read by the SDK; each counts once, and the next call is well."""
    client = sdk(running, running.add_identity("admin"))
    running.faults.add(Fault(kind, times=1))
    with pytest.raises(UnretryableException):
        await ask(client, "CreateKey")
    assert running.audit[-1].result == result
    await ask(client, "CreateKey")
    # Whether the first call was carried out is what tells LOST and TRUNCATE from the others.
    assert (running.calls["CreateKey"], len(running.store.stored())) == (2, 2 if result == "Success" else 1)


@pytest.mark.parametrize(("kind", "status"), [(FaultKind.BAD_GATEWAY, 502), (FaultKind.HTML, 200)])
async def test_pages_of_html(kind: FaultKind, status: int) -> None:
    """A proxy's page comes with 502 or with 200, and is HTML."""
    async with FakeKms(tls=False) as kms, aiohttp.ClientSession() as session:
        kms.faults.add(Fault(kind))
        async with session.post(f"http://{kms.endpoint()}/") as response:
            assert (response.status, response.content_type) == (status, "text/html")


async def test_an_answer_may_drip(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """A dripping answer arrives whole in the end, one byte after another."""
    client = sdk(running, running.add_identity("admin"))
    running.faults.add(Fault(FaultKind.DRIP, times=1, seconds=0.0))
    assert (await ask(client, "ListKeys")).total_count == 0


async def test_an_answer_may_be_late(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """A latency is waited for, here longer than the client does."""
    client = sdk(running, running.add_identity("admin"))
    client._read_timeout = 50
    running.faults.add(latency(30, "ListKeys", times=1))
    with pytest.raises(UnretryableException):
        await ask(client, "ListKeys")
    await ask(client, "ListKeys")


async def test_down_and_up_again_on_the_same_port(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """Closed listeners refuse and open connections break; afterwards the endpoint is the same and works."""
    client, endpoint = sdk(running, running.add_identity("admin")), running.endpoint()
    await ask(client, "ListKeys")
    await running.stop_listening()
    assert running.listening == ()
    with pytest.raises(UnretryableException):
        await ask(client, "ListKeys")
    await running.start_listening()
    assert running.endpoint() == endpoint
    await ask(client, "ListKeys")
    assert running.calls["ListKeys"] == 2


async def test_requests_in_flight_break_when_it_goes_down(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """An outage does not wait for the answers that are under way."""
    client = sdk(running, running.add_identity("admin"))
    running.faults.add(latency(30, times=1))
    call = asyncio.create_task(ask(client, "ListKeys"))
    while running.faults.active:  # noqa: ASYNC110  (The fault is over once the request has met it; it has no event.)
        await asyncio.sleep(0.01)
    await running.stop_listening()
    with pytest.raises(UnretryableException):
        await call


async def test_logs_never_hold_a_query(
    running: FakeKms, sdk: Sdk, ask: Ask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At debug level, for good, refused and unreadable requests, no log line holds a parameter."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "darabonba-core"):
        # These are the client's own loggers, which do show URLs.
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    client, arn = sdk(running, running.add_identity("admin")), running.create_key()
    canary = base64.b64encode(b"canary-55e0").decode()
    await ask(client, "Encrypt", key_id=arn, plaintext=canary)
    with pytest.raises(ClientException):
        await ask(client, "Encrypt", key_id="alias/none", plaintext=canary)
    with pytest.raises(UnretryableException):
        await ask(client, "Encrypt", key_id=arn, plaintext=canary * 8000)
    assert "Encrypt Success 200" in caplog.text
    assert "Encrypt Forbidden.AliasNotFound 404" in caplog.text
    assert "a request could not be handled: LineTooLong" in caplog.text
    assert "canary" not in caplog.text
    assert canary.rstrip("=") not in caplog.text


async def test_anything_that_is_no_request_of_the_api() -> None:
    """A browser gets a refusal in JSON, not a failure, and it counts under no action."""
    async with FakeKms(tls=False) as kms, aiohttp.ClientSession() as session:
        async with session.get(f"http://{kms.endpoint()}/") as response:
            body = json.loads(await response.text())
            assert (response.status, body["Code"]) == (400, "IncompleteSignature")
        assert kms.calls["(none)"] == 1
