"""What is asked about keys: by DescribeKey, by a probe where there is none, and their public halves."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from kmseal.errors import KeyUnusable, Refused, Unavailable
from kmseal.fakekms.faults import Fault, FaultKind
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.provider import NOT_FOUND, UNUSABLE_STATES, KeyDescription, KeyState
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

Server = Callable[..., Awaitable[Any]]
CONTEXT = {"kmseal.dev/format": "v1", "kmseal.dev/namespace": "prod"}


def environment(kms: FakeKms) -> dict[str, str]:
    identity = kms.add_identity("operator")
    return {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(params=["shared gateway", "dedicated gateway"])
async def kms(request: pytest.FixtureRequest, certificates: Path) -> AsyncIterator[FakeKms]:
    dedicated = request.param == "dedicated gateway"
    async with FakeKms(("cn-hangzhou",), folder=certificates, dedicated_gateway=dedicated) as kms:
        yield kms


@pytest.fixture
async def keyring(kms: FakeKms) -> AsyncIterator[Keyring]:
    settings = KmsSettings(endpoints={"*": kms.endpoint()}, ca_file=kms.ca_file)
    async with Keyring(settings, environment(kms)) as keyring:
        yield keyring


def alias_of(arn: str) -> str:
    return arn.rpartition(":")[0] + ":alias/app"


async def test_a_description_is_one_call_once_the_gateway_is_known(kms: FakeKms, keyring: Keyring) -> None:
    """By key and by alias; what a gateway does not offer is asked for once in its life."""
    arn = kms.create_key("alias/app")
    for key in (arn, alias_of(arn), arn):
        version = kms.rotate(arn)
        assert await keyring.describe(key) == KeyDescription(arn, KeyState.ENABLED, version)
    if kms.service.dedicated_gateway:
        assert (kms.calls["DescribeKey"], kms.calls["GenerateDataKeyWithoutPlaintext"]) == (1, 3)
        assert kms.audit.of("GenerateDataKeyWithoutPlaintext")[0].context == {"kmseal.dev/probe": "version"}
    else:
        assert kms.calls.total == 3


async def test_a_key_that_cannot_be_used_is_described_all_the_same(kms: FakeKms, keyring: Keyring) -> None:
    """State by state, with the version that was seen last."""
    arn = kms.create_key()
    version = (await keyring.describe(arn)).primary_version
    kms.disable(arn)
    assert await keyring.describe(arn) == KeyDescription(arn, KeyState.DISABLED, version)
    kms.enable(arn)
    kms.schedule_deletion(arn, time.time() + 7 * 86_400)
    assert await keyring.describe(arn) == KeyDescription(arn, KeyState.PENDING_DELETION, version)
    empty = kms.create_key(origin="EXTERNAL")
    assert (await keyring.describe(empty)).state is KeyState.PENDING_IMPORT


async def test_a_disabled_key_behind_an_alias_says_its_state_either_way(kms: FakeKms, keyring: Keyring) -> None:
    """The refusal of a probe does not say which key it is about: it is handed on with its reason."""
    arn = kms.create_key("alias/app")
    kms.disable(arn)
    if kms.service.dedicated_gateway:
        with pytest.raises(KeyUnusable) as caught:
            await keyring.describe(alias_of(arn))
        assert UNUSABLE_STATES[caught.value.reason] is KeyState.DISABLED
    else:
        assert (await keyring.describe(alias_of(arn))).state is KeyState.DISABLED


@pytest.mark.parametrize("resource", ["key/key-gone", "alias/gone"])
async def test_a_key_that_is_not_there_is_unusable_for_that_reason(
    kms: FakeKms, keyring: Keyring, resource: str
) -> None:
    """Told apart from every state that a key can have."""
    with pytest.raises(KeyUnusable) as caught:
        await keyring.describe(kms.create_key().rpartition(":")[0] + f":{resource}")
    assert caught.value.reason in NOT_FOUND
    assert caught.value.reason not in UNUSABLE_STATES


# -- what the caller knows


async def test_a_description_that_the_caller_has_saves_the_query(kms: FakeKms, keyring: Keyring) -> None:
    """However many objects are re-wrapped: one request each, or two where the gateway has no ReEncrypt."""
    arn = kms.create_key()
    fresh = [await keyring.generate(arn, CONTEXT) for _ in range(5)]
    version = kms.rotate(arn)
    known = await keyring.describe(arn)
    before = kms.calls.total
    for one in fresh:
        again = await keyring.rewrap(one.wrapping, arn, CONTEXT, description=known)
        assert (again.key_id, again.key_version_id) == (arn, version)
        assert (await keyring.unwrap([again], CONTEXT)).data_key == one.data_key
    # On top of re-wrapping and the check: the gateway is asked once for ReEncrypt.
    assert kms.calls.total - before == (5 * 3 + 1 if kms.service.dedicated_gateway else 5 * 2)


async def test_a_description_from_before_a_rotation_makes_the_new_wrapping_count_as_stale(certificates: Path) -> None:
    """It names the older version although a newer one wrapped it: never the other way about."""
    async with FakeKms(("cn-hangzhou",), folder=certificates) as kms:
        settings = KmsSettings(endpoints={"*": kms.endpoint()}, ca_file=kms.ca_file)
        async with Keyring(settings, environment(kms)) as keyring:
            arn = kms.create_key()
            fresh = await keyring.generate(arn, CONTEXT)
            second = kms.rotate(arn)
            known = await keyring.describe(arn)
            third = kms.rotate(arn)
            again = await keyring.rewrap(fresh.wrapping, arn, CONTEXT, description=known)
            assert again.key_version_id == second
            assert (await keyring.unwrap([again], CONTEXT)).key_version_id == third


async def test_a_description_of_another_key_is_not_used(kms: FakeKms, keyring: Keyring) -> None:
    """The wrapping would be under a key that nobody asked for."""
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    wrong = await keyring.describe(kms.create_key())
    again = await keyring.rewrap(fresh.wrapping, arn, CONTEXT, description=wrong)
    assert again.key_id == arn
    assert (await keyring.unwrap([again], CONTEXT)).key_id == arn


async def test_a_borrowed_wrapping_is_not_laundered_by_rewrapping(kms: FakeKms, keyring: Keyring) -> None:
    """It names a key that it was not wrapped by; re-wrapped under that one, it would pass for its own."""
    allowed, forbidden = kms.create_key(), kms.create_key()
    fresh = await keyring.generate(forbidden, CONTEXT)
    borrowed = Wrapping(allowed, fresh.wrapping.key_version_id, Algorithm.KMS_SYMMETRIC, fresh.wrapping.wrapped)
    with pytest.raises(Refused) as caught:
        await keyring.rewrap(borrowed, allowed, CONTEXT)
    assert caught.value.reason == "WrongKey"


async def test_a_rewrap_between_two_keys_names_the_one_that_cannot_be_used(kms: FakeKms, keyring: Keyring) -> None:
    """ReEncrypt's refusal does not tell old and new apart, so the single steps are taken."""
    old, new = kms.create_key(), kms.create_key()
    fresh = await keyring.generate(old, CONTEXT)
    for disabled in (old, new):
        kms.disable(disabled)
        with pytest.raises(KeyUnusable, match=disabled) as caught:
            await keyring.rewrap(fresh.wrapping, new, CONTEXT)
        assert caught.value.reason == "KeyDisabled"
        kms.enable(disabled)


