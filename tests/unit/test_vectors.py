"""The vector files against the code, against docs/format.md, and against a second reader written from the document."""

import ast
import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vectors import FOLDER, Vector, read_vectors

import kmseal
from kmseal import errors
from kmseal.envelope import DataKeyId, encode_base64
from kmseal.errors import KmsealError
from kmseal.manifest import EncryptedSecret
from kmseal.redacted import Redacted
from kmseal.rewrapped import brought_up_to_date, digest, openers, read_rewrapped

ACCEPTED, REJECTED, REWRAPPED = read_vectors("accept"), read_vectors("reject"), read_vectors("rewrapped")
DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
STAGES = ["parse", "place", "open"]


@pytest.mark.parametrize("vector", ACCEPTED, ids=str)
def test_an_accepted_vector_opens(vector: Vector) -> None:
    """Every accepted shape parses, is in its place and gives the expected values."""
    assert _read(vector, "open") == _expected(vector)


@pytest.mark.parametrize("vector", ACCEPTED, ids=str)
def test_an_accepted_vector_opens_for_a_second_reader(vector: Vector) -> None:
    """A reader that knows only sections 2 and 3 of the document, and none of our code, gets the same values."""
    metadata, spec = vector.manifest["metadata"], vector.manifest["spec"]
    scope = spec.get("scope", "Strict")
    bound = [scope, metadata["namespace"] if scope != "Cluster" else "", metadata["name"] if scope == "Strict" else ""]
    opened = {}
    for name, line in spec["encryptedData"].items():
        _, data_key_id, payload = line.split(".")
        associated = _length_prefixed("kmseal/v1/value", *bound, name)
        raw = base64.b64decode(payload)
        assert raw[:4] == hashlib.sha256(associated).digest()[:4]
        opened[name] = AESGCM(vector.data_keys[data_key_id]).decrypt(raw[4:16], raw[16:], associated)
    assert opened == _expected(vector)


def test_a_local_wrapping_opens_for_a_second_reader() -> None:
    """A key file's wrapping holds the data key under the context of B3, in every scope."""
    scopes = set()
    for vector in ACCEPTED:
        keys = {key_id: bytes.fromhex(key) for key_id, key in vector.content.get("localKeys", {}).items()}
        metadata, scope = vector.manifest["metadata"], vector.manifest["spec"].get("scope", "Strict")
        context = {"kmseal.dev/format": "v1", "kmseal.dev/scope": scope}
        context |= {"kmseal.dev/namespace": metadata["namespace"]} if scope != "Cluster" else {}
        context |= {"kmseal.dev/name": metadata["name"]} if scope == "Strict" else {}
        text = json.dumps(context, sort_keys=True, separators=(",", ":"))
        for data_key in vector.manifest["spec"]["dataKeys"]:
            for wrapping in data_key["wrappings"]:
                if wrapping["keyId"] in keys:
                    raw = base64.b64decode(wrapping["wrapped"])
                    associated = _length_prefixed("kmseal/v1/local-wrapping", text)
                    opened = AESGCM(keys[wrapping["keyId"]]).decrypt(raw[:12], raw[12:], associated)
                    assert opened == vector.data_keys[data_key["id"]]
                    scopes.add(scope)
    assert scopes == {"Strict", "Namespace", "Cluster"}


@pytest.mark.parametrize("vector", REJECTED, ids=str)
def test_a_rejected_vector_is_refused(vector: Vector) -> None:
    """The stages before the stated one accept it; that one refuses it with the stated class, reason and field."""
    stage, expected = vector.content["stage"], vector.content["error"]
    for earlier in STAGES[: STAGES.index(stage)]:
        _read(vector, earlier)
    with pytest.raises(KmsealError) as caught:
        _read(vector, stage)
    error = caught.value
    assert type(error) is getattr(errors, expected["class"])
    assert (error.reason, error.field) == (expected["reason"], expected["field"])
    assert error.message
    assert error.remedy
    assert "\n" not in str(error)


@pytest.mark.parametrize("vector", REJECTED, ids=str)
def test_a_refusal_quotes_no_value(vector: Vector) -> None:
    """No text that stands where a value, a line or wrapped bytes belong is repeated in the refusal."""
    with pytest.raises(KmsealError) as caught:
        _read(vector, "open")
    for text in _texts_of_values(vector.manifest):
        assert text not in str(caught.value)


