"""The state on disk: everything survives a restart, nothing is overwritten by mistake, nobody else can read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import Misconfigured
from kmseal.fakekms import FakeKms, Policy

Sign = Callable[..., Any]


def ask(kms: FakeKms, request: Any) -> dict[str, Any]:
    return json.loads(kms.service.answer(request).content)


def test_everything_survives_a_restart(clock: Any, tmp_path: Path, sign: Sign) -> None:
    """Keys of every kind with versions, imports, states and tags, aliases, rights, sessions, roles and the clock."""
    file = tmp_path / "state.json"
    first = FakeKms(("cn-hangzhou", "cn-beijing"), clock=clock, state_path=file)
    admin, developer = first.add_identity("admin"), first.add_identity("developer", ("GenerateDataKey",))
    session = first.add_temporary_identity("session", 3600, ("ListKeys",))
    role = first.add_role("operator", ("Decrypt",), subjects=("system:*",))
    arn, elsewhere = first.create_key("alias/app"), first.create_key("alias/app", "cn-beijing")
    ask(first, sign(admin, "TagResource", {"KeyId": arn, "Tags": [{"TagKey": "k", "TagValue": "v"}]}))
    policy = {"KeyId": arn, "EnableAutomaticRotation": "true", "RotationInterval": "30d"}
    ask(first, sign(admin, "UpdateRotationPolicy", policy))
    old = ask(first, sign(admin, "GenerateDataKey", {"KeyId": arn}))
    guarded = first.add_identity("guarded", policy=Policy().and_deny(("Decrypt",), (arn,)))
    offline, external = first.create_key(spec="RSA_2048"), first.create_key(origin="EXTERNAL")
    first.rotate(offline)
    wanted = {"KeyId": external, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    ask(first, sign(admin, "GetParametersForImport", wanted))
    first.import_material(external, bytes(32), expires=clock.now + 1000)
    first.clock.advance(500)
    first.rotate(arn)
    first.disable(elsewhere)

    second = FakeKms(("cn-hangzhou", "cn-beijing"), clock=clock, state_path=file)
    assert second.store.stored() == first.store.stored()
    assert second.store.aliases() == first.store.aliases()
    assert list(second.identities) == [admin, developer, session, guarded]
    assert second.clock() == first.clock()
    version = {"KeyId": offline, "KeyVersionId": first.key(offline).versions[0].version_id}
    public = [ask(kms, sign(admin, "GetPublicKey", version))["PublicKey"] for kms in (first, second)]
    assert public[0] == public[1]
    assert [second.tokens.role_arn(item.name) for item in second.tokens.roles] == [role]
    assert second.tokens.roles == first.tokens.roles
    opened = ask(second, sign(admin, "Decrypt", {"CiphertextBlob": old["CiphertextBlob"]}))
    assert opened["Plaintext"] == old["Plaintext"]


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    """The file is readable by its owner only, whatever was there before, and nothing is left beside it."""
    file = tmp_path / "state.json"
    kms = FakeKms(state_path=file)
    kms.create_key()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_folder_holds_the_file(tmp_path: Path) -> None:
    """A folder may be named instead of a file."""
    arn = FakeKms(state_path=tmp_path).create_key()
    assert (tmp_path / "state.json").is_file()
    assert FakeKms(state_path=tmp_path).key(arn).arn == arn


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        '{"format": 1}',
        '{"format": 2, "account": "2"}',
        '{"format": 2, "account": "1000000000000001"}',
        '{"format": 2, "account": "1000000000000001", "clock_offset": 0, "keys": [{}], "aliases": []}',
    ],
)
def test_a_broken_file_stops_the_start(tmp_path: Path, content: str) -> None:
    """What is no state of this account is refused and left as it is."""
    file = tmp_path / "state.json"
    file.write_text(content)
    with pytest.raises(Misconfigured, match="state file") as caught:
        FakeKms(state_path=file)
    assert (caught.value.field, caught.value.reason) == ("--state", "StateFile")
    assert file.read_text() == content


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """A state that cannot be kept is said at once, not in the middle of a request."""
    with pytest.raises(Misconfigured, match="cannot be written"):
        FakeKms(state_path=tmp_path / "none" / "state.json")
