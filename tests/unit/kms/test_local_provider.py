"""The local provider and its key file."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.errors import KeyUnusable, Malformed, Misconfigured, Refused
from kmseal.kms.local import LocalProvider, add_version, create_key_file, read_key_file
from kmseal.kms.provider import KeyState
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

CONTEXT = {"kmseal.dev/scope": "Strict", "kmseal.dev/format": "v1"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    create_key_file(path, ("dev", "other"))
    return path


async def test_a_fresh_data_key_opens_in_its_context_only(key_file: Path) -> None:
    """32 bytes, wrapped by the primary version; another context is refused."""
    provider = LocalProvider(key_file)
    fresh = await provider.generate("local:dev", CONTEXT)
    assert len(fresh.data_key) == 32
    assert (fresh.wrapping.key_id, fresh.wrapping.key_version_id) == ("local:dev", "1")
    opened = await provider.unwrap(fresh.wrapping, dict(reversed(CONTEXT.items())))
    assert opened.data_key == fresh.data_key
    assert (opened.key_id, opened.key_version_id) == ("local:dev", "1")
    with pytest.raises(Refused) as caught:
        await provider.unwrap(fresh.wrapping, CONTEXT | {"kmseal.dev/name": "x"})
    assert caught.value.reason == "KmsRefused"


async def test_the_wrapping_is_that_of_the_format_document(key_file: Path) -> None:
    """Opened here by hand: nonce, ciphertext and tag, with the length-prefixed canonical context (K6)."""
    provider = LocalProvider(key_file)
    data_key = Redacted(bytes(range(32)))
    wrapping = await provider.wrap("local:dev", data_key, CONTEXT)
    material = base64.b64decode(json.loads(key_file.read_text())["keys"]["dev"]["versions"]["1"])
    label, context = b"kmseal/v1/local-wrapping", b'{"kmseal.dev/format":"v1","kmseal.dev/scope":"Strict"}'
    associated = len(label).to_bytes(4, "big") + label + len(context).to_bytes(4, "big") + context
    assert len(wrapping.wrapped) == 12 + 32 + 16
    assert AESGCM(material).decrypt(wrapping.wrapped[:12], wrapping.wrapped[12:], associated) == data_key.reveal()


@pytest.mark.parametrize("position", [0, 11, 12, 43, 44, 59])
async def test_an_altered_wrapping_is_refused(key_file: Path, position: int) -> None:
    """A flipped bit in nonce, ciphertext or tag."""
    provider = LocalProvider(key_file)
    wrapping = (await provider.generate("local:dev", CONTEXT)).wrapping
    altered = bytearray(wrapping.wrapped)
    altered[position] ^= 1
    with pytest.raises(Refused):
        await provider.unwrap(
            Wrapping(wrapping.key_id, wrapping.key_version_id, wrapping.algorithm, bytes(altered)), CONTEXT
        )


@pytest.mark.parametrize("wrapped", [b"x", b"x" * 12, b"x" * 13, b"x" * 27])
async def test_a_short_wrapping_is_refused(key_file: Path, wrapped: bytes) -> None:
    """Less than nonce and tag is no wrapping."""
    with pytest.raises(Refused):
        await LocalProvider(key_file).unwrap(Wrapping("local:dev", "1", Algorithm.LOCAL_AES_256_GCM, wrapped), CONTEXT)


async def test_another_key_of_the_file_does_not_open_it(key_file: Path) -> None:
    """The key's name decides, not what happens to fit."""
    provider = LocalProvider(key_file)
    wrapping = (await provider.generate("local:dev", CONTEXT)).wrapping
    with pytest.raises(Refused):
        await provider.unwrap(Wrapping("local:other", "1", wrapping.algorithm, wrapping.wrapped), CONTEXT)


async def test_rotation_rewraps_and_old_wrappings_still_open(key_file: Path) -> None:
    """The provider notices the changed file; the version that is reported is the one that really opened."""
    provider = LocalProvider(key_file)
    fresh = await provider.generate("local:dev", CONTEXT)
    assert add_version(key_file, "dev") == "2"
    description = await provider.describe("local:dev")
    assert (description.state, description.primary_version) == (KeyState.ENABLED, "2")
    again = await provider.rewrap(fresh.wrapping, "local:dev", CONTEXT)
    assert again.key_version_id == "2"
    assert (await provider.unwrap(again, CONTEXT)).data_key == fresh.data_key
    mislabelled = Wrapping("local:dev", "2", fresh.wrapping.algorithm, fresh.wrapping.wrapped)
    assert (await provider.unwrap(mislabelled, CONTEXT)).key_version_id == "1"


