"""Sealing to the public half of an asymmetric key: fetched once, then neither network nor credentials."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmseal.manifest import Algorithm, EncryptedSecret
from kmseal.publickey import PublicKey

CANARY = "canary-7f3a9c"
FETCH = ("DescribeKey", "ListKeyVersions", "GetPublicKey")


@pytest.fixture
async def public(cloud: Any) -> str:
    """An asymmetric key whose public half is in app.pub.yaml."""
    key = str(cloud.kms.create_key(spec="RSA_2048"))
    await cloud(cloud.can(*FETCH), "keys", "public", "--key", key, "-w", "app.pub.yaml")
    cloud.kms.calls.clear()
    return key


def parsed(path: str = "db.yaml") -> EncryptedSecret:
    """The object of a file."""
    return EncryptedSecret.parse(yaml.safe_load(Path(path).read_text()))


def keys(path: str = "db.yaml", index: int = -1) -> list[str]:
    """The keys of one data key's wrappings."""
    return [item.key_id for item in parsed(path).data_keys[index].wrappings]


async def opened(cloud: Any, name: str = "password") -> str:
    """The value, by somebody who may use the private half in KMS."""
    return str((await cloud(cloud.can("AsymmetricDecrypt"), "decrypt", "db.yaml", name)).stdout)


# What a process without network and credentials does: every way to either is an error.
OFFLINE = """
import socket, sys

def refuse(*arguments, **more):
    raise AssertionError("the network is used")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from kmseal.cli.main import cli
code = cli.main(sys.argv[1:], prog_name="kmseal", standalone_mode=False)
wrong = {"alibabacloud_kms20160120", "alibabacloud_credentials", "Tea", "aiohttp", "kmseal.kms.keyring"}
assert not wrong & set(sys.modules), wrong & set(sys.modules)
sys.exit(code)
"""


