"""The provider against the fake KMS over TLS, which verifies signatures, dates, nonces, tokens, rights and contexts."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    KeyUnusable,
    KmsealError,
    Malformed,
    Misconfigured,
    Refused,
    Throttled,
    Unavailable,
)
from kmseal.fakekms.faults import Fault, FaultKind, latency, throttling
from kmseal.fakekms.identities import Identity
from kmseal.fakekms.server import FakeKms
from kmseal.kms.budget import in_background
from kmseal.kms.keyring import Keyring
from kmseal.kms.provider import KeyState
from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing

CONTEXT = {"kmseal.dev/format": "v1", "kmseal.dev/namespace": "prod", "kmseal.dev/scope": "Namespace"}
HANGZHOU, BEIJING = "cn-hangzhou", "cn-beijing"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture
async def kms(certificates: Path) -> AsyncIterator[FakeKms]:
    async with FakeKms((HANGZHOU, BEIJING), folder=certificates) as kms:
        yield kms


@pytest.fixture
def settings(kms: FakeKms) -> KmsSettings:
    return KmsSettings(
        endpoints={region: kms.endpoint(region) for region in kms.regions},
        ca_file=kms.ca_file,
        sts_ca_file=kms.ca_file,
        crypto_per_second=10_000.0,
    )


def environment(identity: Identity) -> dict[str, str]:
    found = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
    }
    return found | ({"ALIBABA_CLOUD_SECURITY_TOKEN": identity.security_token} if identity.security_token else {})


@pytest.fixture
async def keyring(kms: FakeKms, settings: KmsSettings) -> AsyncIterator[Keyring]:
    async with Keyring(settings, environment(kms.add_identity("operator"))) as keyring:
        yield keyring


async def test_a_data_key_makes_the_round_trip_with_one_request_each_way(kms: FakeKms, keyring: Keyring) -> None:
    """GenerateDataKey through an alias, then one Decrypt; the wrapping names the key, and the audit id comes along."""
    arn = kms.create_key("alias/app")
    fresh = await keyring.generate(arn.rpartition(":")[0] + ":alias/app", CONTEXT)
    assert fresh.wrapping.key_id == arn
    assert fresh.wrapping.key_version_id == kms.key(arn).primary.version_id
    opened = await keyring.unwrap([fresh.wrapping], CONTEXT)
    assert opened.data_key == fresh.data_key
    assert (opened.key_id, opened.key_version_id) == (arn, fresh.wrapping.key_version_id)
    assert opened.request_id == kms.audit.of("Decrypt")[0].request_id
    assert kms.calls.total == 2


async def test_a_data_key_is_wrapped_for_a_second_region(kms: FakeKms, keyring: Keyring) -> None:
    """Either wrapping opens it; when the first region is down the second one does."""
    first, second = kms.create_key(region=HANGZHOU), kms.create_key(region=BEIJING)
    fresh = await keyring.generate(first, CONTEXT)
    wrapping = await keyring.wrap(second, fresh.data_key, CONTEXT)
    assert wrapping.key_id == second
    await kms.stop_listening(HANGZHOU)
    opened = await keyring.unwrap([fresh.wrapping, wrapping], CONTEXT)
    assert (opened.key_id, opened.data_key) == (second, fresh.data_key)


async def test_a_region_that_is_down_costs_a_few_attempts_and_comes_back_by_itself(
    kms: FakeKms, settings: KmsSettings
) -> None:
    """Once its breaker is open the other region is asked first; after recovery the order is the manifest's again."""
    asked: list[str] = []
    recovered: list[str] = []
    keyring = Keyring(
        replace(settings, breaker_failures=4, breaker_seconds=0.05),
        environment(kms.add_identity("operator")),
        observer=lambda operation, key_id, result, seconds: asked.append(f"{key_id.split(':')[2]} {result}"),
        on_recovered=recovered.append,
    )
    async with keyring:
        fresh = await keyring.generate(kms.create_key(region=HANGZHOU), CONTEXT)
        second = await keyring.wrap(kms.create_key(region=BEIJING), fresh.data_key, CONTEXT)
        await kms.stop_listening(HANGZHOU)
        asked.clear()
        for _ in range(5):
            await keyring.unwrap([fresh.wrapping, second], CONTEXT)
        assert asked.count(f"{HANGZHOU} Unavailable") == 4
        assert asked.count(f"{BEIJING} ok") == 5
        await kms.start_listening(HANGZHOU)
        await asyncio.sleep(0.06)
        await keyring.unwrap([fresh.wrapping], CONTEXT)
        assert recovered == [kms.endpoint(HANGZHOU)]


