"""kmseal rewrap and rotate against the fake KMS over TLS: calls counted, rights, regions, faults, interruption."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmseal.fakekms.faults import Fault, FaultKind
from kmseal.manifest import EncryptedSecret

CANARY = "canary-7f3a9c"
PROGRAM = Path(sys.executable).with_name("kmseal")
REENCRYPT = ("DescribeKey", "ReEncryptFrom", "ReEncryptTo")


async def seal(cloud: Any, count: int, *keys: str) -> None:
    """Objects o0, o1 and so on, in a file each, with the canary as their value; the count of calls starts anew."""
    writer = cloud.can("GenerateDataKey", "Encrypt")
    arguments = [argument for key in keys or (cloud.key,) for argument in ("--key", key)]
    Path("value").write_text(CANARY)
    for number in range(count):
        await cloud(
            writer, "create", f"o{number}", "-n", "prod", *arguments, "--from-file", "value", "-w", f"o{number}.yaml"
        )
    cloud.kms.calls.clear()


def wrappings(number: int = 0) -> list[tuple[str, str]]:
    """Key and version of an object's wrappings."""
    parsed = EncryptedSecret.parse(yaml.safe_load(Path(f"o{number}.yaml").read_text()))
    return [(item.key_id, item.key_version_id) for item in parsed.data_keys[0].wrappings]


async def opened(cloud: Any, number: int = 0) -> str:
    """The value inside."""
    return str((await cloud(cloud.can("Decrypt"), "decrypt", f"o{number}.yaml", "value")).stdout)


async def test_a_rotation_costs_one_description_and_one_call_for_each_object(cloud: Any) -> None:
    """And no right to see a data key."""
    await seal(cloud, 12)
    version = cloud.kms.rotate(cloud.key)
    await cloud(cloud.can(*REENCRYPT), "rewrap", ".")
    assert cloud.kms.calls.by_action() == {"DescribeKey": {"Success": 1}, "ReEncrypt": {"Success": 12}}
    assert {tuple(wrappings(number)) for number in range(12)} == {((cloud.key, version),)}
    assert await opened(cloud, 7) == CANARY


async def test_what_is_up_to_date_costs_one_description(cloud: Any) -> None:
    """However many objects there are."""
    await seal(cloud, 5)
    await cloud(cloud.can("DescribeKey"), "rewrap", ".")
    assert cloud.kms.calls.by_action() == {"DescribeKey": {"Success": 1}}


@pytest.mark.parametrize("option", ["--dry-run", "--check"])
async def test_a_dry_run_needs_the_right_to_describe_only(cloud: Any, option: str) -> None:
    """It opens and wraps nothing."""
    await seal(cloud, 2)
    version = cloud.kms.rotate(cloud.key)
    fails = 7 if option == "--check" else 0
    done = await cloud(cloud.can("DescribeKey"), "rewrap", option, ".", fails=fails, errors=0)
    assert f" -> {version}\n" in done.stderr
    assert cloud.kms.calls.by_action() == {"DescribeKey": {"Success": 1}}


async def test_an_alias_that_moved_is_followed_on_request(cloud: Any) -> None:
    """With the alias as the key to move to, which is resolved once."""
    await seal(cloud, 3)
    new = cloud.kms.create_key()
    cloud.kms.move_alias("alias/app", new)
    alias = f"{cloud.key.rpartition(':')[0]}:alias/app"
    await cloud(cloud.can(*REENCRYPT), "rewrap", "--to-key", alias, ".")
    assert cloud.kms.calls["DescribeKey"] == 1
    assert [wrappings(number)[0][0] for number in range(3)] == [new] * 3
    assert await opened(cloud) == CANARY