def offline(*arguments: str, stdin: str = "", more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program where nothing but files is to be had."""
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(more or {})},
    )
    assert CANARY not in done.stderr
    return done


async def test_the_file_says_what_it_is_and_is_read_back(cloud: Any, public: str) -> None:
    """Comments for the reviewer, and four members for the parser."""
    text = Path("app.pub.yaml").read_text()
    assert text.startswith("# The public half of a KMS key.")
    assert text.endswith("  -----END PUBLIC KEY-----\n")
    assert PublicKey.parse(yaml.safe_load(text)).key_id == public
    printed = await cloud(cloud.can(*FETCH), "keys", "public", "--key", public)
    assert printed.stdout == text
    assert cloud.kms.calls["GetPublicKey", "Success"] == 1


async def test_create_encrypt_and_set_need_nothing_but_the_file(cloud: Any, public: str) -> None:
    """No SDK is imported, no socket connects, and KMS opens what came out."""
    made = offline(
        *("create", "db", "-n", "prod", "--public-key", "app.pub.yaml", "--from-file", "password=-", "-w", "db.yaml"),
        stdin=CANARY,
    )
    assert made.returncode == 0, made.stderr
    (wrapping,) = parsed().data_keys[0].wrappings
    assert (wrapping.key_id, wrapping.algorithm) == (public, Algorithm.RSAES_OAEP_SHA_256)
    assert await opened(cloud) == CANARY
    changed = offline("set", "db.yaml", "other=-", "--public-key", "app.pub.yaml", stdin=f"{CANARY} 2")
    assert changed.returncode == 0, changed.stderr
    assert changed.stderr == "db.yaml: set other\n"
    assert [await opened(cloud), await opened(cloud, "other")] == [CANARY, f"{CANARY} 2"]
    plain = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db"},
        "stringData": {"password": f"{CANARY} 3"},
    }
    encrypted = offline(
        *("encrypt", "-n", "prod", "--public-key", "app.pub.yaml", "-w", "db.yaml"), stdin=yaml.safe_dump(plain)
    )
    assert encrypted.returncode == 0, encrypted.stderr
    assert await opened(cloud) == f"{CANARY} 3"
    # Nobody called but those who opened.
    assert set(cloud.kms.calls.by_action()) == {"AsymmetricDecrypt"}


async def test_the_environment_names_the_file(cloud: Any, public: str) -> None:
    """For create and encrypt as a default, for set to look the object's keys up in."""
    more = {"KMSEAL_PUBLIC_KEY": "app.pub.yaml"}
    made = offline("create", "db", "-n", "prod", "--from-file", "password=-", "-w", "db.yaml", stdin="x", more=more)
    assert made.returncode == 0, made.stderr
    done = offline("set", "db.yaml", "password=-", stdin=CANARY, more=more)
    assert done.returncode == 0, done.stderr
    assert keys() == [public]
    assert await opened(cloud) == CANARY


async def test_each_data_key_is_another_one(cloud: Any, public: str) -> None:
    """Drawn at random: two objects with one value have nothing in common."""
    lines = set()
    for _ in range(3):
        offline(
            *("create", "db", "-n", "prod", "--public-key", "app.pub.yaml", "--from-file", "password=-", "-w"),
            "db.yaml",
            stdin=CANARY,
        )
        lines |= {parsed().values["password"].line(), parsed().data_keys[0].wrappings[0].wrapped}
    assert len(lines) == 6


async def test_a_key_of_kms_and_a_public_half_wrap_one_data_key(cloud: Any, public: str) -> None:
    """Either one opens; the public half costs no call."""
    writer = cloud.can("GenerateDataKey")
    arguments = ("--key", cloud.key, "--public-key", "app.pub.yaml")
    await cloud(
        writer, "create", "db", "-n", "prod", *arguments, "--from-file", "password=-", "-w", "db.yaml", stdin="x"
    )
    assert keys() == [cloud.key, public]
    assert cloud.kms.calls.by_action() == {"GenerateDataKey": {"Success": 1}}
    await cloud(writer, "set", "db.yaml", "password=-", *arguments, stdin=CANARY)
    assert keys() == [cloud.key, public]
    cloud.kms.disable(cloud.key)
    assert await opened(cloud) == CANARY
    cloud.kms.enable(cloud.key)
    assert (await cloud(cloud.can("Decrypt"), "decrypt", "db.yaml", "password")).stdout == CANARY


async def test_set_says_which_file_it_needs(cloud: Any, public: str) -> None:
    """With all options that keep the object's keys; the file stays as it is."""
    writer = cloud.can("GenerateDataKey")
    arguments = ("--key", cloud.key, "--public-key", "app.pub.yaml")
    await cloud(
        writer, "create", "db", "-n", "prod", *arguments, "--from-file", "password=-", "-w", "db.yaml", stdin="x"
    )
    before = Path("db.yaml").read_bytes()
    done = await cloud(writer, "set", "db.yaml", "password=-", stdin=CANARY, fails=3)
    assert f"--public-key: {public} is an asymmetric key: wrapping by it needs the file" in done.stderr
    assert f"kmseal keys public --key {public} -w FILE, and pass --key {cloud.key} --public-key FILE" in done.stderr
    assert Path("db.yaml").read_bytes() == before
    # By the public half alone it is possible, without network, and what is lost is said.
    alone = offline("set", "db.yaml", "password=-", "--public-key", "app.pub.yaml", stdin=CANARY)
    assert alone.returncode == 0
    assert f'warning: the new values will not open with "{cloud.key}"' in alone.stderr
    assert keys() == [public]


async def test_rotate_and_rewrap_keep_what_is_sealed_to_a_public_half(cloud: Any, public: str) -> None:
    """Re-wrapping leaves it as it is, and asks nobody about it; rotating needs the file again."""
    offline(
        *("create", "db", "-n", "prod", "--public-key", "app.pub.yaml", "--from-file", "password=-", "-w", "db.yaml"),
        stdin=CANARY,
    )
    before = Path("db.yaml").read_bytes()
    assert (await cloud(cloud.can(), "rewrap", "db.yaml")).stderr == "1 up to date (1 file)\n"
    assert Path("db.yaml").read_bytes() == before
    assert cloud.kms.calls.total == 0
    done = await cloud(cloud.can("AsymmetricDecrypt"), "rotate", "db.yaml", fails=3)
    assert "wrapping by it needs the file with its public half" in done.stderr
    more = {"KMSEAL_PUBLIC_KEY": "app.pub.yaml"}
    await cloud(cloud.can("AsymmetricDecrypt"), "rotate", "db.yaml", more=more)
    assert Path("db.yaml").read_bytes() != before
    assert keys() == [public]
    assert await opened(cloud) == CANARY


async def test_from_a_public_half_to_a_key_of_kms(cloud: Any, public: str) -> None:
    """The wrapping moves; the other way is refused with what to do instead."""
    offline(
        *("create", "db", "-n", "prod", "--public-key", "app.pub.yaml", "--from-file", "password=-", "-w", "db.yaml"),
        stdin=CANARY,
    )
    mover = cloud.can("DescribeKey", "AsymmetricDecrypt", "Encrypt", "ReEncryptFrom", "ReEncryptTo")
    await cloud(mover, "rewrap", "--to-key", cloud.key, "db.yaml")
    assert keys() == [cloud.key]
    assert (await cloud(cloud.can("Decrypt"), "decrypt", "db.yaml", "password")).stdout == CANARY
    for option in ("--to-key", "--add-key"):
        done = await cloud(mover, "rewrap", option, public, "db.yaml", fails=3)
        assert "is an asymmetric key, which wraps by its public half only" in done.stderr


async def test_a_symmetric_key_has_no_public_half(cloud: Any) -> None:
    """The key is named, and nothing is written."""
    done = await cloud(cloud.can(*FETCH), "keys", "public", "--key", cloud.key, "-w", "x.yaml", fails=3)
    assert cloud.key in done.stderr
    assert not Path("x.yaml").exists()


async def test_a_missing_right_is_named(cloud: Any, public: str) -> None:
    """With the key."""
    done = await cloud(cloud.can("Decrypt"), "keys", "public", "--key", public, fails=4)
    assert f"{public}: " in done.stderr
    assert "kms:ListKeyVersions and kms:GetPublicKey on this key" in done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "bad.yaml: holds 0 documents instead of one; pass a file that kmseal keys public wrote"),
        ("a: 1\n---\nb: 2\n", "bad.yaml: holds 2 documents"),
        ("keyId: local:dev\n", "bad.yaml: keyId: is a key of a key file"),
        ("- x\n", "bad.yaml: must be an object, not a list"),
        ("a: [\n", "bad.yaml: is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(run: Any, text: str, line: str) -> None:
    """Before values are asked for."""
    Path("bad.yaml").write_text(text)
    done = run("create", "db", "-n", "prod", "--public-key", "bad.yaml", "--prompt", "x", fails=3)
    assert line in done.stderr


async def test_a_key_is_not_named_twice(cloud: Any, public: str) -> None:
    """Neither by two files nor by an option and a file."""
    Path("again.yaml").write_text(Path("app.pub.yaml").read_text())
    for more in (("--public-key", "again.yaml"), ("--key", public)):
        arguments = ("create", "db", "-n", "prod", "--public-key", "app.pub.yaml", *more, "--from-file", "a=-")
        assert "is given twice; name it once" in (await cloud(cloud.can(), *arguments, stdin="x", fails=3)).stderr


async def test_a_copied_wrapping_is_not_given_another_objects_context(cloud: Any, public: str) -> None:
    """Sealed to a public key it is bound to no place: only a value that opens here shows whose it is."""
    symmetric = str(cloud.kms.create_key())
    for name in ("victim", "thief"):
        arguments = ("--public-key", "app.pub.yaml", "--from-file", "password=-", "-w", f"{name}.yaml")
        sealed = offline("create", name, "-n", name, *arguments, stdin=CANARY)
        assert sealed.returncode == 0, sealed.stderr
    victim, thief = (yaml.safe_load(Path(f"{name}.yaml").read_text()) for name in ("victim", "thief"))
    thief["spec"]["dataKeys"][0]["wrappings"] = victim["spec"]["dataKeys"][0]["wrappings"]
    Path("thief.yaml").write_text(yaml.safe_dump(thief, sort_keys=False))
    before = Path("thief.yaml").read_bytes()
    able = cloud.can("DescribeKey", "AsymmetricDecrypt", "Encrypt", "ReEncrypt*")
    for option in ("--to-key", "--add-key"):
        refused = await cloud(able, "rewrap", "thief.yaml", option, symmetric, fails=3)
        assert "spec.dataKeys[0].wrappings" in refused.stderr
        assert Path("thief.yaml").read_bytes() == before
    assert cloud.kms.calls["Encrypt"] == 0
    await cloud(able, "rewrap", "victim.yaml", "--to-key", symmetric)
    assert [item.algorithm for item in parsed("victim.yaml").data_keys[0].wrappings] == [Algorithm.KMS_SYMMETRIC]


async def test_what_another_public_half_replaces_is_told(cloud: Any, public: str) -> None:
    """Whoever replaces it reads what is sealed afterwards; fetching the same one again is no news."""
    again = await cloud(cloud.can(*FETCH), "keys", "public", "--key", public, "-w", "app.pub.yaml")
    assert "warning" not in again.stderr
    version = yaml.safe_load(Path("app.pub.yaml").read_text())["keyVersionId"]
    other = cloud.kms.create_key(spec="RSA_2048")
    done = await cloud(cloud.can(*FETCH), "keys", "public", "--key", other, "-w", "app.pub.yaml")
    assert f"warning: app.pub.yaml: replaced {public} version {version}: review the change" in done.stderr
    Path("notes.txt").write_text("mine")
    done = await cloud(cloud.can(*FETCH), "keys", "public", "--key", other, "-w", "notes.txt")
    assert "warning: notes.txt: replaced a file that was no public half of a key: " in done.stderr
