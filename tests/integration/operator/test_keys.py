"""KMSKeys: who may use which key, how it is reached, what its polling costs, and what its status says."""

import asyncio
import base64
import json
import logging
import time
from pathlib import Path
from typing import Any

from kmseal.cluster.keys import Keys
from kmseal.fakekms.faults import throttling
from kmseal.fakekms.server import FakeKms

AGENT = "kmseal-operator"
PATIENT = {"retry_base": 300.0, "retry_cap": 300.0}
"""Objects are not tried again by themselves within any test's time: what heals was told to."""


def is_available(status: Any) -> tuple[str, str]:
    """Status and reason of the condition Available."""
    found: dict[str, str] = next((c for c in status.get("conditions", []) if c["type"] == "Available"), {})
    return found.get("status", ""), found.get("reason", "")


def message(status: Any, kind: str = "Available") -> str:
    return str(next(c["message"] for c in status["conditions"] if c["type"] == kind))


def status_writes(log: Any) -> list[str]:
    return [write.name for write in log.writes(agent=AGENT, resource="kmskeys", subresource="status")]


async def polls(cluster: Any, wait_until: Any, count: int) -> None:
    """Waits for that many further polls."""
    before = cluster.kms.calls["DescribeKey"]
    await wait_until(lambda: cluster.kms.calls["DescribeKey"] >= before + count)


# -- registration


async def test_a_key_that_opened_something_is_registered_once(cluster: Any, wait_until: Any) -> None:
    """In open mode ten objects under one key make one KMSKey, under a name that a person can read."""
    log = cluster.control_plane.audit_log()
    running = await cluster.start()
    await asyncio.gather(*[cluster.apply(await cluster.seal(f"o{index}", {"a": b"1"})) for index in range(10)])
    for index in range(10):
        await cluster.reason(f"o{index}", "Applied")
    (registered,) = [key["metadata"]["name"] for key in await _some_keys(cluster, wait_until)]
    words = cluster.key.removeprefix("acs:kms:").replace(":key/", "-").replace(":", "-")
    assert registered.startswith(f"{words}-")
    status = await cluster.key_shows(registered, lambda status: status["objects"] == 10)
    assert (status["keyId"], status["state"], is_available(status)) == (cluster.key, "Enabled", ("True", "Enabled"))
    await running.stop()
    await (await cluster.start()).idle()
    await cluster.apply(await cluster.seal("later", {"a": b"1"}))
    await cluster.reason("later", "Applied")
    assert len(log.writes(agent=AGENT, verb="create", resource="kmskeys")) == 1
    assert len(await cluster.keys()) == 1


async def _some_keys(cluster: Any, wait_until: Any) -> list[Any]:
    async def registered() -> bool:
        return bool(await cluster.keys())

    await wait_until(registered)
    return list(await cluster.keys())


async def test_keys_that_open_nothing_are_not_registered(cluster: Any, wait_until: Any) -> None:
    """Whoever may write EncryptedSecrets cannot fill the cluster with KMSKeys, nor KMS with metadata calls."""
    log = cluster.control_plane.audit_log()
    await cluster.start()
    for index in range(20):
        manifest = await cluster.seal(f"bogus{index}", {"a": b"1"})
        wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
        wrapping["keyId"] = f"acs:kms:cn-hangzhou:1000000000000001:key/bogus-{index}"
        await cluster.apply(manifest)
    for index in range(20):
        await cluster.reason(f"bogus{index}", "KmsRefused")
    # What opens later is registered: so the registrar has had its turn.
    await cluster.apply(await cluster.seal("honest", {"a": b"1"}))
    await cluster.reason("honest", "Applied")
    assert [key["spec"]["keyId"] for key in await _some_keys(cluster, wait_until)] == [cluster.key]
    assert len(log.writes(agent=AGENT, verb="create", resource="kmskeys")) == 1
    assert {record.key_arn for record in cluster.kms.audit.of("DescribeKey")} <= {cluster.key}