async def test_a_wrapping_of_another_context_is_refused_by_its_own_key_s_name(kms: FakeKms, keyring: Keyring) -> None:
    """What is wrong is the old wrapping, not the key that it should get."""
    old, new = kms.create_key(), kms.create_key()
    fresh = await keyring.generate(old, CONTEXT)
    with pytest.raises(Refused, match=old) as caught:
        await keyring.rewrap(fresh.wrapping, new, CONTEXT | {"kmseal.dev/namespace": "dev"})
    assert caught.value.reason == "KmsRefused"


async def test_a_gateway_without_any_description_still_rewraps(kms: FakeKms, keyring: Keyring) -> None:
    """Neither DescribeKey nor a probe: Decrypt and Encrypt, whose answer says the version."""
    kms.faults.add(
        Fault(
            FaultKind.ERROR, ("DescribeKey", "*WithoutPlaintext"), status=400, code="UnsupportedOperation", message=""
        )
    )
    arn = kms.create_key()
    fresh = await keyring.generate(arn, CONTEXT)
    version = kms.rotate(arn)
    assert (await keyring.rewrap(fresh.wrapping, arn, CONTEXT)).key_version_id == version
    with pytest.raises(Refused):
        await keyring.describe(arn)


# -- asymmetric keys


def wrap_offline(pem: str, data_key: Redacted) -> bytes:
    """What sealing without a network does."""
    public = load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    return public.encrypt(data_key.reveal(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))


