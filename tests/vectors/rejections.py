"""The table of rejections: how each one spoils a good object, and how a reader must answer.

The good object is ``prod/db`` with the scope Strict, the data keys k4q7x2mz (two wrappings) and m3w8r5tb, the values
password and user under the first and token under the second. ``generate`` writes one file per line of the table.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sealing import FIRST, KMS_KEY, LOCAL_KEY, SECOND, Json, Sealing

from kmseal.envelope import Scope

Spoil = Callable[[Json], object]

VALUES, KEYS = "spec.encryptedData", "spec.dataKeys"
WRAPPING = f"{KEYS}[0].wrappings[0]"


@dataclass(frozen=True, slots=True)
class Rejection:
    """``name`` is ``<Reason>`` or ``<Reason>-<variant>``; ``rule`` is that of docs/format.md, empty outside it."""

    name: str
    rule: str
    stage: str
    error: str
    field: str
    description: str
    spoil: Spoil


def put(path: str, value: Any) -> Spoil:
    """Sets a member of the manifest; path parts that are numbers are places in a list."""

    def spoil(vector: Json) -> None:
        *parents, last = path.split("/")
        found: Any = vector["manifest"]
        for part in parents:
            found = found[int(part)] if isinstance(found, list) else found.setdefault(part, {})
        if isinstance(found, list):
            found[int(last)] = value
        else:
            found[last] = value

    return spoil


def drop(path: str) -> Spoil:
    """Removes a member of the manifest."""

    def spoil(vector: Json) -> None:
        *parents, last = path.split("/")
        found: Any = vector["manifest"]
        for part in parents:
            found = found[int(part)] if isinstance(found, list) else found[part]
        del found[last]

    return spoil


def edit_line(change: Callable[[str], str], name: str = "password") -> Spoil:
    """Rewrites a value line as text."""
    return lambda vector: _lines(vector).update({name: change(_lines(vector)[name])})


def flip(position: int, name: str = "password") -> Spoil:
    """Flips the lowest bit of a byte of a value's payload; a negative position counts from the end."""

    def change(line: str) -> str:
        head, _, payload = line.rpartition(".")
        raw = bytearray(base64.b64decode(payload))
        raw[position] ^= 1
        return f"{head}.{base64.b64encode(raw).decode()}"

    return edit_line(change, name)


def rename_key(index: int, data_key_id: str) -> Spoil:
    """Gives a data key another id, and leaves the lines as they are."""
    return put(f"spec/dataKeys/{index}/id", data_key_id)


def swap_lines(vector: Json) -> None:
    """Exchanges the lines of two values under one data key."""
    lines = _lines(vector)
    lines["password"], lines["user"] = lines["user"], lines["password"]


def graft(scope: Scope, namespace: str, name: str) -> Spoil:
    """Takes data keys and lines from an object of another place, and makes ``sealedFor`` fit by hand."""

    def spoil(vector: Json) -> None:
        other = Sealing("graft", scope, namespace, name).add_key(FIRST, KMS_KEY).add_value(FIRST, "password", b"other")
        spec = other.manifest()["spec"]
        spec["dataKeys"][0]["sealedFor"] = "prod/db"
        spec["scope"] = "Strict"
        vector["manifest"]["spec"] = spec
        vector["dataKeys"] = {FIRST: other.data_keys[FIRST].hex()}

    return spoil


def fill(before: str, repeat: str, times: int, after: str) -> Json:
    """A long text in short: readers of vectors put it together (README.md)."""
    return {"$fill": {"before": before, "repeat": repeat, "times": times, "after": after}}


def both(*spoils: Spoil) -> Spoil:
    """One change after the other."""

    def spoil(vector: Json) -> None:
        for each in spoils:
            each(vector)

    return spoil


def _lines(vector: Json) -> dict[str, Any]:
    lines: dict[str, Any] = vector["manifest"]["spec"]["encryptedData"]
    return lines