async def test_an_unknown_key_is_refused_until_it_is_registered(cluster: Any) -> None:
    """In registered mode it costs no KMS call, heals at once with a KMSKey, and is refused again without it."""
    running = await cluster.start(keys="registered", **PATIENT)
    manifest = await cluster.seal("db", {"a": b"1"})
    calls = cluster.kms.calls.total
    await cluster.apply(manifest)
    condition = await cluster.reason("db", "KeyNotRegistered")
    assert cluster.key in condition["message"]
    assert "KMSKey" in condition["message"]
    assert cluster.kms.calls.total == calls
    await cluster.create_key("main", cluster.key)
    await cluster.reason("db", "Applied")
    before = await cluster.secret("db")
    decrypts = cluster.kms.calls["Decrypt"]
    await cluster.delete_key("main")
    condition = await cluster.reason("db", "KeyNotRegistered")
    assert "keeps the values" in condition["message"]
    await running.idle()
    assert await cluster.secret("db") == before
    assert cluster.kms.calls["Decrypt"] == decrypts
    await cluster.create_key("again", cluster.key)
    await cluster.reason("db", "Applied")


# -- who may use a key


async def test_namespaces_by_name(cluster: Any) -> None:
    """Another namespace than those named is refused with no KMS call; the KMSKey grants and revokes at once."""
    other = cluster.neighbour(await cluster.create_namespace())
    await cluster.create_key("main", cluster.key, allowedNamespaces={"names": [cluster.namespace]})
    running = await cluster.start(**PATIENT)
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await cluster.reason("db", "Applied")
    manifest = await other.seal("db", {"a": b"1"})
    decrypts = cluster.kms.calls["Decrypt"]
    await other.apply(manifest)
    condition = await other.reason("db", "NamespaceNotAllowed")
    assert "main" in condition["message"]
    assert other.namespace in condition["message"]
    assert cluster.kms.calls["Decrypt"] == decrypts
    assert await other.secret("db") is None
    await cluster.patch_key("main", {"allowedNamespaces": {"names": [cluster.namespace, other.namespace]}})
    await other.reason("db", "Applied")
    before, decrypts = await other.secret("db"), cluster.kms.calls["Decrypt"]
    await cluster.patch_key("main", {"allowedNamespaces": {"names": [cluster.namespace]}})
    await other.reason("db", "NamespaceNotAllowed")
    await running.idle()
    assert await other.secret("db") == before
    # A change is not opened either.
    await other.apply(await other.seal("db", {"a": b"2"}))
    await other.reason("db", "NamespaceNotAllowed", generation=2)
    assert await other.secret("db") == before
    assert cluster.kms.calls["Decrypt"] == decrypts
    assert (await cluster.condition("db"))["reason"] == "Applied"


async def test_namespaces_by_selector(cluster: Any) -> None:
    """The labels of a namespace grant and revoke, at once; the target stays when they revoke."""
    other = cluster.neighbour(await cluster.create_namespace())
    selector = {"matchLabels": {"team": "pay"}, "matchExpressions": [{"key": "frozen", "operator": "DoesNotExist"}]}
    await cluster.create_key("main", cluster.key, allowedNamespaces={"selector": selector})
    running = await cluster.start(**PATIENT)
    manifest = await other.seal("db", {"a": b"1"})
    decrypts = cluster.kms.calls["Decrypt"]
    await other.apply(manifest)
    await other.reason("db", "NamespaceNotAllowed")
    assert cluster.kms.calls["Decrypt"] == decrypts
    await other.label_namespace({"team": "pay"})
    await other.reason("db", "Applied")
    before, decrypts = await other.secret("db"), cluster.kms.calls["Decrypt"]
    await other.label_namespace({"frozen": "true"})
    await other.reason("db", "NamespaceNotAllowed")
    await running.idle()
    assert await other.secret("db") == before
    assert cluster.kms.calls["Decrypt"] == decrypts
    await other.label_namespace({"frozen": None})
    await other.reason("db", "Applied")
    await other.label_namespace({"team": None})
    await other.reason("db", "NamespaceNotAllowed")


async def test_labels_that_were_not_seen_yet_allow_nothing(cluster: Any, monkeypatch: Any) -> None:
    """A selector that asks for the absence of a label is not met by a namespace that is not known yet."""
    selector = {"matchExpressions": [{"key": "frozen", "operator": "DoesNotExist"}]}
    await cluster.create_key("main", cluster.key, allowedNamespaces={"selector": selector})
    await cluster.start(**PATIENT)
    late: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(Keys, "label", lambda *arguments: late.append(arguments))
        other = cluster.neighbour(await cluster.create_namespace())
        await other.apply(await other.seal("db", {"a": b"1"}))
        await other.reason("db", "NamespaceNotAllowed")
    for arguments in late:
        Keys.label(*arguments)
    await other.reason("db", "Applied")


