"""EncryptedSecret as a frozen value, and its strict parser: the only way from JSON or YAML into the rest of kmseal.

Called by the command line with what a file holds and by the operator with what the API server sends. Rules in comments
are those of ``docs/format.md``; the CRD under ``crds/`` refuses the same things earlier where a schema can say them.
Parsing does not look inside the payloads of values beyond their form; opening is done with ``kmseal.envelope``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from kmseal.envelope import (
    DataKeyId,
    EncryptedValue,
    Place,
    Scope,
    decode_base64,
    decrypt_value,
    encode_base64,
    require_data_key,
    require_data_key_id,
    require_namespace,
    require_object_name,
    require_total_size,
)
from kmseal.errors import KmsealError, Malformed, Unauthentic, WrongBinding
from kmseal.redacted import Redacted
from kmseal.structure import Fields, choice, member_path
from kmseal.target import API_GROUP, CreationPolicy, DeletionPolicy, Target, require_named

__all__ = [
    "API_GROUP",
    "API_VERSION",
    "DATA_KEYS_MAX",
    "KIND",
    "PLURAL",
    "VALUES_MAX",
    "WRAPPED_BYTES_MAX",
    "WRAPPINGS_MAX",
    "Algorithm",
    "CreationPolicy",
    "DataKey",
    "DeletionPolicy",
    "Delivery",
    "EncryptedSecret",
    "Target",
    "Wrapping",
    "require_key_id",
    "require_key_version",
]

API_VERSION: Final = f"{API_GROUP}/v1alpha1"
KIND: Final = "EncryptedSecret"
PLURAL: Final = "encryptedsecrets"

DATA_KEYS_MAX: Final = 64
WRAPPINGS_MAX: Final = 8
VALUES_MAX: Final = 512
WRAPPED_BYTES_MAX: Final = 10_240

_E = TypeVar("_E", bound=KmsealError)
_KMS_KEY: Final = re.compile(r"acs:kms:[a-z0-9-]{2,32}:[0-9]{1,32}:key/[A-Za-z0-9-]{1,64}", re.ASCII)
_LOCAL_KEY: Final = re.compile(r"local:[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_KEY_VERSION: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class Algorithm(StrEnum):
    """How a wrapping encrypts its data key (K6)."""

    KMS_SYMMETRIC = "KMS_SYMMETRIC"
    RSAES_OAEP_SHA_256 = "RSAES_OAEP_SHA_256"
    LOCAL_AES_256_GCM = "LOCAL_AES_256_GCM"


class Delivery(StrEnum):
    """How the values reach their users."""

    SECRET = "Secret"  # noqa: S105  # The name of a Kubernetes kind.
    INJECT = "Inject"


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A data key wrapped by one version of one key. ``wrapped`` is not secret."""

    key_id: str
    key_version_id: str
    algorithm: Algorithm
    wrapped: bytes

    @classmethod
    def parse(cls, raw: object, path: str = "") -> "Wrapping":
        """Reads one item of ``wrappings`` (K3 to K7)."""
        with Fields(raw, path) as fields:
            key_id = fields.text("keyId")
            require_key_id(key_id, fields.path("keyId"))
            version = fields.text("keyVersionId")
            require_key_version(version, fields.path("keyVersionId"))
            where = fields.path("algorithm")
            algorithm: Algorithm = choice(fields.text("algorithm"), Algorithm, where, "Algorithm")
            if (algorithm is Algorithm.LOCAL_AES_256_GCM) != key_id.startswith("local:"):
                raise Malformed(
                    f"{algorithm.value} does not go with this kind of keyId",
                    field=where,
                    reason="Algorithm",
                    remedy="restore the wrapping from Git; kmseal writes it",
                )
            where = fields.path("wrapped")
            try:
                wrapped = decode_base64(fields.text("wrapped"))
            except Malformed as error:
                raise _located(error, where) from None
            if not 1 <= len(wrapped) <= WRAPPED_BYTES_MAX:
                raise Malformed(
                    f"is {len(wrapped)} bytes long; 1 to {WRAPPED_BYTES_MAX} are possible",
                    field=where,
                    reason="WrappedLength",
                    remedy="restore the line from Git; kmseal writes it",
                )
            return cls(key_id, version, algorithm, wrapped)

    def to_dict(self) -> dict[str, Any]:
        """The wrapping as it stands in a manifest."""
        return {
            "keyId": self.key_id,
            "keyVersionId": self.key_version_id,
            "algorithm": self.algorithm.value,
            "wrapped": encode_base64(self.wrapped),
        }


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key of an object: its id, what it was sealed for, and its wrappings, any one of which opens it."""

    id: DataKeyId
    sealed_for: Place
    wrappings: tuple[Wrapping, ...]

    @classmethod
    def parse(cls, raw: object, path: str = "") -> "DataKey":
        """Reads one item of ``dataKeys`` (K2, K3)."""
        with Fields(raw, path) as fields:
            try:
                data_key_id = require_data_key_id(fields.text("id"))
            except Malformed as error:
                raise error if error.field else _located(error, fields.path("id")) from None
            text = fields.text("sealedFor")
            try:
                sealed_for = Place.parse_sealed_for(text)
            except Malformed as error:
                raise _located(error, fields.path("sealedFor")) from None
            where = fields.path("wrappings")
            wrappings = tuple(
                Wrapping.parse(item, item_path) for item_path, item in fields.items("wrappings", required=True)
            )
            if not 1 <= len(wrappings) <= WRAPPINGS_MAX:
                raise Malformed(
                    f"has {len(wrappings)} items; 1 to {WRAPPINGS_MAX} are possible",
                    field=where,
                    reason="WrappingCount",
                    remedy="restore it from Git, or seal again",
                )
            _require_unique([wrapping.key_id for wrapping in wrappings], where, "keyId", "DuplicateWrapping")
            return cls(data_key_id, sealed_for, wrappings)

    def to_dict(self) -> dict[str, Any]:
        """The data key as it stands in a manifest."""
        return {
            "id": self.id,
            "sealedFor": self.sealed_for.sealed_for,
            "wrappings": [wrapping.to_dict() for wrapping in self.wrappings],
        }


@dataclass(frozen=True, slots=True)
class EncryptedSecret:
    """One parsed EncryptedSecret: every part has its form, every line names a data key that is there.

    It has not been opened: whether values authenticate is known only with the data keys.
    """

    namespace: str
    name: str
    scope: Scope
    data_keys: tuple[DataKey, ...]
    values: Mapping[str, EncryptedValue]
    target: Target
    delivery: Delivery = Delivery.SECRET
    suspend: bool = False

    @classmethod
    def parse(cls, raw: object, *, namespace: str | None = None) -> "EncryptedSecret":
        """Reads a manifest or an API object strictly.

        :param namespace: the namespace of manifests that name none, as kubectl's ``--namespace``
        :raises Malformed: with the path of the first field that is wrong
        """
        with Fields(raw, "") as fields:
            fields.ignore("status")
            _require_kind(fields)
            metadata = fields.fields("metadata")
            name = metadata.text("name")
            place_namespace = metadata.text("namespace", namespace)
            for require, text, member in (
                (require_object_name, name, "name"),
                (require_namespace, place_namespace, "namespace"),
            ):
                try:
                    require(text)
                except Malformed as error:
                    raise _located(error, metadata.path(member)) from None
            with fields.fields("spec") as spec:
                scope: Scope = choice(spec.text("scope", "Strict"), Scope, spec.path("scope"), "Scope")
                data_keys = tuple(DataKey.parse(item, path) for path, item in spec.items("dataKeys", required=True))
                if not 1 <= len(data_keys) <= DATA_KEYS_MAX:
                    raise Malformed(
                        f"has {len(data_keys)} items; 1 to {DATA_KEYS_MAX} are possible",
                        field=spec.path("dataKeys"),
                        reason="DataKeyCount",
                        remedy="restore it from Git, or seal again",
                    )
                ids = [data_key.id for data_key in data_keys]
                _require_unique(ids, spec.path("dataKeys"), "id", "DuplicateDataKey")
                values = _parse_values(spec.texts("encryptedData", required=True), spec.path("encryptedData"), set(ids))
                return cls(
                    namespace=place_namespace,
                    name=name,
                    scope=scope,
                    data_keys=data_keys,
                    values=values,
                    target=Target.parse(spec.fields("target", optional=True), name),
                    delivery=choice(spec.text("delivery", "Secret"), Delivery, spec.path("delivery"), "Delivery"),
                    suspend=spec.flag("suspend"),
                )

    @property
    def place(self) -> Place:
        """What this object's ciphertext must be bound to (B1)."""
        return Place.of(self.scope, self.namespace, self.name)

    @property
    def used_data_keys(self) -> tuple[DataKey, ...]:
        """The data keys that values name, in the object's order (O4)."""
        used = {value.data_key_id for value in self.values.values()}
        return tuple(data_key for data_key in self.data_keys if data_key.id in used)

    def require_place(self) -> None:
        """Refuses, without any key, ciphertext that was sealed for another place or value name (B4, V6)."""
        place = self.place
        for index, data_key in enumerate(self.data_keys):
            try:
                place.require(data_key.sealed_for)
            except WrongBinding as error:
                raise _located(error, f"spec.dataKeys[{index}].sealedFor") from None
        for name, value in self.values.items():
            try:
                value.require_name(place, name)
            except WrongBinding as error:
                raise _located(error, member_path("spec.encryptedData", name)) from None

    def require_own(self, data_key_id: DataKeyId, data_key: Redacted) -> None:
        """Refuses a data key that opens no value of this object: it is another object's, or nobody's.

        Raises Unauthentic, also where no value names the data key, for then nothing shows whose it is; Malformed
        (DataKeyLength) for what cannot be a data key.
        """
        for name, value in self.values.items():
            if value.data_key_id == data_key_id:
                require_data_key(data_key)
                decrypt_value(data_key, self.place, name, value)
                return
        raise Unauthentic(
            f"no value is encrypted under the data key {data_key_id}, so that nothing shows whose it is",
            field="spec.dataKeys",
            remedy="remove it from the file: kmseal set and unset drop what no value names",
        )

    def decrypt(self, data_keys: Mapping[DataKeyId, Redacted]) -> dict[str, Redacted]:
        """Opens all values of the object or none (O3), with the unwrapped data keys by id.

        ``data_keys`` must hold all of ``used_data_keys``. Raises WrongBinding (as ``require_place``), Malformed
        (DataKeyLength) or Unauthentic (ValueAltered), each with the path of the data key or the value.
        """
        self.require_place()
        place = self.place
        for index, data_key in enumerate(self.data_keys):
            if data_key.id in data_keys:
                try:
                    require_data_key(data_keys[data_key.id])
                except Malformed as error:
                    raise _located(error, f"spec.dataKeys[{index}]") from None
        opened = {}
        for name, value in self.values.items():
            try:
                opened[name] = decrypt_value(data_keys[value.data_key_id], place, name, value)
            except (WrongBinding, Unauthentic) as error:
                raise _located(error, member_path("spec.encryptedData", name)) from None
        return opened