async def test_what_was_wrapped_offline_is_opened_and_rewrapped_inside_kms(kms: FakeKms, keyring: Keyring) -> None:
    """The public half names its version; ReEncrypt takes the data key over in one call, or two steps do without it."""
    asymmetric, symmetric = kms.create_key("alias/app", spec="RSA_2048"), kms.create_key()
    version, data_key = kms.key(asymmetric).versions[-1].version_id, Redacted(bytes(range(32)))
    half = await keyring.public_key(alias_of(asymmetric) if not kms.service.dedicated_gateway else asymmetric, version)
    assert (half.key_id, half.key_version_id) == (asymmetric, version)
    offline = Wrapping(asymmetric, version, Algorithm.RSAES_OAEP_SHA_256, wrap_offline(half.pem, data_key))
    opened = await keyring.unwrap([offline], CONTEXT)
    assert (opened.data_key, opened.key_version_id) == (data_key, version)
    known = await keyring.describe(symmetric)
    before = kms.calls["AsymmetricDecrypt"]
    again = await keyring.rewrap(offline, symmetric, CONTEXT, description=known)
    assert (again.key_id, again.key_version_id, again.algorithm) == (
        symmetric, known.primary_version, Algorithm.KMS_SYMMETRIC,
    )  # fmt: skip
    assert (await keyring.unwrap([again], CONTEXT)).data_key == data_key
    assert kms.calls["AsymmetricDecrypt"] - before == (1 if kms.service.dedicated_gateway else 0)


async def test_the_newest_version_of_an_asymmetric_key_is_found_where_versions_can_be_listed(
    kms: FakeKms, keyring: Keyring
) -> None:
    """A dedicated gateway does not list them, and says where to ask instead."""
    arn = kms.create_key(spec="RSA_2048")
    if kms.service.dedicated_gateway:
        with pytest.raises(Refused, match="ListKeyVersions; use the region's shared endpoint"):
            await keyring.public_key(arn)
    else:
        assert (await keyring.describe(arn)).asymmetric
        assert (await keyring.public_key(arn)).key_version_id == kms.key(arn).versions[-1].version_id


async def test_a_symmetric_key_of_the_fake_has_no_public_half(kms: FakeKms, keyring: Keyring) -> None:
    """Whether it is known beforehand or said by KMS."""
    arn = kms.create_key()
    with pytest.raises(Refused):
        await keyring.public_key(arn, "some-version")


# -- answers that the fake does not give


PEM = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
KEY = {"KeyId": "k-1", "KeyState": "Enabled", "Arn": "acs:kms:cn-hangzhou:1:key/k-1"}
RSA = KEY | {"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT/DECRYPT"}
VERSIONS = [
    {"KeyId": "k-1", "KeyVersionId": f"v-{n}", "CreationDate": f"2026-01-{n:02}T00:00:00Z"} for n in (2, 4, 1, 3)
]
PUBLIC = {"KeyId": "k-1", "KeyVersionId": "v-4", "PublicKey": PEM.decode()}


def body(**members: Any) -> bytes:
    return json.dumps({"RequestId": "0A1B-2C", **members}).encode()


@pytest.fixture
async def play(
    raw_server: Server, respond: Any, static_environment: dict[str, str], settings_for: Any
) -> AsyncIterator[Callable[[dict[str, bytes]], Awaitable[tuple[Keyring, Any]]]]:
    """A keyring before a server that gives one answer for each action, and refuses the others as unsupported."""
    keyrings: list[Keyring] = []

    async def start(answers: dict[str, bytes]) -> tuple[Keyring, Any]:
        async def reply(request: Any, writer: Any) -> None:
            answer = answers.get(request.headers["x-acs-action"])
            unsupported = respond(400, body(Code="UnsupportedOperation"))
            await (unsupported if answer is None else respond(200, answer))(request, writer)

        server = await raw_server(reply)
        keyrings.append(Keyring(settings_for(server.endpoint), static_environment))
        return keyrings[-1], server

    yield start
    for keyring in keyrings:
        await keyring.close()


def sent(server: Any) -> list[tuple[str, dict[str, str]]]:
    return [(request.headers["x-acs-action"], dict(request.query)) for request in server.requests]


@pytest.mark.parametrize(
    ("metadata", "version", "asymmetric"),
    [
        (RSA, "", True),
        (RSA | {"PrimaryKeyVersion": ""}, "", True),
        (RSA | {"PrimaryKeyVersion": "v-1"}, "v-1", True),
        (KEY | {"KeySpec": "EC_SM2", "KeyUsage": "SIGN/VERIFY"}, "", True),
        (KEY | {"KeyUsage": "SIGN/VERIFY"}, "", True),
        (KEY | {"KeySpec": "Aliyun_AES_256", "PrimaryKeyVersion": "v-1"}, "v-1", False),
        (KEY | {"PrimaryKeyVersion": "v-1"}, "v-1", False),
    ],
    ids=range(7),
)
async def test_an_asymmetric_key_is_told_by_its_spec_and_needs_no_primary_version(
    play: Any, arn: str, metadata: dict[str, str], version: str, asymmetric: bool
) -> None:
    """A symmetric one must have it, or the answer is none."""
    keyring, _ = await play({"DescribeKey": body(KeyMetadata=metadata)})
    assert await keyring.describe(arn) == KeyDescription(KEY["Arn"], KeyState.ENABLED, version, asymmetric)


