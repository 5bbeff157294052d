"""Rotation where the usual way is not to be had: dedicated gateways, public-key wrappings, and hostile ones."""

import secrets
from typing import Any

import pytest

from kmseal.envelope import Place, Scope
from kmseal.manifest import DataKey
from kmseal.publickey import PublicKey
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, digest

Json = dict[str, Any]
ALL_WAYS = ("Decrypt", "Encrypt", "AsymmetricDecrypt", "ReEncrypt*", "DescribeKey", "GenerateDataKeyWithoutPlaintext")


@pytest.fixture
async def public(cluster: Any) -> PublicKey:
    """The public half of an asymmetric key of the fake KMS."""
    key = cluster.kms.create_key(spec="RSA_2048")
    async with cluster.keyring_that_may("GetPublicKey", "ListKeyVersions", "DescribeKey") as keyring:
        half = await keyring.public_key(key)
    raw = {"keyId": half.key_id, "keyVersionId": half.key_version_id, "algorithm": "RSAES_OAEP_SHA_256"}
    return PublicKey.parse(raw | {"publicKey": half.pem})


def sealed_offline(bench: Any, name: str, public: PublicKey) -> Json:
    """As kmseal create --public-key does it."""
    data_key = Redacted(secrets.token_bytes(32))
    return dict(bench.manifest(name, {"a": name.encode()}, data_key, public.wrap(data_key).to_dict()))


async def test_a_dedicated_gateway_is_served_without_reencrypt_and_describekey(cluster: Any, settled: Any) -> None:
    """Versions are learnt by a probe, and wrappings renewed by Decrypt and Encrypt."""
    cluster.kms.set_policy(cluster.operator_identity, ALL_WAYS)
    instance = await cluster.kms.open_instance("kst-one")
    await cluster.create_key(
        "main", cluster.key, endpoint=instance.endpoint, caBundle=instance.ca_file.read_text(),
    )  # fmt: skip
    running = await cluster.start()
    await cluster.apply_all(running, ["one", "two"])
    status = await cluster.key_shows("main", settled(2, 0))
    calls = {name: cluster.kms.calls[name, "Success"] for name in ("Decrypt", "Encrypt")}
    cluster.kms.rotate(cluster.key)
    after = await cluster.key_shows("main", settled(2, 2))
    assert (after["state"], after["primaryVersion"] != status["primaryVersion"]) == ("Enabled", True)
    assert cluster.kms.calls["ReEncrypt", "Success"] == 0
    assert cluster.kms.calls["DescribeKey", "Success"] == 0
    for name, before in calls.items():
        assert cluster.kms.calls[name, "Success"] - before == 2


async def test_what_was_sealed_offline_opens_and_moves_to_a_symmetric_key(
    cluster: Any, settled: Any, updated: Any, public: PublicKey
) -> None:
    """AsymmetricDecrypt opens it; a KMSKey that replaces the asymmetric key has it wrapped under its own."""
    cluster.kms.set_policy(cluster.operator_identity, ALL_WAYS)
    await cluster.create_key("offline", public.key_id)
    await cluster.start()
    await cluster.apply(sealed_offline(cluster, "db", public))
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"db"}
    status = await cluster.key_shows("offline", settled(1, 0))
    assert (status["state"], status.get("primaryVersion")) == ("Enabled", None)
    await cluster.create_key("online", cluster.key, replaces=[public.key_id])
    await cluster.key_shows("online", settled(1, 1))
    await cluster.apply(updated(await cluster.object("db")))
    status = await cluster.key_shows("online", settled(1, 0))
    assert status["safeToDisable"] == [{"keyId": public.key_id}]
    await cluster.reason("db", "Applied", generation=2)


async def test_a_copied_public_key_wrapping_is_never_given_the_thief_s_context(cluster: Any, public: PublicKey) -> None:
    """Else whoever may open the thief's object in KMS could open what the wrapping was copied from."""
    cluster.kms.set_policy(cluster.operator_identity, ALL_WAYS)
    await cluster.create_key("online", cluster.key, replaces=[public.key_id])
    await cluster.start()
    victim, thief = (sealed_offline(cluster, name, public) for name in ("victim", "thief"))
    thief["spec"]["dataKeys"][0]["wrappings"] = victim["spec"]["dataKeys"][0]["wrappings"]
    await cluster.apply(thief)
    await cluster.reason("thief", "Unauthentic")
    status = await cluster.key_shows("online", lambda status: status["rewrap"]["failed"] == 1)
    assert status["stale"]["objects"] == [{"namespace": cluster.namespace, "name": "thief", "where": "Cluster"}]
    assert "rewrapped" not in (await cluster.object("thief"))["status"]
    assert cluster.kms.calls["Encrypt"] == 0


async def test_a_forged_newer_wrapping_shuts_no_object(cluster: Any, settled: Any) -> None:
    """Who may write a status puts another data key there: what Git says still opens."""
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    await cluster.apply_all(running, ["db"])
    await cluster.key_shows("main", settled(1, 0))
    place = Place.of(Scope.STRICT, cluster.namespace, "db")
    async with cluster.keyring_that_may("GenerateDataKey") as keyring:
        other = await keyring.generate(cluster.key, place.encryption_context())
    data_key = DataKey.parse((await cluster.object("db"))["spec"]["dataKeys"][0])
    forged = Rewrapped(data_key.id, digest(data_key.wrappings[0]), other.wrapping)
    patch = {"status": {"rewrapped": [forged.to_dict()]}}
    await cluster.merge(cluster.path("encryptedsecrets", "db") + "/status", patch)
    await cluster.patch_secret("db", {"data": {"a": "Y2hhbmdlZA=="}})
    await cluster.until(lambda: cluster.kms.calls["Decrypt", "Success"] >= 3)
    await running.idle()
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"db"}


async def test_one_wrapping_that_fails_does_not_cost_the_others_their_work(cluster: Any) -> None:
    """Two regions, one down: the other's wrapping is renewed once, and not again at each retry."""
    far = cluster.kms.create_key(region="cn-beijing")
    await cluster.create_key("near", cluster.key)
    await cluster.create_key("far", far)
    await cluster.start()
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, also=[far]))
    await cluster.key_shows("far", lambda status: status["objects"] == 1 and status["state"] == "Enabled")
    await cluster.key_shows("near", lambda status: status["objects"] == 1 and status["state"] == "Enabled")
    cluster.kms.rotate(far)
    cluster.kms.set_policy(cluster.operator_identity, ("Decrypt", "ReEncrypt*", "DescribeKey"), (cluster.key,))
    cluster.kms.rotate(cluster.key)
    await cluster.key_shows("near", lambda status: status["rewrap"]["done"] == 1)
    made = cluster.kms.calls["ReEncrypt", "Success"]
    cluster.kms.set_policy(cluster.operator_identity, ALL_WAYS)
    await cluster.key_shows("far", lambda status: status["rewrap"]["done"] == 1)
    assert (made, cluster.kms.calls["ReEncrypt", "Success"]) == (1, 2)
