"""From plain values to an EncryptedSecret: one new data key, wrapped by each key, and a line for each value.

Shared by ``create``, ``encrypt`` and ``set``. Everything that can be checked is checked before the key service is
called, so that a call is never spent on what would be refused afterwards. Nothing here reads or writes files.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kmseal.cli.secret import PlainSecret
from kmseal.envelope import (
    DATA_KEY_BYTES,
    VALUES_BYTES_MAX,
    DataKeyId,
    Entropy,
    Place,
    Scope,
    encrypt_value,
    new_data_key_id,
    require_namespace,
    require_object_name,
    require_value_name,
    shorten,
)
from kmseal.errors import AccessDenied, KeyUnusable, KmsealError, Malformed, Retryable
from kmseal.kms.provider import Context, FreshDataKey, Unwrapped
from kmseal.manifest import (
    API_VERSION,
    KIND,
    VALUES_MAX,
    WRAPPINGS_MAX,
    DataKey,
    Delivery,
    EncryptedSecret,
    Wrapping,
)
from kmseal.publickey import PublicKey
from kmseal.redacted import Redacted
from kmseal.structure import Fields, member_path
from kmseal.target import Target

_KEY: Final = re.compile(
    r"acs:kms:[a-z0-9-]{2,32}:[0-9]{1,32}:(?:key/[A-Za-z0-9-]{1,64}|alias/[A-Za-z0-9_/-]{1,255})"
    r"|local:[a-z0-9][a-z0-9-]{0,62}",
    re.ASCII,
)
# What the API server demands of a Secret of these types, so that the operator would fail to write it.
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_JSON_VALUES: Final = (".dockerconfigjson", ".dockercfg")


class KeyService(Protocol):
    """What sealing and opening ask of ``kmseal.kms``."""

    async def generate(self, key: str, context: Context) -> FreshDataKey: ...

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping: ...

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped: ...


@dataclass(frozen=True, slots=True)
class KeySet:
    """By which keys a data key is wrapped: names of keys, and public halves, for which no service is asked."""

    keys: tuple[str, ...]
    public: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Sealed:
    """Value lines by name, and the data key that they share."""

    data_key: DataKey
    lines: Mapping[str, str]


def require_keys(chosen: KeySet) -> None:
    """Refuses keys that cannot be what a person means by one, and none or too many of them."""
    count = len(chosen.keys) + len(chosen.public)
    if not 1 <= count <= WRAPPINGS_MAX:
        raise Malformed(
            f"{count} keys are given; 1 to {WRAPPINGS_MAX} are possible",
            field="--key",
            reason="WrappingCount",
            remedy="pass --key acs:kms:<region>:<account>:key/<id>, or set KMSEAL_KEY",
        )
    for key in chosen.keys:
        require_key(key, "--key")
    named = [*chosen.keys, *(public.key_id for public in chosen.public)]
    for position, key in enumerate(named):
        if key in named[:position]:
            raise Malformed(
                f"{shorten(key)} is given twice",
                field="--key" if position < len(chosen.keys) else "--public-key",
                reason="DuplicateWrapping",
                remedy="name it once",
            )


def require_key(key: str, option: str) -> str:
    """Refuses what cannot be the name of a key or of an alias."""
    if not _KEY.fullmatch(key):
        raise Malformed(
            f"{shorten(key)} is not a key",
            field=option,
            reason="KeyId",
            remedy="write acs:kms:<region>:<account>:key/<id>, …:alias/<name>, or local:<name>",
        )
    return key


def require_values(values: Mapping[str, Redacted], *, kept_count: int = 0, kept_bytes: int = 0) -> None:
    """Refuses names, numbers and sizes of values that a Secret cannot hold (V8, O1).

    ``kept_count`` and ``kept_bytes`` are the values of the object that stay as they are.
    """
    for name in values:
        require_value_name(name)
    count = kept_count + len(values)
    if not 1 <= count <= VALUES_MAX:
        raise Malformed(
            f"there are {count} values; 1 to {VALUES_MAX} are possible",
            reason="ValueCount",
            remedy="split the Secret" if count else "give it a value",
        )
    total = kept_bytes + sum(len(value) for value in values.values())
    if total > VALUES_BYTES_MAX:
        raise Malformed(
            f"the values are {total} bytes together; a Secret holds at most {VALUES_BYTES_MAX}",
            reason="ValueTooLarge",
            remedy="split the Secret, or store large files elsewhere",
        )


def require_sealable(secret: PlainSecret, scope: Scope) -> Place:
    """Refuses, before any call, a Secret that could not be sealed, or not be written in the cluster."""
    for require, text, path in (
        (require_object_name, secret.name, "metadata.name"),
        (require_namespace, secret.namespace, "metadata.namespace"),
    ):
        try:
            require(text)
        except Malformed as error:
            error.field = path
            raise
    require_values(secret.values)
    Target.parse(Fields(secret.target(), "spec.target"), secret.name)
    require_type(secret.type, secret.values)
    for name in _JSON_VALUES:
        if name in _REQUIRED.get(secret.type, ()):
            _require_json(name, secret.values[name])
    return Place.of(scope, secret.namespace, secret.name)


def require_type(secret_type: str, names: Collection[str]) -> None:
    """Refuses a type whose Secrets must have values that are not there."""
    for name in _REQUIRED.get(secret_type, ()):
        if name not in names:
            raise Malformed(
                f"a Secret of type {secret_type} must have the value {name}",
                field="type",
                reason="TargetType",
                remedy="give it the value, or another type",
            )


async def seal(
    service: KeyService | None,
    chosen: KeySet,
    place: Place,
    values: Mapping[str, Redacted],
    *,
    taken: Collection[str] = (),
    entropy: Entropy = secrets.token_bytes,
) -> Sealed:
    """Encrypts values under one new data key, which is generated under the first key and wrapped under the others.

    With public halves alone it is drawn here, and ``service`` may be None. ``taken`` are the data key ids that the
    object has already. The first key asks for the right GenerateDataKey, each further one for Encrypt. Raises whatever
    the key service raises, naming the key.
    """
    context = place.encryption_context()
    wrappings = []
    data_key = Redacted(b"")
    for position, key in enumerate(chosen.keys):
        assert service is not None  # noqa: S101  # The caller makes one wherever a key needs it.
        try:
            if position == 0:
                fresh = await service.generate(key, context)
                data_key = fresh.data_key
                wrappings.append(fresh.wrapping)
            else:
                wrappings.append(await service.wrap(key, data_key, context))
        except AccessDenied as error:
            raise _denied(error, key, "Encrypt" if position else "GenerateDataKey") from None
        except KmsealError as error:
            error.field = error.field or key
            if isinstance(error, Retryable | KeyUnusable):
                _name_survivors(error, key, chosen)
            raise
    if not chosen.keys:
        data_key = Redacted(entropy(DATA_KEY_BYTES))
    wrappings += [public.wrap(data_key) for public in chosen.public]
    data_key_id = new_data_key_id()
    while data_key_id in taken:
        data_key_id = new_data_key_id()
    sealed = DataKey(DataKeyId(data_key_id), place, tuple(wrappings))
    DataKey.parse(sealed.to_dict())  # Two aliases of one key show only now.
    lines = {name: encrypt_value(data_key, sealed.id, place, name, value).line() for name, value in values.items()}
    return Sealed(sealed, lines)


async def seal_secret(
    service: KeyService | None, chosen: KeySet, secret: PlainSecret, place: Place, delivery: Delivery = Delivery.SECRET
) -> dict[str, Any]:
    """The EncryptedSecret manifest of a Secret that ``require_sealable`` accepted for ``place``."""
    sealed = await seal(service, chosen, place, secret.values)
    spec: dict[str, Any] = {
        "scope": place.scope.value,
        "dataKeys": [sealed.data_key.to_dict()],
        "encryptedData": dict(sealed.lines),
    }
    if target := secret.target():
        spec["target"] = target
    if delivery is not Delivery.SECRET:
        spec["delivery"] = delivery.value
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": secret.name, "namespace": secret.namespace},
        "spec": spec,
    }
    # The reader's own checks, on everything that is ever written.
    EncryptedSecret.parse(manifest).require_place()
    return manifest


async def open_object(service: KeyService, encrypted: EncryptedSecret) -> dict[str, Redacted]:
    """All values of an object: one call for each data key that values name.

    Raises WrongBinding before any call where the object was moved; Unauthentic, or what the key service raises.
    """
    encrypted.require_place()
    context = encrypted.place.encryption_context()
    opened: dict[DataKeyId, Redacted] = {}
    for index, data_key in enumerate(encrypted.data_keys):
        if data_key in encrypted.used_data_keys:
            try:
                opened[data_key.id] = (await service.unwrap(data_key.wrappings, context)).data_key
            except KmsealError as error:
                error.field = error.field or f"spec.dataKeys[{index}]"
                raise
    return encrypted.decrypt(opened)


def _require_json(name: str, value: Redacted) -> None:
    try:
        good = isinstance(json.loads(value.reveal()), dict)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise Malformed(
            "is not a JSON object, which this type of Secret demands",
            field=member_path("data", name),
            reason="TargetType",
            remedy="pass the file that docker login wrote",
        )


def _name_survivors(error: KmsealError, key: str, chosen: KeySet) -> None:
    """One key that is down must not keep everybody from sealing: says how to go on without it."""
    others = [f"--key {other}" for other in chosen.keys if other != key]
    others += ["--public-key FILE"] if chosen.public else []
    if others:
        without = f"seal without it now, with {' '.join(others)}, and run kmseal rewrap --add-key {key} later"
        error.remedy = f"{error.remedy}; or {without}" if error.remedy else without


def _denied(error: AccessDenied, key: str, right: str) -> AccessDenied:
    """Says which right is missing on which key: with several keys, the answer alone does not tell."""
    return AccessDenied(
        error.message,
        field=key,
        reason=error.reason,
        remedy=f"ask for the right kms:{right} on this key",
        request_id=error.request_id,
    )