async def test_an_operator_of_one_namespace_obeys_and_reports_nothing(bench: Any) -> None:
    """It cannot say what the cluster needs, so that it writes no KMSKey, nor registers one; the rules hold for it."""
    log, key = bench.control_plane.audit_log(), bench.kms.create_key()
    await bench.create_key(bench.namespace, key, allowedNamespaces={"names": ["elsewhere"]}, onUnavailable="Remove")
    try:
        await bench.start(**PATIENT)
        await bench.apply(await bench.seal("theirs", {"a": b"1"}, key=key))
        await bench.apply(await bench.seal("free", {"a": b"1"}))
        await bench.reason("theirs", "NamespaceNotAllowed")
        await bench.reason("free", "Applied")
        await bench.patch_key(bench.namespace, {"allowedNamespaces": {"names": [bench.namespace]}})
        await bench.reason("theirs", "Applied")
        bench.kms.disable(key)
        await bench.reason("theirs", "KeyUnusable")
        assert await bench.secret("theirs") is None
        assert log.writes(agent=AGENT, resource="kmskeys") == []
    finally:
        await bench.delete_key(bench.namespace)


async def test_a_revocation_while_nobody_looks(cluster: Any) -> None:
    """Labels and KMSKeys that changed while the operator was down are enforced at its start, with no KMS call."""
    other = cluster.neighbour(await cluster.create_namespace({"team": "pay"}))
    await cluster.create_key("main", cluster.key, allowedNamespaces={"selector": {"matchLabels": {"team": "pay"}}})
    running = await cluster.start()
    await other.apply(await other.seal("db", {"a": b"1"}))
    await other.reason("db", "Applied")
    await running.stop()
    before, decrypts = await other.secret("db"), cluster.kms.calls["Decrypt"]
    await other.label_namespace({"team": "other"})
    await cluster.start()
    await other.reason("db", "NamespaceNotAllowed")
    assert await other.secret("db") == before
    assert cluster.kms.calls["Decrypt"] == decrypts


async def test_several_kmskeys_of_one_key_must_all_allow(cluster: Any) -> None:
    """A second KMSKey can only narrow who may use the key."""
    other = cluster.neighbour(await cluster.create_namespace())
    both = {"names": [cluster.namespace, other.namespace]}
    await cluster.create_key("a", cluster.key, allowedNamespaces=both)
    await cluster.create_key("b", cluster.key, allowedNamespaces={"names": [cluster.namespace]})
    await cluster.start(**PATIENT)
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await other.apply(await other.seal("db", {"a": b"1"}))
    await cluster.reason("db", "Applied")
    condition = await other.reason("db", "NamespaceNotAllowed")
    assert "KMSKey b" in condition["message"]
    await cluster.patch_key("b", {"allowedNamespaces": both})
    await other.reason("db", "Applied")
    await cluster.patch_key("a", {"allowedNamespaces": {"names": [other.namespace]}})
    await cluster.reason("db", "NamespaceNotAllowed")
    await cluster.delete_key("a")
    await cluster.reason("db", "Applied")


async def test_the_rules_of_an_alias_hold_for_its_key(cluster: Any) -> None:
    """A KMSKey over an alias speaks of the key that the alias names, and says which."""
    cluster.kms.store.create_alias(cluster.kms.key(cluster.key), "alias/app")
    alias = cluster.key.rpartition("key/")[0] + "alias/app"
    other = cluster.neighbour(await cluster.create_namespace())
    await cluster.create_key("app", alias, allowedNamespaces={"names": [cluster.namespace]})
    await cluster.start(keys="registered")
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await cluster.reason("db", "Applied")
    await other.apply(await other.seal("db", {"a": b"1"}))
    await other.reason("db", "NamespaceNotAllowed")
    status = await cluster.key_shows("app", lambda status: status["objects"] == 2)
    assert status["keyId"] == cluster.key
    assert len(await cluster.keys()) == 1


# -- polling