async def test_a_rotated_key_is_rewrapped_inside_kms_and_both_wrappings_open(kms: FakeKms, keyring: Keyring) -> None:
    """ReEncrypt and one DescribeKey; the label is the version that the fake really wrapped with."""
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    version = kms.rotate(arn)
    again = await keyring.rewrap(fresh.wrapping, arn, CONTEXT)
    assert again.key_version_id == version
    opened = await keyring.unwrap([again], CONTEXT)
    assert (opened.key_version_id, opened.data_key) == (version, fresh.data_key)
    assert (await keyring.unwrap([fresh.wrapping], CONTEXT)).data_key == fresh.data_key
    assert (kms.calls["ReEncrypt"], kms.calls["DescribeKey"], kms.calls["Encrypt"]) == (1, 1, 0)


async def test_rewrapping_many_objects_at_once_describes_the_key_once(kms: FakeKms, keyring: Keyring) -> None:
    """Metadata calls are per key, never per object."""
    arn = kms.create_key()
    fresh = [await keyring.generate(arn, CONTEXT) for _ in range(20)]
    version = kms.rotate(arn)
    again = await asyncio.gather(*[keyring.rewrap(one.wrapping, arn, CONTEXT) for one in fresh])
    assert {wrapping.key_version_id for wrapping in again} == {version}
    assert kms.calls["DescribeKey"] == 1


async def test_a_description_from_before_the_rotation_is_not_believed(kms: FakeKms, keyring: Keyring) -> None:
    """A wrapping that would be current by a remembered description makes us ask again."""
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    await keyring.describe(arn)
    version = kms.rotate(arn)
    assert (await keyring.rewrap(fresh.wrapping, arn, CONTEXT)).key_version_id == version


async def test_an_alias_that_moved_rewraps_to_the_key_it_names_now(kms: FakeKms, keyring: Keyring) -> None:
    """The new wrapping names the new key."""
    old, new = kms.create_key("alias/app"), kms.create_key()
    fresh = await keyring.generate(old, CONTEXT)
    kms.move_alias("alias/app", new)
    again = await keyring.rewrap(fresh.wrapping, old.rpartition(":")[0] + ":alias/app", CONTEXT)
    assert again.key_id == new
    assert (await keyring.unwrap([again], CONTEXT)).data_key == fresh.data_key


async def test_rewrapping_to_another_region_goes_through_here(kms: FakeKms, keyring: Keyring) -> None:
    """ReEncrypt does not cross regions: Decrypt there, Encrypt here."""
    first, second = kms.create_key(region=HANGZHOU), kms.create_key(region=BEIJING)
    fresh = await keyring.generate(first, CONTEXT)
    moved = await keyring.rewrap(fresh.wrapping, second, CONTEXT)
    assert (await keyring.unwrap([moved], CONTEXT)).data_key == fresh.data_key
    assert kms.calls["ReEncrypt"] == 0


async def test_a_gateway_without_reencrypt_is_noticed_once(kms: FakeKms, keyring: Keyring) -> None:
    """Decrypt and Encrypt take its place, and the answer of Encrypt says the version."""
    kms.faults.add(
        Fault(FaultKind.ERROR, actions=("ReEncrypt",), status=400, code="UnsupportedOperation", message="no")
    )
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    version = kms.rotate(arn)
    for _ in range(3):
        again = await keyring.rewrap(fresh.wrapping, arn, CONTEXT)
        assert again.key_version_id == version
        assert (await keyring.unwrap([again], CONTEXT)).data_key == fresh.data_key
    assert kms.calls["ReEncrypt"] <= 1
    assert kms.calls["Encrypt"] == 3