def require_key_id(text: str, path: str) -> str:
    """Refuses what is not the id of a key (K4)."""
    if not (_KMS_KEY.fullmatch(text) or _LOCAL_KEY.fullmatch(text)):
        raise Malformed(
            "is not the id of a key",
            field=path,
            reason="KeyId",
            remedy="write acs:kms:<region>:<account>:key/<id>, or local:<name>; an alias is not possible here",
        )
    return text


def require_key_version(
    text: str, path: str = "", *, remedy: str = "restore the line from Git; kmseal writes it"
) -> str:
    """Refuses what is not the id of a version of a key (K5). Raises Malformed."""
    if not _KEY_VERSION.fullmatch(text):
        raise Malformed("is not a key version id", field=path, reason="KeyVersionId", remedy=remedy)
    return text


def _require_kind(fields: Fields) -> None:
    version, kind = fields.text("apiVersion"), fields.text("kind")
    if kind == "Secret" and version == "v1":
        raise Malformed(
            "is a plain Secret, not an EncryptedSecret",
            field="kind",
            reason="PlainSecret",
            remedy="encrypt it with: kmseal encrypt -f FILE --key ARN",
        )
    if kind != KIND:
        raise Malformed(
            f"is not {KIND}",
            field="kind",
            reason="WrongKind",
            remedy="pass an EncryptedSecret manifest",
        )
    if version != API_VERSION:
        raise Malformed(
            f"is not {API_VERSION}",
            field="apiVersion",
            reason="UnknownVersion",
            remedy="a newer kmseal may know it: upgrade, or correct the version",
        )


def _parse_values(lines: Mapping[str, str], path: str, ids: set[DataKeyId]) -> dict[str, EncryptedValue]:
    if not 1 <= len(lines) <= VALUES_MAX:
        raise Malformed(
            f"has {len(lines)} values; 1 to {VALUES_MAX} are possible",
            field=path,
            reason="ValueCount",
            remedy="add a value with kmseal set, or split the object",
        )
    values = {}
    for name, line in lines.items():
        where = require_named(name, path)
        try:
            value = EncryptedValue.parse(line)
        except Malformed as error:
            raise _located(error, where) from None
        if value.data_key_id not in ids:
            raise Malformed(
                "names a data key that spec.dataKeys does not have",
                field=where,
                reason="UnknownDataKey",
                remedy="the line comes from another object: set the value again here",
            )
        values[name] = value
    try:
        require_total_size(values)
    except Malformed as error:
        raise _located(error, path) from None
    return values


def _require_unique(items: list[Any], path: str, what: str, reason: str) -> None:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise Malformed(
                f"repeats the {what} of item {items.index(item)}",
                field=f"{path}[{index}].{what}",
                reason=reason,
                remedy="remove one of the two",
            )


def _located(error: _E, path: str) -> _E:
    error.field = path
    return error