async def test_polling_costs_one_call_for_each_key_and_interval(cluster: Any, wait_until: Any) -> None:
    """With 60 objects under a key no more than with none, and never one for an object."""
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    await asyncio.gather(*[cluster.apply(await cluster.seal(f"o{index}", {"a": b"1"})) for index in range(60)])
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 60)
    started, before = time.monotonic(), cluster.kms.calls["DescribeKey"]
    await polls(cluster, wait_until, 3)
    calls, seconds = cluster.kms.calls["DescribeKey"] - before, time.monotonic() - started
    # Intervals are shortened by a fifth at the most.
    assert calls <= seconds / 0.8 + 1
    await running.stop()
    before, started = cluster.kms.calls["DescribeKey"], time.monotonic()
    await (await cluster.start()).idle()
    assert cluster.kms.calls["DescribeKey"] - before <= 1 + (time.monotonic() - started) / 0.8


async def test_a_changed_interval_counts_at_once(cluster: Any, wait_until: Any) -> None:
    """A KMSKey that said once a day and says every second now is asked within a second."""
    await cluster.create_key("main", cluster.key, pollInterval="24h")
    await cluster.start()
    await cluster.key_shows("main", lambda status: status["state"] == "Enabled")
    await cluster.patch_key("main", {"pollInterval": "1s"})
    await polls(cluster, wait_until, 2)


async def test_a_status_is_not_written_again(cluster: Any, wait_until: Any) -> None:
    """When nothing changes, polls and restarts write nothing and make no event; the status does not flap."""
    await cluster.create_key("main", cluster.key)
    await cluster.create_key("local", "local:dev")
    running = await cluster.start()
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await cluster.key_shows("main", lambda status: status["objects"] == 1)
    await cluster.key_shows("local", lambda status: is_available(status) == ("Unknown", "Misconfigured"))
    await polls(cluster, wait_until, 2)
    log, before = cluster.control_plane.audit_log(), await cluster.keys()
    await polls(cluster, wait_until, 2)
    await running.stop()
    await cluster.start()
    await polls(cluster, wait_until, 2)
    assert log.writes(agent=AGENT) == []
    assert await cluster.keys() == before
    assert await cluster.key_events("main") == []


async def test_an_alias_that_moved_while_nobody_looked(cluster: Any, wait_until: Any) -> None:
    """A start notices that the alias names another key, keeps the former one in view, and says so once."""
    cluster.kms.store.create_alias(cluster.kms.key(cluster.key), "alias/app")
    alias, former, latter = cluster.key.rpartition("key/")[0] + "alias/app", cluster.key, cluster.kms.create_key()
    await cluster.create_key("app", alias)
    running = await cluster.start()
    await cluster.key_shows("app", lambda status: status.get("keyId") == former)
    await running.stop()
    cluster.kms.move_alias("alias/app", latter)
    await cluster.start()
    status = await cluster.key_shows("app", lambda status: status.get("keyId") == latter)
    assert status["previousKeys"] == [former]

    async def told() -> bool:
        return list(await cluster.key_events("app")).count(("Normal", "Moved")) == 1

    await wait_until(told)
    await polls(cluster, wait_until, 2)
    assert await told()


# -- how a key is reached


def secret_of(identity: Any, **changed: str) -> dict[str, bytes]:
    texts = {
        "accessKeyId": identity.access_key_id,
        "accessKeySecret": identity.access_key_secret,
        **({"securityToken": identity.security_token} if identity.security_token else {}),
        **changed,
    }
    return {name: text.encode() for name, text in texts.items()}


async def test_a_key_of_another_account(cluster: Any) -> None:
    """Endpoint, authority and credentials of a KMSKey are used for its key, and for no other."""
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    async with FakeKms(regions=("cn-hangzhou",), account="2000000000000002") as kms:
        theirs = cluster.with_kms(kms)
        await own.create_secret("theirs", secret_of(kms.add_identity("tenant", ("Decrypt", "DescribeKey"))))
        await cluster.create_key(
            "theirs", theirs.key, endpoint=kms.endpoint(), caBundle=kms.ca_file.read_text(),
            credentials={"secretName": "theirs"},
        )  # fmt: skip
        await cluster.start()
        await cluster.apply(await theirs.seal("theirs", {"a": b"1"}))
        await cluster.apply(await cluster.seal("ours", {"a": b"1"}))
        await cluster.reason("theirs", "Applied")
        await cluster.reason("ours", "Applied")
        await cluster.key_shows("theirs", lambda status: is_available(status) == ("True", "Enabled"))
        used = {record.identity for name in ("Decrypt", "DescribeKey") for record in kms.audit.of(name)}
        assert used == {"tenant"}
        assert {record.key_arn for record in cluster.kms.audit.of("Decrypt")} == {cluster.key}