async def test_a_second_region_is_added_and_opens_alone(cloud: Any) -> None:
    """One unwrap and one wrap for each object; the first wrapping stays."""
    await seal(cloud, 2)
    await cloud(cloud.can("DescribeKey", "Decrypt", "Encrypt"), "rewrap", "--add-key", cloud.far_key, ".")
    assert cloud.kms.calls.by_action() == {
        "DescribeKey": {"Success": 1},
        "Decrypt": {"Success": 2},
        "Encrypt": {"Success": 2},
    }
    assert [key for key, _ in wrappings()] == [cloud.key, cloud.far_key]
    cloud.kms.disable(cloud.key)
    assert await opened(cloud) == CANARY


async def test_a_region_that_is_down_keeps_its_wrappings(cloud: Any) -> None:
    """The other region's are wrapped anew; the run fails with 5, and another one goes on with what is left."""
    await seal(cloud, 3, cloud.key, cloud.far_key)
    version, far_version = cloud.kms.rotate(cloud.key), cloud.kms.rotate(cloud.far_key)
    before = wrappings()
    await cloud.kms.stop_listening("cn-shanghai")
    soon = {"KMSEAL_KMS_DEADLINE_SECONDS": "1"}
    done = await cloud(cloud.can(*REENCRYPT), "rewrap", ".", fails=5, errors=3, more=soon)
    assert "3 changed" in done.stderr
    assert [wrappings(number) for number in range(3)] == [[(cloud.key, version), before[1]]] * 3
    await cloud.kms.start_listening("cn-shanghai")
    cloud.kms.calls.clear()
    await cloud(cloud.can(*REENCRYPT), "rewrap", ".")
    assert cloud.kms.calls["ReEncrypt"] == 3
    assert [wrappings(number) for number in range(3)] == [[(cloud.key, version), (cloud.far_key, far_version)]] * 3


async def test_set_keeps_both_regions(cloud: Any) -> None:
    """The new data key gets a wrapping under each key that the object has."""
    await seal(cloud, 1, cloud.key, cloud.far_key)
    await cloud(cloud.can("GenerateDataKey", "Encrypt"), "set", "o0.yaml", "value=-", stdin=f"{CANARY} 2")
    assert [key for key, _ in wrappings()] == [cloud.key, cloud.far_key]
    for key in (cloud.key, cloud.far_key):
        cloud.kms.disable(key)
        assert await opened(cloud) == f"{CANARY} 2"
        cloud.kms.enable(key)


@pytest.mark.parametrize("region", ["cn-hangzhou", "cn-shanghai"])
async def test_set_with_a_region_down_names_the_key_and_writes_nothing(cloud: Any, region: str) -> None:
    """Whichever of the two it is."""
    await seal(cloud, 1, cloud.key, cloud.far_key)
    before = Path("o0.yaml").read_bytes()
    await cloud.kms.stop_listening(region)
    writer = cloud.can("GenerateDataKey", "Encrypt")
    soon = {"KMSEAL_KMS_DEADLINE_SECONDS": "1"}
    done = await cloud(writer, "set", "o0.yaml", "value=-", stdin=CANARY, fails=5, more=soon)
    assert (cloud.key if region == "cn-hangzhou" else cloud.far_key) in done.stderr
    assert Path("o0.yaml").read_bytes() == before


@pytest.mark.parametrize("command", ["set", "rotate"])
async def test_a_key_that_is_shut_does_not_keep_anybody_from_sealing(cloud: Any, command: str) -> None:
    """It is said how to go on without it; what is said works, and the wrapping can be added later."""
    await seal(cloud, 1, cloud.far_key, cloud.key)
    cloud.kms.disable(cloud.far_key)
    writer = cloud.can("Decrypt", "GenerateDataKey", "Encrypt", "DescribeKey")
    arguments = ("set", "o0.yaml", "value=new") if command == "set" else ("rotate", "o0.yaml")
    done = await cloud(writer, *arguments, fails=4)
    assert (
        f"seal without it now, with --key {cloud.key}, and run kmseal rewrap --add-key {cloud.far_key}" in done.stderr
    )
    await cloud(writer, *arguments, "--key", cloud.key)
    assert [key for key, _ in wrappings()] == [cloud.key]
    cloud.kms.enable(cloud.far_key)
    await cloud(writer, "rewrap", "--add-key", cloud.far_key, "o0.yaml")
    assert {key for key, _ in wrappings()} == {cloud.key, cloud.far_key}