async def test_describe_follows_states_and_versions(kms: FakeKms, keyring: Keyring) -> None:
    """State and primary version as they are at each call, by alias too."""
    arn = kms.create_key("alias/app")
    by_alias = await keyring.describe(arn.rpartition(":")[0] + ":alias/app")
    assert (by_alias.key_id, by_alias.state) == (arn, KeyState.ENABLED)
    version = kms.rotate(arn)
    kms.disable(arn)
    description = await keyring.describe(arn)
    assert (description.state, description.primary_version) == (KeyState.DISABLED, version)
    waiting = await keyring.describe(kms.create_key(origin="EXTERNAL"))
    assert waiting.state is KeyState.PENDING_IMPORT


async def test_another_context_is_refused(kms: FakeKms, keyring: Keyring) -> None:
    """KMS binds what B3 says: another namespace does not open it."""
    fresh = await keyring.generate(kms.create_key(), CONTEXT)
    with pytest.raises(Refused) as caught:
        await keyring.unwrap([fresh.wrapping], CONTEXT | {"kmseal.dev/namespace": "dev"})
    assert caught.value.reason == "KmsRefused"
    assert kms.calls["Decrypt"] == 1


async def test_a_key_of_another_region_is_not_found_there(kms: FakeKms, keyring: Keyring) -> None:
    """The region of the ARN decides where to ask."""
    wrong = kms.create_key(region=HANGZHOU).replace(HANGZHOU, BEIJING)
    with pytest.raises(KeyUnusable, match=f"not found in region {BEIJING}") as caught:
        await keyring.generate(wrong, CONTEXT)
    assert caught.value.reason == "KeyNotFound"


async def test_a_disabled_key_heals_when_it_is_enabled(kms: FakeKms, keyring: Keyring) -> None:
    """The kill switch, and back, without anything new on our side."""
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    kms.disable(arn)
    with pytest.raises(KeyUnusable) as caught:
        await keyring.unwrap([fresh.wrapping], CONTEXT)
    assert caught.value.reason == "KeyDisabled"
    kms.enable(arn)
    assert (await keyring.unwrap([fresh.wrapping], CONTEXT)).data_key == fresh.data_key


async def test_an_identity_without_decrypt_can_seal_and_not_open(kms: FakeKms, settings: KmsSettings) -> None:
    """The denial names the right that is missing."""
    arn = kms.create_key()
    async with Keyring(settings, environment(kms.add_identity("dev", actions=("GenerateDataKey",)))) as keyring:
        fresh = await keyring.generate(arn, CONTEXT)
        with pytest.raises(AccessDenied, match="grant kms:Decrypt"):
            await keyring.unwrap([fresh.wrapping], CONTEXT)


async def test_credentials_that_kms_does_not_know_are_refused(kms: FakeKms, settings: KmsSettings) -> None:
    """An unknown key id, and a wrong secret."""
    arn, known = kms.create_key(), environment(kms.add_identity("operator"))
    for change in ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"):
        async with Keyring(settings, known | {change: "wrong"}) as keyring:
            with pytest.raises(BadCredentials):
                await keyring.generate(arn, CONTEXT)


async def test_a_clock_that_is_wrong_is_named(kms: FakeKms, settings: KmsSettings) -> None:
    """An hour off: the error says so, and it passes by itself when the clock is right."""
    skew = [3600.0]
    timing = Timing(wall=lambda: time.time() + skew[0])
    identity = environment(kms.add_identity("operator"))
    async with Keyring(replace(settings, deadline_seconds=0.5), identity, timing=timing) as keyring:
        with pytest.raises(Unavailable, match="set the clock") as caught:
            await keyring.generate(kms.create_key(), CONTEXT)
        assert caught.value.reason == "ClockSkew"
        skew[0] = 0.0
        await keyring.generate(kms.create_key(), CONTEXT)


async def test_an_untrusted_certificate_is_misconfigured(kms: FakeKms, settings: KmsSettings) -> None:
    """Without the authority of the fake; the setting is named, and nothing was sent."""
    async with Keyring(replace(settings, ca_file=None), environment(kms.add_identity("operator"))) as keyring:
        with pytest.raises(Misconfigured, match="not trusted") as caught:
            await keyring.generate(kms.create_key(), CONTEXT)
    assert caught.value.field == "KMSEAL_KMS_CA_FILE"
    assert kms.calls.total == 0