async def test_a_public_half_is_that_of_the_newest_version(play: Any) -> None:
    """By the date of creation: the order of a list is nobody's promise. An alias is resolved first."""
    keyring, server = await play(
        {
            "DescribeKey": body(KeyMetadata=RSA),
            "ListKeyVersions": body(KeyVersions={"KeyVersion": VERSIONS}, TotalCount=4),
            "GetPublicKey": body(**PUBLIC),
        }
    )
    half = await keyring.public_key("acs:kms:cn-hangzhou:1:alias/app")
    assert (half.key_id, half.key_version_id, half.pem) == (KEY["Arn"], "v-4", PEM.decode())
    assert sent(server) == [
        ("DescribeKey", {"KeyId": "acs:kms:cn-hangzhou:1:alias/app"}),
        ("ListKeyVersions", {"KeyId": KEY["Arn"], "PageNumber": "1", "PageSize": "100"}),
        ("GetPublicKey", {"KeyId": KEY["Arn"], "KeyVersionId": "v-4"}),
    ]


async def test_the_public_half_of_a_named_version_needs_no_list(play: Any) -> None:
    """Not even a description, where the gateway has none."""
    keyring, server = await play({"GetPublicKey": body(**PUBLIC)})
    assert (await keyring.public_key(KEY["Arn"], "v-4")).key_version_id == "v-4"
    assert [action for action, _ in sent(server)] == ["DescribeKey", "GetPublicKey"]


async def test_versions_are_read_page_by_page(
    raw_server: Server, respond: Any, static_environment: dict[str, str], settings_for: Any
) -> None:
    """Until the count that the service names is reached, whatever length it gives its pages."""

    async def reply(request: Any, writer: Any) -> None:
        query, action = dict(request.query), request.headers["x-acs-action"]
        if action == "DescribeKey":
            answer = body(KeyMetadata=RSA)
        elif action == "ListKeyVersions":
            page = VERSIONS[int(query["PageNumber"]) - 1 :][:1]
            answer = body(KeyVersions={"KeyVersion": page}, TotalCount=4)
        else:
            answer = body(**PUBLIC | {"KeyVersionId": query["KeyVersionId"]})
        await respond(200, answer)(request, writer)

    server = await raw_server(reply)
    async with Keyring(settings_for(server.endpoint), static_environment) as keyring:
        assert (await keyring.public_key(KEY["Arn"])).key_version_id == "v-4"
    assert len(server.requests) == 1 + 4 + 1


async def test_a_symmetric_key_has_no_public_half(play: Any) -> None:
    """Said in our words after one query."""
    keyring, server = await play({"DescribeKey": body(KeyMetadata=KEY | {"PrimaryKeyVersion": "v-1"})})
    with pytest.raises(Refused, match="RSA_2048") as caught:
        await keyring.public_key(KEY["Arn"])
    assert caught.value.reason == "NotAsymmetric"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answers",
    [
        {"GetPublicKey": body(**PUBLIC | {"KeyId": "k-2"})},
        {"GetPublicKey": body(**PUBLIC | {"PublicKey": "-----BEGIN PUBLIC KEY-----"})},
        {"GetPublicKey": body(**PUBLIC | {"PublicKey": None})},
        {"GetPublicKey": body(**PUBLIC | {"KeyVersionId": "../x"})},
        {"ListKeyVersions": body(KeyVersions={"KeyVersion": VERSIONS})},
        {"ListKeyVersions": body(KeyVersions=[], TotalCount=4)},
        {"ListKeyVersions": body(KeyVersions={"KeyVersion": [VERSIONS[0] | {"CreationDate": "now"}]}, TotalCount=1)},
        {"ListKeyVersions": body(KeyVersions={"KeyVersion": [{}]}, TotalCount=1)},
    ],
    ids=range(8),
)
async def test_an_answer_about_versions_or_public_halves_of_the_wrong_form_is_unavailable(
    play: Any, answers: dict[str, bytes]
) -> None:
    """Above all a public half of another key: what is sealed with it would be somebody else's to open."""
    good = {
        "DescribeKey": body(KeyMetadata=RSA),
        "ListKeyVersions": body(KeyVersions={"KeyVersion": VERSIONS}, TotalCount=4),
        "GetPublicKey": body(**PUBLIC),
    }
    keyring, _ = await play(good | answers)
    with pytest.raises(Unavailable):
        await keyring.public_key(KEY["Arn"])