def _set_unused(line: str) -> str:
    # The payload of token leaves two bits unused in the last digit: the next digit decodes to the same bytes.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return f"{line[:-2]}{digits[digits.index(line[-2]) + 1]}="


def _repeat_key(vector: Json) -> None:
    keys = vector["manifest"]["spec"]["dataKeys"]
    keys.append(keys[0])


def _many_keys(vector: Json) -> None:
    keys = vector["manifest"]["spec"]["dataKeys"]
    keys.extend({**keys[0], "id": f"many{index}"} for index in range(63))


def _many_wrappings(vector: Json) -> None:
    wrappings = vector["manifest"]["spec"]["dataKeys"][0]["wrappings"]
    wrappings[:] = [{**wrappings[0], "keyId": f"{KMS_KEY}{index}"} for index in range(9)]


def _repeat_wrapping(vector: Json) -> None:
    wrappings = vector["manifest"]["spec"]["dataKeys"][0]["wrappings"]
    wrappings[1] = {**wrappings[1], "keyId": wrappings[0]["keyId"]}


def _many_values(vector: Json) -> None:
    lines = _lines(vector)
    lines.update({f"value-{index}": lines["password"] for index in range(510)})


def _add_value(name: str) -> Spoil:
    return lambda vector: _lines(vector).update({name: _lines(vector)["password"]})


def _cut_key(size: int) -> Spoil:
    return lambda vector: vector["dataKeys"].update({FIRST: (vector["dataKeys"][FIRST] * 2)[: 2 * size]})


def _many(count: int) -> Mapping[str, str]:
    return {f"name-{index}": "x" for index in range(count)}


def _malformed(name: str, rule: str, field: str, description: str, spoil: Spoil) -> Rejection:
    return Rejection(name, rule, "parse", "Malformed", field, description, spoil)


def _misplaced(name: str, rule: str, field: str, description: str, spoil: Spoil) -> Rejection:
    return Rejection(name, rule, "place", "WrongBinding", field, description, spoil)


def _altered(name: str, description: str, spoil: Spoil, field: str = f"{VALUES}.password") -> Rejection:
    return Rejection(name, "V5", "open", "Unauthentic", field, description, spoil)


PASSWORD, SPEC_PASSWORD = f"{VALUES}.password", "spec/encryptedData/password"
FORM = "spec/dataKeys/0/wrappings/0"