async def test_a_name_is_checked_before_anything_is_sent(kms: FakeKms, keyring: Keyring) -> None:
    """Bare ids and aliases are refused with the form that is wanted."""
    for key in ("acs:kms:cn-hangzhou:1:secret/x", "acs:kms:CN:1:key/x", "acs:kms:cn-hangzhou::key/x", "acs:kms:"):
        with pytest.raises(Malformed, match="give the ARN"):
            await keyring.generate(key, CONTEXT)
    assert kms.calls.total == 0


async def test_many_unwraps_at_once_keep_to_the_concurrency_and_never_block_the_loop(
    kms: FakeKms, settings: KmsSettings
) -> None:
    """While KMS takes 50 ms each, four are in flight at most, and a ticker on the same loop keeps ticking."""
    late = 0.0
    arn = kms.create_key()

    async def tick() -> None:
        nonlocal late
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            late = max(late, time.perf_counter() - before)

    async with Keyring(replace(settings, concurrency=4), environment(kms.add_identity("operator"))) as keyring:
        fresh = await keyring.generate(arn, CONTEXT)
        kms.faults.add(latency(0.05, "Decrypt"))
        ticker = asyncio.create_task(tick())
        started = time.perf_counter()
        await asyncio.gather(*[keyring.unwrap([fresh.wrapping], CONTEXT) for _ in range(40)])
        took = time.perf_counter() - started
        ticker.cancel()
    assert took >= 0.05 * 40 / 4
    assert late < took / 2


async def test_what_is_asked_for_in_the_foreground_overtakes_the_background(
    kms: FakeKms, settings: KmsSettings
) -> None:
    """Thirty re-wrappings in two steps each, and one new object in the middle of them."""
    kms.faults.add(
        Fault(FaultKind.ERROR, actions=("ReEncrypt",), status=400, code="UnsupportedOperation", message="no")
    )
    arn, done, requests, burst_is_over = kms.create_key(), [], [], asyncio.Event()
    async with Keyring(settings, environment(kms.add_identity("setup"))) as setup:
        fresh = (await setup.generate(arn, CONTEXT)).wrapping
        known = await setup.describe(arn)

    async def rewrap(keyring: Keyring) -> None:
        await keyring.rewrap(fresh, arn, CONTEXT, description=known)
        done.append("background")

    def observe(operation: str, key_id: str, result: str, seconds: float) -> None:
        requests.append(operation)
        if len(requests) == 42:
            burst_is_over.set()

    slow, identity = replace(settings, crypto_per_second=40.0), environment(kms.add_identity("operator"))
    async with Keyring(slow, identity, observer=observe) as keyring:
        with in_background():
            tasks = [asyncio.create_task(rewrap(keyring)) for _ in range(30)]
        await burst_is_over.wait()
        await keyring.unwrap([fresh], CONTEXT)
        before = len(done)
        await asyncio.gather(*tasks)
    assert before < 25
    assert len(done) == 30
    assert kms.calls["Encrypt"] == 30


async def test_the_background_is_told_at_once_that_the_budget_has_no_turn_for_it_in_time(
    kms: FakeKms, settings: KmsSettings
) -> None:
    """Throttled by us, with the wait: nobody may think that KMS does not answer."""
    slow = replace(settings, crypto_per_second=10.0, deadline_seconds=0.5)
    async with Keyring(slow, environment(kms.add_identity("operator"))) as keyring:
        arn = kms.create_key()
        with in_background():
            outcomes = await asyncio.gather(
                *[keyring.generate(arn, CONTEXT) for _ in range(40)], return_exceptions=True
            )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Throttled)]
    assert len(refused) + kms.calls["GenerateDataKey"] == 40
    assert len(refused) >= 20
    assert all((one.retry_after or 0.0) > 0.0 for one in refused)


