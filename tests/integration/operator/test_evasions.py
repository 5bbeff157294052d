"""What somebody who writes EncryptedSecrets might try against the rules of keys, and what comes of it."""

import base64
import copy
from typing import Any

Json = dict[str, Any]


async def shut(cluster: Any, name: str) -> None:
    """Disables the bench's key and waits until its KMSKey says so."""
    cluster.kms.disable(cluster.key)
    await cluster.key_shows(name, lambda status: status["state"] == "Disabled")


async def test_a_false_account_gets_around_no_limit_and_opens_no_gate(cluster: Any) -> None:
    """The ciphertext opens whatever account the manifest claims: the claim is refused, and the true key is needed."""
    await cluster.create_key("main", cluster.key, allowedNamespaces={"names": ["elsewhere"]})
    await cluster.start()
    await cluster.key_shows("main", lambda status: status["state"] == "Enabled")
    manifest = await cluster.seal("db", {"a": b"1"})
    wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
    wrapping["keyId"] = wrapping["keyId"].replace(":1000000000000001:", ":9999999999999999:")
    await cluster.apply(manifest)
    await cluster.reason("db", "KeyNotRegistered")
    assert cluster.kms.calls["Decrypt"] == 0
    assert await cluster.secret("db") is None


async def test_a_false_name_of_an_unknown_key_is_not_registered(cluster: Any) -> None:
    """In open mode it opens, as any key does; but no KMSKey is made of a name that KMS does not know."""
    running = await cluster.start()
    manifest = await cluster.seal("db", {"a": b"1"})
    wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
    wrapping["keyId"] = wrapping["keyId"].replace(":1000000000000001:", ":9999999999999999:")
    await cluster.apply(manifest)
    await cluster.until(lambda: cluster.kms.calls["DescribeKey"] >= 1)
    await cluster.apply(await cluster.seal("true", {"a": b"1"}))
    await cluster.reason("true", "Applied")
    await cluster.until(lambda: len(running.operator.keys.entries()) == 1)
    assert [entry.key.key_id for entry in running.operator.keys.entries()] == [cluster.key]
    # From now on the true name is known, and the false one is refused.
    await cluster.reason("db", "KeyNotRegistered")


async def test_a_further_wrapping_does_not_keep_a_secret_from_the_kill_switch(cluster: Any) -> None:
    """One that names an open key and opens nothing: added before or after the key is shut, the Secret goes."""
    other = cluster.kms.create_key()
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.create_key("other", other)
    await cluster.start()
    manifests = [await cluster.seal(name, {"a": b"1"}) for name in ("before", "after")]
    for manifest in manifests:
        await cluster.apply(manifest)
        await cluster.reason(manifest["metadata"]["name"], "Applied")
    for manifest in manifests:
        bogus = copy.deepcopy(manifest["spec"]["dataKeys"][0]["wrappings"][0]) | {"keyId": other}
        bogus["wrapped"] = base64.b64encode(b"opens nothing").decode()
        manifest["spec"]["dataKeys"][0]["wrappings"].append(bogus)
    await cluster.apply(manifests[0])
    await cluster.reason("before", "Applied", generation=2)
    await shut(cluster, "main")
    await cluster.reason("before", "KeyUnusable")
    await cluster.reason("after", "KeyUnusable")
    await cluster.apply(manifests[1])
    await cluster.reason("after", "KeyUnusable", generation=2)
    assert await cluster.secret("before") is None
    assert await cluster.secret("after") is None
    cluster.kms.enable(cluster.key)
    await cluster.reason("before", "Applied")
    await cluster.reason("after", "Applied")


async def test_an_object_that_was_broken_before_does_not_keep_its_secret(cluster: Any) -> None:
    """Neither one that names another key by now, nor one that the parser refuses, holds on to what the key opened."""
    other = cluster.kms.create_key()
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.start()
    for name in ("renamed", "broken"):
        manifest = await cluster.seal(name, {"a": b"1"})
        await cluster.apply(manifest)
        await cluster.reason(name, "Applied")
        data_key = manifest["spec"]["dataKeys"][0]
        if name == "renamed":
            data_key["wrappings"][0]["keyId"] = other
            await cluster.apply(manifest)
            await cluster.reason(name, "KmsRefused", generation=2)
        else:
            manifest["spec"]["encryptedData"]["a"] += "x"  # The schema does not look into values.
            await cluster.apply(manifest)
            await cluster.reason(name, "Invalid", generation=2)
        assert await cluster.values(name) == {"a": b"1"}
    await shut(cluster, "main")
    for name in ("renamed", "broken"):
        await cluster.until(lambda name=name: _is_gone(cluster, name))
        await cluster.reason(name, "KeyUnusable")


async def test_a_former_key_is_a_kill_switch_as_long_as_it_is_needed(cluster: Any) -> None:
    """The alias has moved, nothing is re-wrapped yet: disabling the key of before is seen by the alias's KMSKey."""
    first, second = cluster.kms.create_key("alias/app"), cluster.kms.create_key()
    alias = f"{first.rsplit(':', 1)[0]}:alias/app"
    await cluster.create_key("app", alias, onUnavailable="Remove", rewrap="Manual")
    await cluster.start()
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, key=first))
    await cluster.reason("db", "Applied")
    cluster.kms.move_alias("alias/app", second)
    await cluster.key_shows("app", lambda status: status["previousKeys"] == [first])
    cluster.kms.disable(first)
    await cluster.reason("db", "KeyUnusable")
    await cluster.until(lambda: _is_gone(cluster, "db"))
    cluster.kms.enable(first)
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"1"}


async def test_made_up_versions_do_not_make_polls(cluster: Any) -> None:
    """An unknown version may be a newer one and is asked about, once in the pause however many there are."""
    await cluster.create_key("main", cluster.key, pollInterval="1h")
    running = await cluster.start(status_pause=30.0)
    await cluster.apply_all(running, ["first"])
    asked = cluster.kms.calls["DescribeKey"]
    manifests = await cluster.seal_many([f"o{index}" for index in range(30)])
    for index, manifest in enumerate(manifests):
        manifest["spec"]["dataKeys"][0]["wrappings"][0]["keyVersionId"] = f"made-up-{index}"
    await cluster.apply_many(manifests)
    for index in range(30):
        await cluster.reason(f"o{index}", "Applied")
    assert cluster.kms.calls["DescribeKey"] - asked <= 1


async def _is_gone(cluster: Any, name: str) -> bool:
    return await cluster.secret(name) is None