async def test_an_authority_that_is_not_the_endpoints(cluster: Any) -> None:
    """The condition names the field, and correcting it is enough, at once, whatever the interval."""
    async with FakeKms(regions=("cn-hangzhou",), account="2000000000000002") as kms:
        theirs = cluster.with_kms(kms)
        await cluster.create_key(
            "theirs", theirs.key, pollInterval="24h",
            endpoint=kms.endpoint(), caBundle=cluster.kms.ca_file.read_text(),
        )  # fmt: skip
        await cluster.start(**PATIENT)
        status = await cluster.key_shows("theirs", lambda status: is_available(status) == ("Unknown", "Misconfigured"))
        assert "spec.caBundle" in message(status)
        assert kms.calls.total == 0
        await cluster.patch_key("theirs", {"caBundle": kms.ca_file.read_text()})
        await cluster.key_shows("theirs", lambda status: is_available(status) != ("Unknown", "Misconfigured"))
        assert kms.calls["DescribeKey"] > 0


async def test_a_secret_with_credentials(cluster: Any, caplog: Any, capfd: Any) -> None:
    """Missing, incomplete, refused: the condition says which and what to do; a right one is taken up by itself."""
    caplog.set_level(logging.DEBUG)
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    tenant = cluster.kms.add_identity("tenant", ("Decrypt", "DescribeKey"))
    key = cluster.kms.create_key()
    await cluster.create_key("tenant", key, credentials={"secretName": "tenant"})
    await cluster.start(**PATIENT)
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, key=key))
    unknown = ("Unknown", "Misconfigured")
    status = await cluster.key_shows("tenant", lambda status: is_available(status) == unknown)
    assert "spec.credentials.secretName" in message(status)
    assert "kmseal-system" in message(status)
    assert "accessKeySecret" in message(status)
    # Not by the operator's own credentials, which could.
    condition = await cluster.reason("db", "Misconfigured")
    assert "tenant" in condition["message"]
    assert await cluster.secret("db") is None
    assert cluster.kms.calls["Decrypt"] == 0
    await own.create_secret("tenant", {"accessKeyId": tenant.access_key_id.encode()})
    await cluster.key_shows("tenant", lambda status: "lacks" in message(status))
    wrong = secret_of(tenant, accessKeySecret="wrong-4f9c1e7ab2d855")
    await own.patch_secret("tenant", {"data": {name: base64.b64encode(text).decode() for name, text in wrong.items()}})
    await cluster.key_shows("tenant", lambda status: is_available(status) == ("Unknown", "BadCredentials"))
    right = {name: base64.b64encode(text).decode() for name, text in secret_of(tenant).items()}
    await own.patch_secret("tenant", {"data": right})
    await cluster.key_shows("tenant", lambda status: is_available(status) == ("True", "Enabled"))
    await cluster.reason("db", "Applied")
    decrypts = cluster.kms.audit.of("Decrypt")
    assert [record.identity for record in decrypts if record.result == "Success"] == ["tenant"]
    assert "operator" not in {record.identity for record in decrypts}
    events = (await cluster.request("GET", "/apis/events.k8s.io/v1/events")).body
    captured = capfd.readouterr()
    shown = [
        json.dumps([await cluster.keys(), events, await cluster.object("db")]),
        "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records),
        captured.out + captured.err,
    ]
    for secret in ("wrong-4f9c1e7ab2d855", tenant.access_key_secret):
        assert all(form not in text for text in shown for form in (secret, base64.b64encode(secret.encode()).decode()))