async def test_figures_show_each_endpoint_with_its_breaker(kms: FakeKms, settings: KmsSettings) -> None:
    """Failures in a row are counted, and an open breaker is seen."""
    quick = replace(settings, breaker_failures=2, deadline_seconds=0.5)
    async with Keyring(quick, environment(kms.add_identity("operator"))) as keyring:
        assert keyring.figures().endpoints == ()
        await keyring.generate(kms.create_key(region=HANGZHOU), CONTEXT)
        assert [(one.closed, one.failures) for one in keyring.figures().endpoints] == [(True, 0)]
        await kms.stop_listening(BEIJING)
        with pytest.raises(Unavailable):
            await keyring.generate(kms.create_key(region=BEIJING), CONTEXT)
        figures = {one.endpoint: one for one in keyring.figures().endpoints}
        assert figures[kms.endpoint(HANGZHOU)].closed
        assert not figures[kms.endpoint(BEIJING)].closed
        assert figures[kms.endpoint(BEIJING)].failures == 2
        assert {one.region: one.in_flight for one in keyring.figures().regions} == {HANGZHOU: 0, BEIJING: 0}


# -- RRSA


def jwt(subject: str = "system:serviceaccount:kmseal:operator") -> str:
    parts = {"alg": "RS256"}, {"aud": ["sts.aliyuncs.com"], "sub": subject, "exp": time.time() + 600, "canary": "J3W7T"}
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"
    )


@pytest.fixture
def rrsa(kms: FakeKms, tmp_path: Path) -> dict[str, str]:
    """The environment of a pod with RRSA."""
    token = tmp_path / "token"
    token.write_text(jwt())
    return {
        "ALIBABA_CLOUD_ROLE_ARN": kms.add_role("kmseal", subjects=("system:serviceaccount:kmseal:*",)),
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": kms.add_oidc_provider("ack-rrsa"),
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token),
        "ALIBABA_CLOUD_STS_ENDPOINT": kms.endpoint(HANGZHOU),
    }


async def test_rrsa_exchanges_the_token_once_and_signs_with_what_it_gets(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str]
) -> None:
    """Twenty calls at once meet a cold start: one AssumeRoleWithOIDC, and KMS accepts the security token."""
    async with Keyring(settings, rrsa) as keyring:
        arn = kms.create_key()
        await asyncio.gather(*[keyring.generate(arn, CONTEXT) for _ in range(20)])
    assert kms.calls["AssumeRoleWithOIDC"] == 1
    assert {record.identity for record in kms.audit.of("GenerateDataKey")} == {"kmseal/kmseal"}


async def test_a_role_that_does_not_trust_the_token_is_bad_credentials(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str], tmp_path: Path
) -> None:
    """The remedy points to the trust policy; a corrected token file is enough to heal."""
    (tmp_path / "token").write_text(jwt("system:serviceaccount:other:thing"))
    now = [0.0]
    async with Keyring(settings, rrsa, timing=Timing(clock=lambda: now[0])) as keyring:
        arn = kms.create_key()
        for _ in range(3):
            with pytest.raises(BadCredentials, match="trust policy"):
                await keyring.generate(arn, CONTEXT)
        assert kms.calls["AssumeRoleWithOIDC"] == 1, "a failed exchange is not repeated for each call"
        (tmp_path / "token").write_text(jwt())
        now[0] += 60.0
        await keyring.generate(arn, CONTEXT)


async def test_a_temporary_key_that_kms_refuses_is_renewed_once(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str]
) -> None:
    """Revoked before its time: the call itself succeeds, after one more exchange."""
    async with Keyring(settings, rrsa) as keyring:
        arn = kms.create_key()
        await keyring.generate(arn, CONTEXT)
        kms.faults.add(
            Fault(FaultKind.ERROR, ("Generate*",), times=1, status=400, code="InvalidSecurityToken.Expired", message="")
        )
        await keyring.generate(arn, CONTEXT)
    assert kms.calls["AssumeRoleWithOIDC"] == 2


async def test_a_missing_token_file_is_misconfigured(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str], tmp_path: Path
) -> None:
    """The error names variable and file."""
    (tmp_path / "token").unlink()
    async with Keyring(settings, rrsa) as keyring:
        with pytest.raises(Misconfigured, match="token") as caught:
            await keyring.generate(kms.create_key(), CONTEXT)
    assert caught.value.field == "ALIBABA_CLOUD_OIDC_TOKEN_FILE"