async def test_a_key_without_versions_has_no_public_half_yet(play: Any) -> None:
    """Its material was not imported."""
    keyring, _ = await play(
        {
            "DescribeKey": body(KeyMetadata=RSA | {"KeyState": "PendingImport"}),
            "ListKeyVersions": body(KeyVersions={"KeyVersion": []}, TotalCount=0),
        }
    )
    with pytest.raises(KeyUnusable) as caught:
        await keyring.public_key(KEY["Arn"])
    assert caught.value.reason == "KeyPendingImport"


async def test_a_wrapping_by_a_public_key_is_rewrapped_inside_kms(play: Any) -> None:
    """ReEncrypt is told key, version and algorithm of the source, and no context, which a public key does not bind."""
    symmetric = KeyDescription("acs:kms:cn-hangzhou:1:key/k-2", KeyState.ENABLED, "v-9")
    keyring, server = await play({"ReEncrypt": body(KeyId="k-1", KeyVersionId="v-4", CiphertextBlob="bmV3")})
    offline = Wrapping(KEY["Arn"], "v-4", Algorithm.RSAES_OAEP_SHA_256, b"old")
    again = await keyring.rewrap(offline, symmetric.key_id, {"a": "b"}, description=symmetric)
    assert again == Wrapping(symmetric.key_id, "v-9", Algorithm.KMS_SYMMETRIC, b"new")
    assert sent(server) == [
        (
            "ReEncrypt",
            {
                "CiphertextBlob": "b2xk",
                "DestinationKeyId": symmetric.key_id,
                "DestinationEncryptionContext": '{"a":"b"}',
                "SourceKeyId": KEY["Arn"],
                "SourceKeyVersionId": "v-4",
                "SourceEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            },
        )
    ]


async def test_a_gateway_that_reencrypts_only_symmetric_wrappings_goes_on_with_those(
    raw_server: Server, respond: Any, static_environment: dict[str, str], settings_for: Any
) -> None:
    """Its refusal of the one is remembered, and says nothing about the other."""
    target = KeyDescription("acs:kms:cn-hangzhou:1:key/k-2", KeyState.ENABLED, "v-9")

    async def reply(request: Any, writer: Any) -> None:
        query, action = dict(request.query), request.headers["x-acs-action"]
        if "SourceEncryptionAlgorithm" in query:
            await respond(400, body(Code="UnsupportedOperation"))(request, writer)
            return
        key = "k-2" if action == "Encrypt" else "k-1"
        answer = body(KeyId=key, KeyVersionId="v-9", CiphertextBlob="bmV3", Plaintext="AAAA")
        await respond(200, answer)(request, writer)

    server = await raw_server(reply)
    async with Keyring(settings_for(server.endpoint), static_environment) as keyring:
        for algorithm in (Algorithm.RSAES_OAEP_SHA_256, Algorithm.RSAES_OAEP_SHA_256, Algorithm.KMS_SYMMETRIC):
            old = Wrapping(KEY["Arn"], "v-4", algorithm, b"old")
            again = await keyring.rewrap(old, target.key_id, {}, description=target)
            assert (again.key_id, again.key_version_id) == (target.key_id, "v-9")
    assert [action for action, _ in sent(server)] == [
        "ReEncrypt", "AsymmetricDecrypt", "Encrypt", "AsymmetricDecrypt", "Encrypt", "ReEncrypt",
    ]  # fmt: skip


async def test_a_target_without_a_known_primary_version_is_not_reencrypted_to(play: Any) -> None:
    """The new wrapping could not say its version: Encrypt's answer does."""
    nameless = KeyDescription("acs:kms:cn-hangzhou:1:key/k-2", KeyState.ENABLED, "")
    keyring, server = await play(
        {
            "Decrypt": body(KeyId="k-1", KeyVersionId="v-1", Plaintext="AAAA"),
            "Encrypt": body(KeyId="k-2", KeyVersionId="v-9", CiphertextBlob="bmV3"),
        }
    )
    old = Wrapping(KEY["Arn"], "v-1", Algorithm.KMS_SYMMETRIC, b"old")
    again = await keyring.rewrap(old, nameless.key_id, {}, description=nameless)
    assert again.key_version_id == "v-9"
    assert [action for action, _ in sent(server)] == ["Decrypt", "Encrypt"]