async def test_a_renewed_secret_is_taken_up(cluster: Any, wait_until: Any) -> None:
    """An access key that replaces another is used from the next poll on, with no restart and no gap."""
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    first, second = (cluster.kms.add_identity(name, ("Decrypt", "DescribeKey")) for name in ("first", "second"))
    await own.create_secret("tenant", secret_of(first))
    await cluster.create_key("tenant", cluster.key, credentials={"secretName": "tenant"})
    await cluster.start()
    await cluster.apply(await cluster.seal("a", {"a": b"1"}))
    await cluster.reason("a", "Applied")
    renewed = {name: base64.b64encode(text).decode() for name, text in secret_of(second).items()}
    await own.patch_secret("tenant", {"data": renewed})
    await wait_until(lambda: cluster.kms.audit.of("DescribeKey")[-1].identity == "second")
    await cluster.apply(await cluster.seal("b", {"a": b"1"}))
    await cluster.reason("b", "Applied")
    assert [record.identity for record in cluster.kms.audit.of("Decrypt")] == ["first", "second"]
    # Deleted, as a hasty renewal does it: what was read last goes on, and the condition says what is missing.
    await own.delete("secrets", "tenant")
    await cluster.key_shows("tenant", lambda status: is_available(status) == ("Unknown", "Misconfigured"))
    await cluster.apply(await cluster.seal("c", {"a": b"1"}))
    await cluster.reason("c", "Applied")
    assert cluster.kms.audit.of("Decrypt")[-1].identity == "second"


async def test_secrets_of_other_namespaces_are_not_read(cluster: Any) -> None:
    """A KMSKey cannot make the operator use an access key that lies elsewhere than in its own namespace."""
    await cluster.create_namespace(name="kmseal-system")
    await cluster.create_secret("elsewhere", secret_of(cluster.kms.add_identity("tenant")))
    log = cluster.control_plane.audit_log()
    await cluster.create_key("main", cluster.key, credentials={"secretName": "elsewhere"})
    await cluster.start()
    await cluster.key_shows("main", lambda status: is_available(status) == ("Unknown", "Misconfigured"))
    reads = log.events(agent=AGENT, verb="get", resource="secrets")
    assert {(read.namespace, read.name) for read in reads} == {("kmseal-system", "elsewhere")}


async def test_a_poll_reads_the_secret_once(cluster: Any, wait_until: Any) -> None:
    """One request of the API server for each poll of a key with a Secret, and none for an object."""
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    await own.create_secret("tenant", secret_of(cluster.kms.add_identity("tenant", ("Decrypt", "DescribeKey"))))
    await cluster.create_key("main", cluster.key, credentials={"secretName": "tenant"})
    running = await cluster.start()
    await asyncio.gather(*[cluster.apply(await cluster.seal(f"o{index}", {"a": b"1"})) for index in range(20)])
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 20)
    await polls(cluster, wait_until, 1)
    log, before = cluster.control_plane.audit_log(), cluster.kms.calls["DescribeKey"]
    await polls(cluster, wait_until, 2)
    reads = log.events(agent=AGENT, verb="get", resource="secrets")
    assert 0 < len(reads) <= cluster.kms.calls["DescribeKey"] - before + 1


async def test_the_first_kmskey_says_how_a_key_is_reached(cluster: Any, wait_until: Any) -> None:
    """Of two, the first by name; when it is deleted the other, and without any the operator's own credentials count."""
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    users = ["first", "second"]
    for name in users:
        await own.create_secret(name, secret_of(cluster.kms.add_identity(name, ("Decrypt", "DescribeKey"))))
        await cluster.create_key(name, cluster.key, pollInterval="24h", credentials={"secretName": name})
    running = await cluster.start(**PATIENT)
    for name in users:
        await cluster.apply(await cluster.seal(f"by-{name}", {"a": b"1"}))
        await cluster.reason(f"by-{name}", "Applied")
        await cluster.delete_key(name)
        await wait_until(lambda gone=name: running.operator.keys.get(gone) is None)
        if name != users[-1]:
            await wait_until(lambda: cluster.kms.audit.of("DescribeKey")[-1].identity == users[-1])
    await cluster.apply(await cluster.seal("by-itself", {"a": b"1"}))
    await cluster.reason("by-itself", "Applied")
    assert [record.identity for record in cluster.kms.audit.of("Decrypt")] == [*users, "operator"]


