"""Gateways: an instance's own beside the shared one, each with its authority, its offer, its faults and its outages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from darabonba.exceptions import UnretryableException

from kmseal.errors import Misconfigured
from kmseal.fakekms import FakeKms, QuotaClass, throttling

Sdk = Callable[..., Any]
Ask = Callable[..., Any]
INSTANCE = "kst-hzz1"


async def test_an_instance_beside_the_shared_gateway(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """Both serve the same keys; the instance's own does cryptography and nothing else, with its documented refusal."""
    instance = await running.open_instance(INSTANCE)
    assert instance.endpoint not in running.endpoint()
    admin, arn = running.add_identity("admin"), running.create_key()
    offline = running.create_key(spec="RSA_2048")
    shared, own = sdk(running, admin), sdk(running, admin, INSTANCE)
    fresh = await ask(own, "GenerateDataKey", key_id=arn)
    assert (await ask(shared, "Decrypt", ciphertext_blob=fresh.ciphertext_blob)).plaintext == fresh.plaintext
    assert (await ask(own, "Decrypt", ciphertext_blob=fresh.ciphertext_blob)).plaintext == fresh.plaintext
    version = running.key(offline).primary.version_id
    assert "PUBLIC KEY" in (await ask(own, "GetPublicKey", key_id=offline, key_version_id=version)).public_key
    for action, parameters in (
        ("ReEncrypt", {"ciphertext_blob": fresh.ciphertext_blob, "destination_key_id": arn}),
        ("DescribeKey", {"key_id": arn}),
        ("ListKeyVersions", {"key_id": arn}),
        ("ListKeys", {}),
        ("DisableKey", {"key_id": arn}),
        ("GetParametersForImport", {"key_id": arn}),
        ("UpdateRotationPolicy", {"key_id": arn}),
    ):
        with pytest.raises(ClientException) as caught:
            await ask(own, action, **parameters)
        assert (caught.value.code, caught.value.status_code) == ("UnsupportedOperation", 400), action
    moved = await ask(shared, "ReEncrypt", ciphertext_blob=fresh.ciphertext_blob, destination_key_id=arn)
    assert moved.key_version_id == fresh.key_version_id
    trail = [(record.action, record.instance, record.region) for record in running.audit][:2]
    assert trail == [("GenerateDataKey", INSTANCE, "cn-hangzhou"), ("Decrypt", "", "cn-hangzhou")]


async def test_each_gateway_has_its_authority(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """A client that trusts the shared gateway's authority does not trust the instance's."""
    instance = await running.open_instance(INSTANCE)
    assert instance.ca_file.read_bytes() != running.ca_file.read_bytes()
    client = sdk(running, running.add_identity("admin"), INSTANCE)
    client._ca = str(running.ca_file)
    with pytest.raises(UnretryableException, match="certificate verify failed"):
        await ask(client, "GenerateDataKey", key_id="alias/app")


async def test_instances_from_the_start(sdk: Sdk, ask: Ask) -> None:
    """Instances may be named with their region beforehand; a key of another region is unknown to them."""
    async with FakeKms(("cn-hangzhou", "cn-beijing"), instances={INSTANCE: "cn-beijing"}) as kms:
        assert kms.listening == ("cn-hangzhou", "cn-beijing", INSTANCE)
        here, there = kms.create_key(region="cn-hangzhou"), kms.create_key(region="cn-beijing")
        client = sdk(kms, kms.add_identity("admin"), INSTANCE)
        await ask(client, "GenerateDataKey", key_id=there)
        with pytest.raises(ClientException) as caught:
            await ask(client, "GenerateDataKey", key_id=here)
        assert caught.value.code == "Forbidden.KeyNotFound"


async def test_gateways_go_down_one_by_one(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """An outage of one leaves the other up; it comes back on its port, with the same authority."""
    instance = await running.open_instance(INSTANCE)
    endpoint, authority = instance.endpoint, instance.ca_file.read_bytes()
    admin, arn = running.add_identity("admin"), running.create_key()
    shared, own = sdk(running, admin), sdk(running, admin, INSTANCE)
    await running.stop_listening(INSTANCE)
    assert running.listening == ("cn-hangzhou",)
    with pytest.raises(UnretryableException):
        await ask(own, "GenerateDataKey", key_id=arn)
    await ask(shared, "GenerateDataKey", key_id=arn)
    await running.stop_listening("cn-hangzhou")
    await running.start_listening(INSTANCE)
    assert (instance.endpoint, instance.ca_file.read_bytes()) == (endpoint, authority)
    await ask(own, "GenerateDataKey", key_id=arn)
    with pytest.raises(UnretryableException):
        await ask(shared, "GenerateDataKey", key_id=arn)


async def test_faults_and_quotas_know_their_gateway(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """A fault may hit one gateway alone, by region or instance, and the account's quotas are the shared one's."""
    await running.open_instance(INSTANCE)
    admin, arn = running.add_identity("admin"), running.create_key()
    clients = {"cn-hangzhou": sdk(running, admin), INSTANCE: sdk(running, admin, INSTANCE)}

    for faulty, healthy in (tuple(clients), tuple(reversed(clients))):
        number = running.faults.add(replace(throttling(), regions=(faulty,)))
        with pytest.raises(ClientException, match="QPS"):
            await ask(clients[faulty], "GenerateDataKey", key_id=arn)
        await ask(clients[healthy], "GenerateDataKey", key_id=arn)
        running.faults.remove(number)
    running.quotas.limit({QuotaClass.CRYPTOGRAPHIC: 0.001})
    await ask(clients["cn-hangzhou"], "GenerateDataKey", key_id=arn)
    with pytest.raises(ClientException, match="QPS"):
        await ask(clients["cn-hangzhou"], "GenerateDataKey", key_id=arn)
    for _ in range(3):
        await ask(clients[INSTANCE], "GenerateDataKey", key_id=arn)


async def test_without_tls_there_is_no_authority() -> None:
    """Plain HTTP for all gateways, and no file to trust."""
    async with FakeKms(tls=False) as kms:
        instance = await kms.open_instance(INSTANCE)
        for ask_for_it in (lambda: kms.ca_file, lambda: instance.ca_file):
            with pytest.raises(Misconfigured):
                ask_for_it()