@pytest.mark.parametrize("vector", REWRAPPED, ids=str)
def test_newer_wrappings_count_as_stated(vector: Vector) -> None:
    """The order of opening, and what Git should hold, are those of the file; what Git should hold is a good object."""
    object_, newer = EncryptedSecret.parse(vector.manifest), read_rewrapped(vector.manifest["status"])
    tried = {key.id: [encode_base64(wrapping.wrapped) for wrapping in openers(key, newer)] for key in object_.data_keys}
    assert tried == vector.content["openers"]
    current = [brought_up_to_date(data_key, newer).to_dict() for data_key in object_.data_keys]
    texts = {key["id"]: [wrapping["wrapped"] for wrapping in key["wrappings"]] for key in current}
    assert texts == vector.content["upToDate"]
    EncryptedSecret.parse({**vector.manifest, "spec": {**vector.manifest["spec"], "dataKeys": current}})


@pytest.mark.parametrize("vector", REWRAPPED, ids=str)
def test_the_digest_of_a_wrapping_is_known_to_a_second_reader(vector: Vector) -> None:
    """Who knows only R2 of the document computes the digests of the file, and our code the same."""
    ours = {
        key.id: [digest(item) for item in key.wrappings] for key in EncryptedSecret.parse(vector.manifest).data_keys
    }
    theirs = {}
    for data_key in vector.manifest["spec"]["dataKeys"]:
        theirs[data_key["id"]] = [
            hashlib.sha256(
                _length_prefixed("kmseal/v1/wrapping", item["keyId"], item["keyVersionId"], item["algorithm"])
                + base64.b64decode(item["wrapped"])
            ).hexdigest()
            for item in data_key["wrappings"]
        ]
    assert ours == theirs == vector.content["digests"]


def test_the_document_names_every_reason_once_and_every_one_has_a_vector() -> None:
    """The tables of section 9, the files and the code know the same reasons."""
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text().partition("## 9.")[2], re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert {vector.name.partition("-")[0] for vector in REJECTED} == set(documented)
    assert set(_reasons_in_code()) == set(documented)


def test_a_vector_names_the_rules_that_the_document_gives_its_reason() -> None:
    """The rule in a file is one of those beside its reason in the first table; it exists in the text."""
    text = DOCUMENT.read_text()
    first_table = text.partition("## 9.")[2].partition("These belong to the resource")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", first_table, re.MULTILINE)
    rules = {reason: rule.split(", ") for reason, rule in rows}
    for vector in REJECTED:
        reason, rule = vector.content["error"]["reason"], vector.content["rule"]
        assert vector.name.partition("-")[0] == reason
        if reason in rules:
            assert rule in rules[reason], vector.name
            assert f"**{rule}.**" in text
        else:
            assert rule == "", vector.name


def test_the_vectors_are_what_the_generator_writes(tmp_path: Path) -> None:
    """Writing all vectors again gives the same files, byte for byte."""
    subprocess.run([sys.executable, FOLDER / "generate.py", tmp_path], check=True, timeout=60)
    for kind in ("accept", "reject", "rewrapped"):
        written = {path.name: path.read_bytes() for path in (tmp_path / kind).iterdir()}
        assert written == {path.name: path.read_bytes() for path in (FOLDER / kind).iterdir()}


def _read(vector: Vector, stage: str) -> dict[str, bytes] | None:
    secret = EncryptedSecret.parse(vector.manifest)
    if stage == "parse":
        return None
    secret.require_place()
    if stage == "place":
        return None
    data_keys = {DataKeyId(data_key_id): Redacted(key) for data_key_id, key in vector.data_keys.items()}
    return {name: value.reveal() for name, value in secret.decrypt(data_keys).items()}


def _expected(vector: Vector) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in vector.content["values"].items()}


def _length_prefixed(*parts: str) -> bytes:
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _texts_of_values(node: Any, name: str = "") -> Iterator[str]:
    """Texts in the place of values, of at least 6 characters: shorter ones are in every sentence by chance."""
    if isinstance(node, dict):
        for member, item in node.items():
            inside = name if name in ("encryptedData", "data", "labels", "annotations") else member
            yield from _texts_of_values(item, inside)
    elif isinstance(node, list):
        for item in node:
            yield from _texts_of_values(item, name)
    elif (
        isinstance(node, str)
        and len(node) > 5
        and name in ("encryptedData", "data", "labels", "annotations", "wrapped")
    ):
        yield node


def _reasons_in_code() -> Iterator[str]:
    """What the modules of the format pass as a reason: by name, or as the last argument of what takes one."""
    for module in ("envelope", "structure", "target", "manifest"):
        tree = ast.parse((Path(kmseal.__file__).parent / f"{module}.py").read_text())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            arguments = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            if isinstance(call.func, ast.Name) and call.func.id in ("choice", "_require_unique", "_refused"):
                arguments += call.args[-1:]
            for argument in arguments:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if function.name == "_refused":
                yield from (str(ast.literal_eval(default)) for default in function.args.defaults)