async def test_an_alias_of_what_is_to_be_removed_is_not_added(cloud: Any) -> None:
    """Only KMS knows that both are one."""
    await seal(cloud, 1)
    alias = f"{cloud.key.rpartition(':')[0]}:alias/app"
    done = await cloud(
        cloud.can("DescribeKey"), "rewrap", "--add-key", alias, "--remove-key", cloud.key, "o0.yaml", fails=3
    )
    assert f"--add-key: {alias} is {cloud.key}, which is to be removed" in done.stderr


async def test_a_missing_right_names_the_key_and_the_right(cloud: Any) -> None:
    """For each object, because each may have another key."""
    await seal(cloud, 2)
    cloud.kms.rotate(cloud.key)
    before = Path("o0.yaml").read_bytes()
    done = await cloud(cloud.can("DescribeKey"), "rewrap", ".", fails=4, errors=2)
    assert f"error: o0.yaml: prod/o0: spec.dataKeys[0].wrappings[0]: {cloud.key}: " in done.stderr
    assert "ask for kms:ReEncryptFrom on the old key" in done.stderr
    assert Path("o0.yaml").read_bytes() == before
    done = await cloud(cloud.can("Decrypt"), "rewrap", ".", fails=4, errors=2)
    assert cloud.kms.calls["DescribeKey", "Forbidden.NoPermission"] <= 2


async def test_a_key_that_cannot_be_described_is_asked_about_once(cloud: Any) -> None:
    """Whatever the number of objects."""
    await seal(cloud, 6)
    await cloud(cloud.can("Decrypt"), "rewrap", ".", fails=4, errors=6)
    assert cloud.kms.calls["DescribeKey"] == 1


async def test_no_more_requests_are_in_flight_than_allowed(cloud: Any) -> None:
    """The run hides latency, and does not flood."""
    await seal(cloud, 24)
    cloud.kms.rotate(cloud.key)
    from kmseal.cli import bulk
    from kmseal.cli.inflight import InFlight

    most, now = 0, 0
    rewrap = InFlight.rewrap

    class Counted:
        def __init__(self, service: Any) -> None:
            self.service = service

        def __getattr__(self, name: str) -> Any:
            return getattr(self.service, name)

        async def rewrap(self, *arguments: Any, **more: Any) -> Any:
            nonlocal most, now
            now += 1
            most = max(most, now)
            try:
                return await self.service.rewrap(*arguments, **more)
            finally:
                now -= 1

    async def counting(self: Any, *arguments: Any, **more: Any) -> Any:
        if not isinstance(self._service, Counted):
            self._service = Counted(self._service)
        return await rewrap(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InFlight, "rewrap", counting)
        Path("all.yaml").write_text("---\n".join(Path(f"o{number}.yaml").read_text() for number in range(24)))
        await cloud(cloud.can(*REENCRYPT), "rewrap", "all.yaml")
    assert 1 < most <= bulk.IN_FLIGHT