async def test_the_gateway_of_an_instance_serves_all_that_the_operator_needs(certificates: Path) -> None:
    """It has neither ReEncrypt nor DescribeKey: re-wrapping goes through here, and a probe tells the version."""
    async with FakeKms((HANGZHOU,), folder=certificates, dedicated_gateway=True) as kms:
        settings = KmsSettings(endpoints={"*": kms.endpoint()}, ca_file=kms.ca_file)
        async with Keyring(settings, environment(kms.add_identity("operator"))) as keyring:
            arn = kms.create_key()
            fresh = await keyring.generate(arn, CONTEXT)
            version = kms.rotate(arn)
            again = await keyring.rewrap(fresh.wrapping, arn, CONTEXT)
            assert again.key_version_id == version
            assert (await keyring.unwrap([again], CONTEXT)).data_key == fresh.data_key
            assert (await keyring.describe(arn)).primary_version == version


# -- leaks


FAULTS: dict[str, Callable[[FakeKms, str], Any]] = {
    "none": lambda kms, arn: None,
    "throttled": lambda kms, arn: kms.faults.add(throttling(retry_after=9000)),
    "server error": lambda kms, arn: kms.faults.add(Fault(FaultKind.ERROR)),
    "bad gateway": lambda kms, arn: kms.faults.add(Fault(FaultKind.BAD_GATEWAY)),
    "html": lambda kms, arn: kms.faults.add(Fault(FaultKind.HTML)),
    "reset": lambda kms, arn: kms.faults.add(Fault(FaultKind.RESET)),
    "truncated": lambda kms, arn: kms.faults.add(Fault(FaultKind.TRUNCATE)),
    "lost": lambda kms, arn: kms.faults.add(Fault(FaultKind.LOST)),
    "drip": lambda kms, arn: kms.faults.add(Fault(FaultKind.DRIP, seconds=0.05)),
    "late": lambda kms, arn: kms.faults.add(latency(5.0)),
    "disabled": lambda kms, arn: kms.disable(arn),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("signing", ["access key", "rrsa"])
async def test_no_secret_reaches_an_error_or_a_log(
    fault: str, signing: str, kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str],
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Data key, wrapped bytes, access key secret, security token and JWT, with all loggers at DEBUG."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    identity = kms.add_identity("operator")
    found = environment(identity) if signing == "access key" else rrsa
    arn = kms.create_key()
    async with Keyring(settings, environment(identity)) as keyring:
        fresh = await keyring.generate(arn, CONTEXT)
    raised: list[KmsealError] = []
    FAULTS[fault](kms, arn)
    async with Keyring(replace(settings, deadline_seconds=0.3, attempt_seconds=0.2), found) as keyring:
        for work in (
            lambda: keyring.generate(arn, CONTEXT),
            lambda: keyring.wrap(arn, fresh.data_key, CONTEXT),
            lambda: keyring.unwrap([fresh.wrapping], CONTEXT),
            lambda: keyring.unwrap([fresh.wrapping], {"another": "context"}),
            lambda: keyring.rewrap(fresh.wrapping, arn, CONTEXT),
        ):
            try:
                await work()
            except KmsealError as error:
                raised.append(error)
    assert len(raised) == (1 if fault == "none" else 5)
    secrets = [
        fresh.data_key.reveal(),
        fresh.data_key.reveal().hex().encode(),
        base64.b64encode(fresh.data_key.reveal()).rstrip(b"="),
        base64.b64encode(fresh.wrapping.wrapped)[50:90],
        identity.access_key_secret.encode(),
        Path(rrsa["ALIBABA_CLOUD_OIDC_TOKEN_FILE"]).read_bytes()[30:],
        *[other.security_token.encode() for other in kms.identities if other.security_token],
        *[other.access_key_secret.encode() for other in kms.identities],
    ]
    out, err = capfd.readouterr()
    shown = [out, err, caplog.text, *[f"{one} {one!r} {one.__dict__}" for one in raised]]
    for one in raised:
        assert one.__cause__ is None
        chain: BaseException | None = one
        while chain is not None:
            shown.append(f"{type(chain)} {chain} {chain!r}")
            chain = chain.__context__
    text = "\n".join(shown).encode()
    assert [secret for secret in secrets if secret in text] == []