async def test_a_key_that_is_not_there_is_unusable(key_file: Path) -> None:
    """The error names the key and the file."""
    with pytest.raises(KeyUnusable, match=r"local:absent is not in the key file .*keys\.json"):
        await LocalProvider(key_file).describe("local:absent")
    with pytest.raises(KeyUnusable):
        add_version(key_file, "absent")


async def test_without_a_key_file_every_call_says_which_setting_is_missing() -> None:
    """The provider exists, so that the error is about the setting and not about the key."""
    with pytest.raises(Misconfigured) as caught:
        await LocalProvider(None).generate("local:dev", CONTEXT)
    assert caught.value.field == "KMSEAL_LOCAL_KEY_FILE"


async def test_a_file_that_others_can_read_is_refused(key_file: Path) -> None:
    """With the command that repairs it; repaired, it works."""
    provider = LocalProvider(key_file)
    for mode in (0o640, 0o604, 0o620):
        key_file.chmod(mode)
        with pytest.raises(Misconfigured, match=f"chmod 600 {key_file}"):
            await LocalProvider(key_file).describe("local:dev")
    key_file.chmod(0o600)
    assert (await provider.describe("local:dev")).primary_version == "1"


def document(**changes: Any) -> dict[str, Any]:
    material = base64.b64encode(b"k" * 32).decode()
    return {"version": 1, "keys": {"dev": {"primary": "1", "versions": {"1": material}} | changes}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"[" * 100_000,
        json.dumps({"version": 2, "keys": {}}).encode(),
        json.dumps({"version": 1}).encode(),
        json.dumps({"version": 1, "keys": []}).encode(),
        json.dumps({"version": 1, "keys": {"Dev": {}}}).encode(),
        json.dumps(document(primary="2")).encode(),
        json.dumps(document(primary=1)).encode(),
        json.dumps(document(extra=1)).encode(),
        json.dumps(document(versions={"1": "a2tra2s="})).encode(),
        json.dumps(document(versions={"1": "canary-91C3 no base64"})).encode(),
        json.dumps(document(versions={"1": None})).encode(),
    ],
    ids=lambda content: content[:24].decode("latin-1"),
)
def test_a_malformed_key_file_is_misconfigured_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    """The error names file and remedy, and holds nothing of what is in the file."""
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match=r"keys\.json does not have its form; restore it") as caught:
        read_key_file(path)
    assert "canary" not in f"{caught.value} {caught.value.__dict__}"


def test_a_missing_key_file_is_misconfigured(tmp_path: Path) -> None:
    """So is a folder in its place."""
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(Misconfigured, match="cannot be read"):
            read_key_file(path)


def test_a_key_file_is_made_private_and_never_over_another(key_file: Path) -> None:
    """Mode 0600 whatever the umask, no temporary file left, and an existing one is untouched."""
    before = key_file.read_bytes()
    with pytest.raises(Misconfigured, match="already"):
        create_key_file(key_file, ("dev",))
    assert key_file.read_bytes() == before
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert os.listdir(key_file.parent) == ["keys.json"]


def test_a_bad_name_makes_no_file(tmp_path: Path) -> None:
    """Names are checked before anything is written."""
    with pytest.raises(Malformed):
        create_key_file(tmp_path / "keys.json", ("dev", "No Name"))
    with pytest.raises(Misconfigured, match="cannot be written"):
        create_key_file(tmp_path / "no" / "folder", ("dev",))
    assert os.listdir(tmp_path) == []


async def test_a_local_key_has_no_public_half_and_no_endpoint(key_file: Path) -> None:
    """One key for both directions, in a file: the refusal says what to do instead."""
    provider = LocalProvider(key_file)
    with pytest.raises(Refused, match="no public half; seal with the key file") as caught:
        await provider.public_key("local:dev")
    assert caught.value.reason == "NotAsymmetric"
    with pytest.raises(KeyUnusable):
        await provider.public_key("local:missing")
    assert list(provider.endpoints()) == []
    assert provider.healthy("local:dev")
