"""Sealing: what is checked before the key service is asked, and which keys a file's new data key gets."""

import pytest

from kmseal.cli.keyset import keys_of
from kmseal.cli.sealing import KeySet, require_keys, require_type, require_values
from kmseal.envelope import VALUES_BYTES_MAX, DataKeyId, EncryptedValue, Place, Scope
from kmseal.errors import Malformed
from kmseal.manifest import VALUES_MAX, Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.target import Target

ONE = "acs:kms:cn-hangzhou:1234567890123456:key/key-one"
TWO = "acs:kms:cn-shanghai:1234567890123456:key/key-two"


@pytest.mark.parametrize(
    "keys",
    [
        (ONE,),
        (ONE, TWO),
        ("local:dev",),
        ("acs:kms:cn-hangzhou:1:alias/a/b_c-1",),
        tuple(f"local:{n}" for n in range(8)),
    ],
)
def test_what_people_write_for_a_key_is_accepted(keys: tuple[str, ...]) -> None:
    """ARNs of keys and aliases, local keys, up to eight."""
    require_keys(KeySet(keys))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ((), "WrappingCount"),
        (tuple(f"local:{number}" for number in range(9)), "WrappingCount"),
        (("key-one",), "KeyId"),
        (("alias/app",), "KeyId"),
        (("arn:aws:kms:us-east-1:1:key/x",), "KeyId"),
        ((f"{ONE}\n",), "KeyId"),
        ((ONE, ONE), "DuplicateWrapping"),
    ],
)
def test_what_cannot_be_a_key_is_refused(keys: tuple[str, ...], reason: str) -> None:
    """Before any call."""
    with pytest.raises(Malformed) as caught:
        require_keys(KeySet(keys))
    assert caught.value.reason == reason


@pytest.mark.parametrize(("count", "size"), [(0, 1), (VALUES_MAX + 1, 1), (2, VALUES_BYTES_MAX // 2 + 1)])
def test_what_a_secret_cannot_hold_is_refused(count: int, size: int) -> None:
    """The values that stay in the object count as well."""
    values = {f"v{number}": Redacted(bytes(size)) for number in range(count)}
    with pytest.raises(Malformed):
        require_values(values)
    if count:
        (name, value), *kept = values.items()
        with pytest.raises(Malformed):
            require_values({name: value}, kept_count=len(kept), kept_bytes=sum(len(item) for _, item in kept))


def test_a_secret_may_be_as_large_as_a_secret_can_be() -> None:
    """To the last value and the last byte."""
    require_values({"a": Redacted(bytes(VALUES_BYTES_MAX))})
    require_values({"a": Redacted(b"")}, kept_count=VALUES_MAX - 1, kept_bytes=VALUES_BYTES_MAX)


@pytest.mark.parametrize(
    ("secret_type", "names"),
    [
        ("kubernetes.io/tls", {"tls.crt"}),
        ("kubernetes.io/dockerconfigjson", set()),
        ("kubernetes.io/ssh-auth", {"ssh-publickey"}),
    ],
)
def test_a_type_without_its_values_is_refused(secret_type: str, names: set[str]) -> None:
    """The API server would refuse the Secret in the cluster."""
    with pytest.raises(Malformed) as caught:
        require_type(secret_type, names)
    assert caught.value.reason == "TargetType"


def test_a_new_data_key_gets_the_keys_of_those_in_use() -> None:
    """Each once, those that can generate apart from those with a public half; what no value names does not count."""

    def data_key(name: str, *keys: tuple[str, Algorithm]) -> DataKey:
        place = Place.of(Scope.STRICT, "prod", "db")
        return DataKey(DataKeyId(name), place, tuple(Wrapping(key, "1", algorithm, b"x") for key, algorithm in keys))

    asymmetric, symmetric = Algorithm.RSAES_OAEP_SHA_256, Algorithm.KMS_SYMMETRIC
    encrypted = EncryptedSecret(
        namespace="prod",
        name="db",
        scope=Scope.STRICT,
        data_keys=(
            data_key("used1", (TWO, asymmetric), (ONE, symmetric)),
            data_key("unused", ("local:gone", Algorithm.LOCAL_AES_256_GCM)),
            data_key("used2", (ONE, symmetric), ("local:dev", Algorithm.LOCAL_AES_256_GCM)),
        ),
        values={
            name: EncryptedValue(DataKeyId(data_key_id), b"", b"", b"")
            for name, data_key_id in (("a", "used1"), ("b", "used2"))
        },
        target=Target("db"),
    )
    assert keys_of(encrypted) == ((ONE, "local:dev"), (TWO,))
