"""Endpoints, authorities and identities of single keys, against fake KMSs over TLS."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kmseal.errors import BadCredentials, KmsealError, Misconfigured
from kmseal.fakekms.identities import Identity
from kmseal.fakekms.server import FakeKms
from kmseal.kms.connection import AccessKey, AssumedRole, Connection
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.redacted import Redacted

CONTEXT = {"kmseal.dev/format": "v1", "kmseal.dev/namespace": "prod"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture
async def kms(certificates: Path) -> AsyncIterator[FakeKms]:
    async with FakeKms(("cn-hangzhou",), folder=certificates) as kms:
        yield kms


@pytest.fixture
async def other(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FakeKms]:
    """Another account's, with an authority of its own that the process does not know."""
    async with FakeKms(("cn-hangzhou",), account="2000000000000002", folder=tmp_path_factory.mktemp("other")) as kms:
        yield kms


@pytest.fixture
def environment(kms: FakeKms) -> dict[str, str]:
    identity = kms.add_identity("operator")
    return {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
    }


@pytest.fixture
def settings(kms: FakeKms) -> KmsSettings:
    return KmsSettings(endpoints={"*": kms.endpoint()}, ca_file=kms.ca_file, sts_ca_file=kms.ca_file)


@pytest.fixture
async def keyring(settings: KmsSettings, environment: dict[str, str]) -> AsyncIterator[Keyring]:
    async with Keyring(settings, environment) as keyring:
        yield keyring


def access_key(identity: Identity) -> AccessKey:
    return AccessKey(identity.access_key_id, Redacted(identity.access_key_secret.encode()))


def connection_to(kms: FakeKms, identity: Identity) -> Connection:
    return Connection(kms.endpoint(), Path(str(kms.ca_file)).read_text(), access_key(identity))


async def fail(keyring: Keyring, key: str) -> KmsealError:
    with pytest.raises(KmsealError) as caught:
        await keyring.generate(key, CONTEXT)
    error = caught.value
    assert error.__cause__ is None
    assert "canary" not in f"{error} {error!r} {error.__dict__} {error.__context__!r}"
    return error


async def test_a_data_key_moves_to_another_account_that_knows_nothing_of_the_first(
    kms: FakeKms, other: FakeKms, keyring: Keyring
) -> None:
    """Endpoint, authority and access key of its own: Decrypt here, Encrypt there, and both wrappings open."""
    here, there = kms.create_key(), other.create_key()
    keyring.connect(there, connection_to(other, other.add_identity("guest")))
    fresh = await keyring.generate(here, CONTEXT)
    moved = await keyring.rewrap(fresh.wrapping, there, CONTEXT)
    assert (kms.calls["Decrypt"], other.calls["Encrypt"], kms.calls["ReEncrypt"]) == (1, 1, 0)
    assert (await keyring.unwrap([moved], CONTEXT)).data_key == fresh.data_key
    assert {record.identity for record in other.audit.of("Decrypt")} == {"guest"}
    assert (moved.key_id, moved.key_version_id) == (there, other.key(there).primary.version_id)


async def test_comments_between_the_certificates_of_a_bundle_do_no_harm(other: FakeKms, keyring: Keyring) -> None:
    """Bundles are often concatenated with the names of their authorities, in any language."""
    there = other.create_key()
    connection = connection_to(other, other.add_identity("guest"))
    keyring.connect(there, replace(connection, ca_pem=f"# Vertrauenswürdig\n{connection.ca_pem}\n# Ende"))
    await keyring.generate(there, CONTEXT)


async def test_credentials_alone_change_only_the_identity(kms: FakeKms, keyring: Keyring) -> None:
    """Same endpoint, same authority; the other keys go on as the process."""
    tenant, own = kms.create_key(), kms.create_key()
    keyring.connect(tenant, Connection(credentials=access_key(kms.add_identity("tenant"))))
    await keyring.generate(tenant, CONTEXT)
    await keyring.generate(own, CONTEXT)
    assert [record.identity for record in kms.audit.of("GenerateDataKey")] == ["tenant", "operator"]


async def test_a_temporary_access_key_brings_its_token(kms: FakeKms, keyring: Keyring) -> None:
    """White space around all three, as files and heredocs leave it, does no harm."""
    identity, arn = kms.add_temporary_identity("guest", 600.0), kms.create_key()
    parts = (identity.access_key_secret, str(identity.security_token))
    secret, token = (Redacted(f" {part}\n".encode()) for part in parts)
    keyring.connect(arn, Connection(credentials=AccessKey(f"{identity.access_key_id}\n", secret, token)))
    await keyring.generate(arn, CONTEXT)
    assert [record.access_key_id for record in kms.audit.of("GenerateDataKey")] == [identity.access_key_id]


async def test_a_secret_that_was_replaced_is_used_from_the_next_call_on(kms: FakeKms, keyring: Keyring) -> None:
    """A wrong one is refused by KMS, the right one heals it."""
    arn, identity = kms.create_key(), kms.add_identity("tenant")
    wrong = AccessKey(identity.access_key_id, Redacted(b"secret-canary"))
    keyring.connect(arn, Connection(credentials=wrong))
    assert isinstance(await fail(keyring, arn), BadCredentials)
    keyring.connect(arn, Connection(credentials=access_key(identity)))
    await keyring.generate(arn, CONTEXT)