async def test_changed_credentials_count_at_once(cluster: Any) -> None:
    """A KMSKey that names another Secret is not waited for until its next poll, and never opens by the old one."""
    own = cluster.neighbour(await cluster.create_namespace(name="kmseal-system"))
    for name in ("first", "second"):
        await own.create_secret(name, secret_of(cluster.kms.add_identity(name, ("Decrypt", "DescribeKey"))))
    await cluster.create_key("main", cluster.key, pollInterval="24h", credentials={"secretName": "first"})
    await cluster.start()
    await cluster.apply(await cluster.seal("a", {"a": b"1"}))
    await cluster.reason("a", "Applied")
    await cluster.patch_key("main", {"credentials": {"secretName": "second"}})
    await cluster.key_shows("main", lambda status: status["observedGeneration"] == 2)
    await cluster.apply(await cluster.seal("b", {"a": b"1"}))
    await cluster.reason("b", "Applied")
    assert [record.identity for record in cluster.kms.audit.of("Decrypt")] == ["first", "second"]


async def test_a_role_of_its_own(cluster: Any, tmp_path: Path) -> None:
    """A KMSKey's role is assumed with the operator's own token, once, and used for its key only."""
    claims = {"aud": ["sts.aliyuncs.com"], "sub": "system:serviceaccount:kmseal:operator", "exp": time.time() + 600}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in ({"alg": "RS256"}, claims)]
    token = tmp_path / "token"
    token.write_text(".".join([*parts, "c2ln"]))
    key = cluster.kms.create_key()
    role = cluster.kms.add_role("tenant", ("Decrypt", "DescribeKey"))
    await cluster.create_key("tenant", key, credentials={"role": {"arn": role, "sessionName": "kmseal-tenant"}})
    environment = {
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": cluster.kms.add_oidc_provider("ack-rrsa"),
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token),
        "ALIBABA_CLOUD_STS_ENDPOINT": cluster.kms.endpoint(),
        "KMSEAL_STS_CA_FILE": str(cluster.kms.ca_file),
    }
    await cluster.start(kms=environment)
    await cluster.apply(await cluster.seal("theirs", {"a": b"1"}, key=key))
    await cluster.apply(await cluster.seal("ours", {"a": b"1"}))
    await cluster.reason("theirs", "Applied")
    await cluster.reason("ours", "Applied")
    users = {(record.key_arn, record.identity) for record in cluster.kms.audit.of("Decrypt")}
    assert users == {(key, "tenant/kmseal-tenant"), (cluster.key, "operator")}
    assert cluster.kms.calls["AssumeRoleWithOIDC"] == 1


async def test_a_local_key(cluster: Any, tmp_path: Path) -> None:
    """A key of the operator's key file is registered, polled and limited like any other, with no call of KMS."""
    material = base64.b64encode(bytes(range(32))).decode()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"version": 1, "keys": {"dev": {"primary": "1", "versions": {"1": material}}}}))
    file.chmod(0o600)
    cluster.variables["KMSEAL_LOCAL_KEY_FILE"] = str(file)
    other = cluster.neighbour(await cluster.create_namespace())
    await cluster.create_key("dev", "local:dev", allowedNamespaces={"names": [cluster.namespace]})
    await cluster.start(keys="registered")
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, key="local:dev"))
    await cluster.reason("db", "Applied")
    await other.apply(await other.seal("db", {"a": b"1"}, key="local:dev"))
    await other.reason("db", "NamespaceNotAllowed")
    status = await cluster.key_shows("dev", lambda status: status["objects"] == 2)
    assert (status["keyId"], status["primaryVersion"], is_available(status)) == ("local:dev", "1", ("True", "Enabled"))
    assert cluster.kms.calls.total == 0


# -- faults


async def test_a_throttled_poll_says_so_and_heals(cluster: Any) -> None:
    """What was known of the key stays in the status, and its objects are not touched."""
    await cluster.create_key("main", cluster.key)
    await cluster.start()
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await cluster.key_shows("main", lambda status: status["objects"] == 1)
    number = cluster.kms.faults.add(throttling("DescribeKey"))
    status = await cluster.key_shows("main", lambda status: is_available(status) == ("Unknown", "Throttled"))
    assert status["state"] == "Enabled"
    cluster.kms.faults.remove(number)
    await cluster.key_shows("main", lambda status: is_available(status) == ("True", "Enabled"))
    assert (await cluster.condition("db"))["reason"] == "Applied"
    assert await cluster.key_events("main") == []