async def test_an_interruption_leaves_each_file_old_or_new(cloud: Any) -> None:
    """And the next run does only what is left."""
    await seal(cloud, 20)
    version = cloud.kms.rotate(cloud.key)
    old = wrappings()[0]
    identity = cloud.can(*REENCRYPT)
    cloud.kms.faults.add(Fault(FaultKind.LATENCY, seconds=0.1, actions=("ReEncrypt",)))
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "rewrap", ".",
        env={
            "PATH": os.environ["PATH"],
            "KMSEAL_KMS_ENDPOINT": cloud.kms.endpoint(),
            "KMSEAL_KMS_CA_FILE": str(cloud.kms.ca_file),
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        },
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        # Nothing tells when the first answer has gone out but the count of answers.
        while cloud.kms.calls["ReEncrypt", "Success"] < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130, err
    found = [wrappings(number)[0] for number in range(20)]
    assert set(found) <= {old, (cloud.key, version)}
    left = found.count(old)
    assert left
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    if left < 20:
        assert f"interrupted: {20 - left} objects were changed before".encode() in err
    cloud.kms.faults.clear()
    finished = [Path(f"o{number}.yaml") for number, item in enumerate(found) if item != old]
    before = [path.read_bytes() for path in finished]
    done = await cloud(identity, "rewrap", ".")
    assert f"{left} changed" in done.stderr
    assert [path.read_bytes() for path in finished] == before
    assert {tuple(wrappings(number)) for number in range(20)} == {((cloud.key, version),)}


async def test_rotate_makes_new_data_keys_and_keeps_the_values(cloud: Any) -> None:
    """One data key where there were two, under both regions; the values show nowhere."""
    await seal(cloud, 1, cloud.key, cloud.far_key)
    await cloud(cloud.can("GenerateDataKey", "Encrypt"), "set", "o0.yaml", "other=-", stdin=f"{CANARY} 2")
    before = EncryptedSecret.parse(yaml.safe_load(Path("o0.yaml").read_text()))
    assert len(before.data_keys) == 2
    cloud.kms.calls.clear()
    done = await cloud(cloud.can("Decrypt", "GenerateDataKey", "Encrypt"), "rotate", "o0.yaml")
    assert CANARY not in done.output
    assert cloud.kms.calls.by_action() == {
        "Decrypt": {"Success": 2},
        "GenerateDataKey": {"Success": 1},
        "Encrypt": {"Success": 1},
    }
    after = EncryptedSecret.parse(yaml.safe_load(Path("o0.yaml").read_text()))
    (data_key,) = after.data_keys
    assert data_key.id not in {item.id for item in before.data_keys}
    assert [item.key_id for item in data_key.wrappings] == [cloud.key, cloud.far_key]
    assert not {value.line() for value in before.values.values()} & {value.line() for value in after.values.values()}
    assert await opened(cloud) == CANARY
    assert (await cloud(cloud.can("Decrypt"), "decrypt", "o0.yaml", "other")).stdout == f"{CANARY} 2"


async def test_rotate_without_the_right_to_open_changes_nothing(cloud: Any) -> None:
    """Each object is named."""
    await seal(cloud, 2)
    before = Path("o1.yaml").read_bytes()
    done = await cloud(cloud.can("GenerateDataKey"), "rotate", ".", fails=4, errors=2)
    assert "error: o1.yaml: prod/o1: spec.dataKeys[0]: " in done.stderr
    assert Path("o1.yaml").read_bytes() == before
    assert cloud.kms.calls["GenerateDataKey"] == 0


async def test_rotate_in_a_dry_run_asks_for_nothing(cloud: Any) -> None:
    """And says under which keys it would be."""
    await seal(cloud, 1)
    done = await cloud(cloud.can(), "rotate", "--dry-run", "-o", "json", "--key", cloud.far_key, ".")
    (item,) = json.loads(done.stdout)["objects"]
    assert item["changes"][0] == {"wholeDataKey": True, "to": {"keyId": cloud.far_key}}
    assert item["changes"][1]["from"]["keyId"] == cloud.key
    assert cloud.kms.calls.total == 0


async def test_rotate_moves_to_other_keys(cloud: Any) -> None:
    """In one step with the new data key."""
    await seal(cloud, 1)
    await cloud(cloud.can("Decrypt", "GenerateDataKey"), "rotate", "--key", cloud.far_key, ".")
    assert [key for key, _ in wrappings()] == [cloud.far_key]
    assert await opened(cloud) == CANARY