REJECTIONS = (
    _malformed("LineParts-plain", "V1", PASSWORD, "A plain value", put(SPEC_PASSWORD, "hunter2")),
    _malformed("LineParts-empty", "V1", PASSWORD, "No text", put(SPEC_PASSWORD, "")),
    _malformed("LineParts-two", "V1", PASSWORD, "No label", edit_line(lambda line: line.removeprefix("v1."))),
    _malformed("LineParts-four", "V1", PASSWORD, "A full stop at the end", edit_line(lambda line: f"{line}.")),
    _malformed("LineParts-unicode", "V1", PASSWORD, "A letter that is not ASCII", edit_line(lambda line: f"{line}é")),
    _malformed("UnknownFormat", "V2", PASSWORD, "Another label", edit_line(lambda line: line.replace("v1.", "v2.", 1))),
    _malformed("UnknownFormat-case", "V2", PASSWORD, "Upper case", edit_line(lambda line: line.replace("v", "V", 1))),
    _malformed("DataKeyId-line", "V3", PASSWORD, "Upper case", edit_line(lambda line: line.replace(FIRST, "K4Q7X2MZ"))),
    _malformed("DataKeyId-short", "K2", f"{KEYS}[0].id", "Three characters", rename_key(0, "abc")),
    _malformed("DataKeyId-long", "K2", f"{KEYS}[0].id", "17 characters", rename_key(0, "a" * 17)),
    _malformed("DataKeyId-newline", "K2", f"{KEYS}[0].id", "A line break at the end", rename_key(0, f"{FIRST}\n")),
    _malformed("UnknownDataKey", "V3", PASSWORD, "The data key is gone", rename_key(0, "gone0000")),
    _malformed("DuplicateDataKey", "K2", f"{KEYS}[2].id", "Two data keys with one id", _repeat_key),
    _malformed("Base64-newline", "V4", PASSWORD, "A line break at the end", edit_line(lambda line: f"{line}\n")),
    _malformed("Base64-space", "V4", PASSWORD, "A space inside", edit_line(lambda line: f"{line[:40]} {line[40:]}")),
    _malformed(
        "Base64-unpadded",
        "V4",
        f"{VALUES}.user",
        "Padding is missing",
        edit_line(lambda line: line.rstrip("="), "user"),
    ),
    _malformed("Base64-overpadded", "V4", PASSWORD, "Padding in excess", edit_line(lambda line: f"{line}=")),
    _malformed("Base64-unused-bits", "V4", f"{VALUES}.token", "A bit of the padding", edit_line(_set_unused, "token")),
    _malformed("Base64-url", "V4", PASSWORD, "The alphabet of URLs", edit_line(lambda line: f"{line[:-4]}-_-_")),
    _malformed("Base64-wrapped", "K7", f"{WRAPPING}.wrapped", "A wrapping cut short", put(f"{FORM}/wrapped", "AAA")),
    _malformed("PayloadLength-short", "V5", PASSWORD, "31 bytes", put(SPEC_PASSWORD, f"v1.{FIRST}.{'AAAA' * 10}AA==")),
    _malformed("PayloadLength-empty", "V5", PASSWORD, "No payload", put(SPEC_PASSWORD, f"v1.{FIRST}.")),
    _malformed(
        "PayloadLength-long",
        "V5",
        PASSWORD,
        "A ciphertext of 1,048,577 bytes",
        put(SPEC_PASSWORD, fill(f"v1.{FIRST}.", "AAAA", 349_536, "AA==")),
    ),
    _malformed("ValueName-empty", "V8", VALUES, "No name", _add_value("")),
    _malformed("ValueName-dot", "V8", VALUES, "This folder", _add_value(".")),
    _malformed("ValueName-dots", "V8", VALUES, "A name that a volume keeps for itself", _add_value("..data")),
    _malformed("ValueName-slash", "V8", VALUES, "A path", _add_value("etc/passwd")),
    _malformed("ValueName-newline", "V8", VALUES, "A line break at the end", _add_value("token\n")),
    _malformed("ValueName-unicode", "V8", VALUES, "A letter that is not ASCII", _add_value("pässword")),
    _malformed("ValueName-long", "V8", VALUES, "254 characters", _add_value("n" * 254)),
    _malformed(
        "ValueTooLarge",
        "O1",
        VALUES,
        "Two values of 524,289 bytes",
        both(
            put(SPEC_PASSWORD, fill(f"v1.{FIRST}.", "AAAA", 174_773, "AAA=")),
            put("spec/encryptedData/user", fill(f"v1.{FIRST}.", "AAAA", 174_773, "AAA=")),
        ),
    ),
    _malformed("DataKeyCount-none", "K2", KEYS, "No data key", put("spec/dataKeys", [])),
    _malformed("DataKeyCount-many", "K2", KEYS, "65 data keys", _many_keys),
    _malformed("WrappingCount-none", "K3", f"{KEYS}[0].wrappings", "No wrapping", put("spec/dataKeys/0/wrappings", [])),
    _malformed("WrappingCount-many", "K3", f"{KEYS}[0].wrappings", "9 wrappings", _many_wrappings),
    _malformed(
        "DuplicateWrapping", "K3", f"{KEYS}[0].wrappings[1].keyId", "Two wrappings by one key", _repeat_wrapping
    ),
    _malformed(
        "KeyId-alias",
        "K4",
        f"{WRAPPING}.keyId",
        "An alias",
        put(f"{FORM}/keyId", "acs:kms:cn-hangzhou:1234567890123456:alias/prod"),
    ),
    _malformed("KeyId-bare", "K4", f"{WRAPPING}.keyId", "No ARN", put(f"{FORM}/keyId", "key-hzz62f1cb66fa42qo1234")),
    _malformed("KeyId-newline", "K4", f"{WRAPPING}.keyId", "A line break", put(f"{FORM}/keyId", f"{KMS_KEY}\n")),
    _malformed("KeyId-local", "K4", f"{WRAPPING}.keyId", "Upper case", put(f"{FORM}/keyId", "local:Dev")),
    _malformed("KeyVersionId-empty", "K5", f"{WRAPPING}.keyVersionId", "No version", put(f"{FORM}/keyVersionId", "")),
    _malformed(
        "KeyVersionId-form", "K5", f"{WRAPPING}.keyVersionId", "A full stop", put(f"{FORM}/keyVersionId", "v1.2")
    ),
    _malformed("Algorithm-unknown", "K6", f"{WRAPPING}.algorithm", "Unknown", put(f"{FORM}/algorithm", "RSA_1_5")),
    _malformed(
        "Algorithm-case", "K6", f"{WRAPPING}.algorithm", "Lower case", put(f"{FORM}/algorithm", "kms_symmetric")
    ),
    _malformed(
        "Algorithm-local",
        "K6",
        f"{WRAPPING}.algorithm",
        "A key file's algorithm with a KMS key",
        put(f"{FORM}/algorithm", "LOCAL_AES_256_GCM"),
    ),
    _malformed("Algorithm-kms", "K6", f"{WRAPPING}.algorithm", "KMS with a key file", put(f"{FORM}/keyId", LOCAL_KEY)),
    _malformed("WrappedLength-empty", "K7", f"{WRAPPING}.wrapped", "Empty", put(f"{FORM}/wrapped", "")),
    _malformed(
        "WrappedLength-long",
        "K7",
        f"{WRAPPING}.wrapped",
        "10,241 bytes",
        put(f"{FORM}/wrapped", fill("", "AAAA", 3413, "AAA=")),
    ),
    _malformed("ObjectName-empty", "B1", "metadata.name", "No text", put("metadata/name", "")),
    _malformed("ObjectName-case", "B1", "metadata.name", "Upper case", put("metadata/name", "DB")),
    _malformed("ObjectName-star", "B1", "metadata.name", "Any name", put("metadata/name", "*")),
    _malformed("ObjectName-namespace", "B1", "metadata.namespace", "Full stop", put("metadata/namespace", "prod.eu")),
    _malformed("ObjectName-target", "B1", "spec.target.name", "A path", put("spec/target/name", "other/db")),
    _malformed("Scope-unknown", "B1", "spec.scope", "Unknown", put("spec/scope", "Global")),
    _malformed("Scope-case", "B1", "spec.scope", "Lower case", put("spec/scope", "strict")),
    _malformed("SealedFor-empty", "B4", f"{KEYS}[0].sealedFor", "No text", put("spec/dataKeys/0/sealedFor", "")),
    _malformed("SealedFor-name", "B4", f"{KEYS}[0].sealedFor", "No name", put("spec/dataKeys/0/sealedFor", "prod/")),
    _malformed(
        "SealedFor-star", "B4", f"{KEYS}[0].sealedFor", "One name anywhere", put("spec/dataKeys/0/sealedFor", "*/db")
    ),
    _malformed(
        "SealedFor-parts", "B4", f"{KEYS}[0].sealedFor", "Three parts", put("spec/dataKeys/0/sealedFor", "a/prod/db")
    ),
    _malformed("ValueCount-none", "O1", VALUES, "No value", put("spec/encryptedData", {})),
    _malformed("ValueCount-many", "O1", VALUES, "513 values", _many_values),
    _malformed("UnknownField-spec", "O2", "spec.encrypteddata", "A typing error", put("spec/encrypteddata", {})),
    _malformed("UnknownField-dataKey", "O2", f"{KEYS}[0].note", "In a data key", put("spec/dataKeys/0/note", "x")),
    _malformed("UnknownField-wrapping", "O2", f"{WRAPPING}.context", "In a wrapping", put(f"{FORM}/context", {})),
    _malformed(
        "UnknownField-target", "O2", "spec.target.namespace", "In the target", put("spec/target/namespace", "x")
    ),
    _malformed("UnknownField-top", "O2", "data", "Beside spec", put("data", {})),
    _malformed("MissingField-kind", "O2", "kind", "No kind", drop("kind")),
    _malformed("MissingField-name", "O2", "metadata.name", "No name", drop("metadata/name")),
    _malformed("MissingField-spec", "O2", "spec", "No spec", drop("spec")),
    _malformed("MissingField-dataKeys", "O2", KEYS, "No data keys", drop("spec/dataKeys")),
    _malformed("MissingField-encryptedData", "O2", VALUES, "No values", drop("spec/encryptedData")),
    _malformed("MissingField-sealedFor", "O2", f"{KEYS}[0].sealedFor", "No place", drop("spec/dataKeys/0/sealedFor")),
    _malformed("MissingField-null", "O2", f"{WRAPPING}.wrapped", "Null is nothing", put(f"{FORM}/wrapped", None)),
    _malformed("WrongType-manifest", "O2", "", "A list", lambda vector: vector.update(manifest=[vector["manifest"]])),
    _malformed("WrongType-list", "O2", KEYS, "An object for a list", put("spec/dataKeys", {FIRST: {}})),
    _malformed("WrongType-object", "O2", VALUES, "A list for an object", put("spec/encryptedData", [])),
    _malformed("WrongType-text", "O2", f"{KEYS}[0].id", "A number for a text", put("spec/dataKeys/0/id", 12345678)),
    _malformed("WrongType-value", "O2", PASSWORD, "A number for a line", put(SPEC_PASSWORD, 12345678)),
    _malformed("WrongType-flag", "O2", "spec.suspend", "A text for a boolean", put("spec/suspend", "true")),
    _malformed(
        "PlainSecret",
        "",
        "kind",
        "A Secret",
        lambda vector: vector.update(
            manifest={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": {"a": "aHVudGVyMg=="}}
        ),
    ),
    _malformed("WrongKind", "", "kind", "Another kind", put("kind", "SealedSecret")),
    _malformed("UnknownVersion", "", "apiVersion", "A version to come", put("apiVersion", "kmseal.dev/v9")),
    _malformed("Delivery", "", "spec.delivery", "Unknown", put("spec/delivery", "Volume")),
    _malformed("CreationPolicy", "", "spec.target.creationPolicy", "Unknown", put("spec/target/creationPolicy", "Own")),
    _malformed(
        "DeletionPolicy", "", "spec.target.deletionPolicy", "Unknown", put("spec/target/deletionPolicy", "Keep")
    ),
    _malformed("TargetType-empty", "", "spec.target.type", "No text", put("spec/target/type", "")),
    _malformed("TargetType-long", "", "spec.target.type", "254 characters", put("spec/target/type", "t" * 254)),
    _malformed(
        "TargetType-token",
        "",
        "spec.target.type",
        "The cluster would put the token of a ServiceAccount in it",
        put("spec/target/type", "kubernetes.io/service-account-token"),
    ),
    _malformed(
        "MergeTarget-type",
        "",
        "spec.target.type",
        "Merge, and a type",
        put("spec/target", {"creationPolicy": "Merge", "type": "kubernetes.io/tls"}),
    ),
    _malformed(
        "MergeTarget-immutable",
        "",
        "spec.target.immutable",
        "Merge, and immutable",
        put("spec/target", {"creationPolicy": "Merge", "immutable": True}),
    ),
    _malformed("LabelName", "", 'spec.target.labels["-x"]', "A hyphen first", put("spec/target/labels", {"-x": "y"})),
    _malformed(
        "LabelName-prefix",
        "",
        'spec.target.annotations["Example.com/x"]',
        "A prefix in upper case",
        put("spec/target/annotations", {"Example.com/x": "y"}),
    ),
    _malformed("LabelValue", "", "spec.target.labels.team", "A space", put("spec/target/labels/team", "a b")),
    _malformed(
        "ReservedName-label",
        "",
        'spec.target.labels["kmseal.dev/owner"]',
        "The operator's prefix",
        put("spec/target/labels", {"kmseal.dev/owner": "me"}),
    ),
    _malformed(
        "ReservedName-annotation",
        "",
        'spec.target.annotations["x.kmseal.dev/owner"]',
        "A prefix under the operator's",
        put("spec/target/annotations", {"x.kmseal.dev/owner": "me"}),
    ),
    _malformed("TargetLimit-labels", "", "spec.target.labels", "65 labels", put("spec/target/labels", _many(65))),
    _malformed(
        "TargetLimit-annotations",
        "",
        "spec.target.annotations",
        "65 annotations",
        put("spec/target/annotations", _many(65)),
    ),
    _malformed(
        "TargetLimit-annotation",
        "",
        "spec.target.annotations.note",
        "An annotation of 262,145 characters",
        put("spec/target/annotations/note", fill("", "x", 262_145, "")),
    ),
    _malformed("TargetLimit-templates", "", "spec.target.data", "513 templates", put("spec/target/data", _many(513))),
    _malformed(
        "TargetLimit-template",
        "",
        "spec.target.data.page",
        "A template of 1,048,577 characters",
        put("spec/target/data/page", fill("", "x", 1_048_577, "")),
    ),
    _malformed("ValueName-template", "V8", "spec.target.data", "A path", put("spec/target/data", {"a/b": "x"})),
    _misplaced(
        "ScopeMismatch-wider", "B4", f"{KEYS}[0].sealedFor", "Strict made Cluster", put("spec/scope", "Cluster")
    ),
    _misplaced(
        "ScopeMismatch-narrower", "B4", f"{KEYS}[1].sealedFor", "One for all", put("spec/dataKeys/1/sealedFor", "*/*")
    ),
    _misplaced(
        "NamespaceMismatch", "B4", f"{KEYS}[0].sealedFor", "The object was copied", put("metadata/namespace", "test")
    ),
    _misplaced("NameMismatch", "B4", f"{KEYS}[0].sealedFor", "The object was renamed", put("metadata/name", "db2")),
    _misplaced("ValueMoved-swapped", "V6", PASSWORD, "The lines of two values are exchanged", swap_lines),
    _misplaced("ValueMoved-check", "V6", PASSWORD, "The check is altered", flip(0)),
    _misplaced(
        "ValueMoved-name",
        "V6",
        PASSWORD,
        "From an object of another name, with sealedFor edited",
        graft(Scope.STRICT, "prod", "db2"),
    ),
    _misplaced(
        "ValueMoved-namespace",
        "V6",
        PASSWORD,
        "From an object of another namespace, with sealedFor edited",
        graft(Scope.STRICT, "test", "db"),
    ),
    _misplaced(
        "ValueMoved-scope",
        "V6",
        PASSWORD,
        "From an object of another scope, with sealedFor edited",
        graft(Scope.CLUSTER, "prod", "db"),
    ),
    _altered("ValueAltered-nonce", "A bit of the nonce", flip(4)),
    _altered("ValueAltered-ciphertext", "A bit of the ciphertext", flip(16)),
    _altered("ValueAltered-tag", "The last bit", flip(-1)),
    _altered(
        "ValueAltered-key",
        "Under another data key of the object",
        edit_line(lambda line: line.replace(FIRST, SECOND)),
    ),
    _altered("ValueAltered-last", "The last value: nothing is opened (O3)", flip(-1, "token"), f"{VALUES}.token"),
    Rejection("DataKeyLength-short", "K8", "open", "Malformed", f"{KEYS}[0]", "16 bytes", _cut_key(16)),
    Rejection("DataKeyLength-long", "K8", "open", "Malformed", f"{KEYS}[0]", "64 bytes", _cut_key(64)),
)