@pytest.mark.parametrize(
    ("connection", "field", "words"),
    [
        (Connection(endpoint="https://kms.example.com/"), "endpoint", "without https://"),
        (Connection(endpoint="http://kms.example.com"), "endpoint", "plain HTTP"),
        (Connection(ca_pem="nothing"), "caBundle", "no certificate"),
        (Connection(ca_pem="ünlesbar"), "caBundle", "no certificate"),
        (
            Connection(ca_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "caBundle",
            "no certificate",
        ),
        (Connection(credentials=AccessKey("", Redacted(b"canary"))), "credentials", "access key id is empty"),
        (Connection(credentials=AccessKey("LTAI", Redacted(b" \n"))), "credentials", "access key secret is empty"),
        (Connection(credentials=AccessKey("LTAI", Redacted(b"can\r\nary"))), "credentials", "characters that none has"),
        (
            Connection(credentials=AccessKey("LTAI", Redacted(b"canary"), Redacted("canäry".encode()))),
            "credentials",
            "security token",
        ),
        (
            Connection(credentials=AssumedRole("acs:ram::1:role/a")),
            "credentials",
            "ALIBABA_CLOUD_OIDC_PROVIDER_ARN is not set",
        ),
        (
            Connection(credentials=AssumedRole("acs:ram::1:role/a", "acs:ram::1:oidc-provider/p")),
            "credentials",
            "ALIBABA_CLOUD_OIDC_TOKEN_FILE is not set",
        ),
    ],
    ids=range(11),
)
async def test_a_connection_that_cannot_be_is_misconfigured_by_its_field(
    kms: FakeKms, keyring: Keyring, connection: Connection, field: str, words: str
) -> None:
    """Nothing is sent, and no secret is shown."""
    arn = kms.create_key()
    keyring.connect(arn, connection)
    error = await fail(keyring, arn)
    assert isinstance(error, Misconfigured)
    assert error.field == field
    assert words in str(error)
    assert kms.calls.total == 0


@pytest.mark.parametrize("ca_pem", ["own", "foreign"])
async def test_an_endpoint_whose_authority_is_unknown_names_the_bundle(
    kms: FakeKms, other: FakeKms, keyring: Keyring, ca_pem: str
) -> None:
    """Whether the connection brings none or the wrong one."""
    arn = other.create_key()
    pem = Path(str(kms.ca_file)).read_text() if ca_pem == "foreign" else ""
    keyring.connect(arn, replace(connection_to(other, other.add_identity("guest")), ca_pem=pem))
    error = await fail(keyring, arn)
    assert isinstance(error, Misconfigured)
    assert (error.field, other.calls.total) == ("caBundle", 0)
    assert "not trusted" in str(error)


# -- another role


def jwt(subject: str) -> str:
    parts = {"alg": "RS256"}, {"aud": ["sts.aliyuncs.com"], "sub": subject, "exp": time.time() + 600}
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"
    )


@pytest.fixture
def rrsa(kms: FakeKms, tmp_path: Path) -> dict[str, str]:
    """The environment of a pod with RRSA, whose own role may do nothing."""
    token = tmp_path / "token"
    token.write_text(jwt("system:serviceaccount:kmseal:operator"))
    return {
        "ALIBABA_CLOUD_ROLE_ARN": kms.add_role("nothing", ()),
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": kms.add_oidc_provider("ack-rrsa"),
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token),
        "ALIBABA_CLOUD_STS_ENDPOINT": kms.endpoint(),
    }


async def test_a_key_is_used_by_another_role_of_the_same_token(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str]
) -> None:
    """One exchange for all keys of that role, with the process's provider and a session name of its own."""
    role = AssumedRole(kms.add_role("tenant"), session_name="kmseal-tenant")
    async with Keyring(settings, rrsa) as keyring:
        keys = [kms.create_key() for _ in range(3)]
        for arn in keys:
            keyring.connect(arn, Connection(credentials=role))
        await asyncio.gather(*[keyring.generate(arn, CONTEXT) for arn in keys * 3])
    assert kms.calls["AssumeRoleWithOIDC"] == 1
    assert {record.identity for record in kms.audit.of("GenerateDataKey")} == {"tenant/kmseal-tenant"}


async def test_a_token_file_that_is_missing_is_the_credentials_fault_and_heals(
    kms: FakeKms, settings: KmsSettings, rrsa: dict[str, str], tmp_path: Path
) -> None:
    """The volume may be mounted late."""
    token = (tmp_path / "token").read_text()
    (tmp_path / "token").unlink()
    arn = kms.create_key()
    connection = Connection(credentials=AssumedRole(kms.add_role("tenant")))
    async with Keyring(settings, rrsa) as keyring:
        keyring.connect(arn, connection)
        error = await fail(keyring, arn)
        assert isinstance(error, Misconfigured)
        assert error.field == "credentials"
        assert str(tmp_path / "token") in str(error)
        (tmp_path / "token").write_text(token)
        keyring.connect(arn, None)
        keyring.connect(arn, connection)
        await keyring.generate(arn, CONTEXT)
