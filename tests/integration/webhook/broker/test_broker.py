"""What pods get of the broker: values, their own templates, newer wrappings; and what each grant costs."""

import asyncio
import base64
import io
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from kmseal.cluster.feed import Feed
from kmseal.cluster.names import Backoff, Key
from kmseal.fakekms.faults import throttling
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import KMS_KEYS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import DataKey
from kmseal.rewrapped import digest

Json = dict[str, Any]
CANARY = b"canary-7d1e0a93c4"


async def granted(desk: Any, *names: str, **pod: Any) -> Any:
    """The answer to a pod that lists those names and may have them."""
    made = await desk.pod(secrets=", ".join(names), **pod)
    await desk.allow(names=names)
    return await desk.ask(await desk.token(made), names)


def alter(line: str) -> str:
    """Flips the last bit of what stands in base64 at the end of a line."""
    head, dot, payload = line.rpartition(".")
    raw = bytearray(base64.b64decode(payload))
    raw[-1] ^= 1
    return f"{head}{dot}{base64.b64encode(raw).decode()}"


async def forbidden(desk: Any, pod: Any) -> bool:
    """Whether the API server has learned by now that the broker may not ask it."""
    return bool((await desk.ask(await desk.token(pod))).status == 503)


@asynccontextmanager
async def following(desk: Any, name: str) -> AsyncIterator[None]:
    """Fills the desk's keys with one KMSKey as the server does it."""
    async with KubeClient(load_kubeconfig(desk.control_plane.kubeconfig), user_agent="feed") as kube:
        feed = Feed(
            kube, KMS_KEYS, desk.keys, namespace=None, fields=f"metadata.name={name}",
            backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic,
        )  # fmt: skip
        task = asyncio.create_task(feed.run())
        try:
            await feed.synced.wait()
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def show_key(desk: Any, state: str, version: int, **spec: Any) -> None:
    """What the feed of KMSKeys brings of the desk's key."""
    desk.keys.observe({
        "apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey",
        "metadata": {"name": "main", "uid": "u", "resourceVersion": str(version)},
        "spec": {"keyId": desk.key, **spec}, "status": {"keyId": desk.key, "state": state},
    })  # fmt: skip


async def test_a_pod_gets_what_it_lists_and_may_have(desk: Any) -> None:
    """All values as they are, bytes included, and how long they may be relied on."""
    await desk.secret("db", {"password": CANARY, "key": b"\x00\xff"})
    answer = await granted(desk, "db")
    assert answer.status == 200, answer.body
    assert answer.body["expiresInSeconds"] == 600
    assert answer.values("db") == {"password": CANARY, "key": b"\x00\xff"}


async def test_what_a_grant_costs(desk: Any) -> None:
    """One call of KMS for each data key; two calls of the API server, and two more for each object; never a write."""
    await desk.secret("db", {"a": b"1", "b": b"2", "c": b"3"}, data_keys=2)
    await desk.secret("cache")
    pod = await desk.pod(secrets="db, cache")
    await desk.allow(names=["db", "cache"])
    token = await desk.token(pod)
    log = desk.control_plane.audit_log()
    for grant in (1, 2):
        assert (await desk.ask(token, ["cache", "db"])).status == 200
        assert desk.kms.calls["Decrypt"] == 3 * grant, "nothing is cached from one grant to the next"
    asked = [(event.verb, event.resource) for event in log.events(agent=desk.agent)]
    assert sorted(asked) == sorted(
        2
        * [
            ("create", "tokenreviews"),
            ("list", "pods"),
            *2 * [("create", "subjectaccessreviews")],
            *2 * [("get", "encryptedsecrets")],
        ]
    )
    assert desk.kms.calls.total == desk.kms.calls["Decrypt"] + desk.kms.calls["GenerateDataKey"]


async def test_the_audit_line_of_a_grant(desk: Any) -> None:
    """Every documented field; the ids are those of KMS's own audit trail; no value."""
    await desk.secret("db", {"a": CANARY, "b": b"2"}, data_keys=2)
    answer = await granted(desk, "db")
    assert answer.status == 200
    (line,) = desk.lines()
    (pod,) = (await desk.request("GET", f"/api/v1/namespaces/{desk.namespace}/pods")).body["items"]
    asked = desk.kms.audit.of("Decrypt")
    assert (line.pop("time")[-6:], line.pop("durationMs") > 0) == ("+00:00", True)
    assert sorted(line.pop("requestIds")) == sorted(record.request_id for record in asked)
    assert line == {
        "logger": "kmseal_webhook.audit",
        "decision": "allow",
        "reason": "Granted",
        "status": 200,
        "namespace": desk.namespace,
        "pod": "web",
        "podUid": pod["metadata"]["uid"],
        "serviceAccount": "app",
        "secrets": ["db"],
        "keys": [{"keyId": desk.key, "keyVersionId": asked[0].key_version_id}],
        "remote": "127.0.0.1",
    }
    desk.require_no_value()


async def test_the_objects_own_templates_are_rendered(desk: Any) -> None:
    """What would be in its Secret is what its pods get."""
    await desk.secret(
        "db", {"user": b"app", "password": b"p"}, target={"data": {"url": "{{ values.user }}:{{ values.password }}@db"}}
    )
    assert (await granted(desk, "db")).values("db") == {"url": b"app:p@db"}


async def test_a_pods_template_makes_the_only_file(desk: Any) -> None:
    """It is over the object's plain values, whatever templates the object has; other secrets stay as they are."""
    await desk.secret("db", {"user": b"app"}, target={"data": {"url": "{{ values.user }}@db"}})
    await desk.secret("cache", {"password": b"c"})
    answer = await granted(
        desk, "db", "cache",
        annotations={"kmseal.dev/template.db": "user={{ values.user }}\n", "kmseal.dev/file.db": "db.conf"},
    )  # fmt: skip
    assert answer.values("db") == {"db.conf": b"user=app\n"}
    assert answer.values("cache") == {"password": b"c"}


async def test_a_pods_template_that_fails_is_named(desk: Any) -> None:
    """By its annotation, and with no word of the values."""
    await desk.secret("db")
    answer = await granted(desk, "db", annotations={"kmseal.dev/template.db": "{{ values.password }}{{ values.no }}"})
    await desk.denied(answer, 409, "TemplateFailed", kms=1)
    assert "EncryptedSecret db: metadata.annotations[kmseal.dev/template.db]" in answer.body["message"]


async def test_newer_wrappings_of_the_status_are_used(desk: Any) -> None:
    """After a rotation the old version may be gone: the one that the operator has put beside it opens."""
    manifest = await desk.seal("db", {"password": CANARY})
    await desk.apply(manifest)
    data_key = DataKey.parse(manifest["spec"]["dataKeys"][0])
    second = desk.kms.create_key()
    environment = desk.environment(desk.kms.add_identity("operator", ("Decrypt", "Encrypt")))
    async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:
        context = data_key.sealed_for.encryption_context()
        opened = await keyring.unwrap(data_key.wrappings, context)
        wrapping = await keyring.wrap(second, opened.data_key, context)
    item = {"dataKeyId": data_key.id, "digest": digest(data_key.wrappings[0]), "wrapping": wrapping.to_dict()}
    path = f"/apis/kmseal.dev/v1alpha1/namespaces/{desk.namespace}/encryptedsecrets/db/status"
    patched = await desk.request("PATCH", path, {"status": {"rewrapped": [item]}}, "application/merge-patch+json")
    assert patched.status == 200, patched.body
    desk.kms.disable(desk.key)
    answer = await granted(desk, "db")
    assert answer.values("db") == {"password": CANARY}
    assert [key["keyId"] for key in desk.lines()[-1]["keys"]] == [second]


# The kill switch


async def test_a_key_that_its_kmskey_says_is_disabled_wipes_without_a_call(desk: Any) -> None:
    """Every state that somebody brings about; enabling it gives the values back."""
    await desk.secret()
    token = await desk.token(await desk.pod())
    await desk.allow()
    for version, state in enumerate(("Disabled", "PendingDeletion", "PendingImport"), 1):
        show_key(desk, state, version)
        await desk.denied(await desk.ask(token), 403, "KeyUnusable", wipe=True)
    show_key(desk, "Enabled", 9)
    assert (await desk.ask(token)).values("db") == {"password": CANARY}


async def test_the_switch_is_heard_by_the_feed(desk: Any) -> None:
    """What the operator writes into the KMSKey's status counts within moments, with nothing that polls here."""
    await desk.secret()
    token = await desk.token(await desk.pod())
    await desk.allow()
    name = f"switch-{desk.namespace}"
    path = "/apis/kmseal.dev/v1alpha1/kmskeys"
    await desk.create(path, {
        "apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey", "metadata": {"name": name}, "spec": {"keyId": desk.key},
    })  # fmt: skip
    try:
        async with following(desk, name):
            for state, status in (("Enabled", 200), ("Disabled", 403), ("Enabled", 200)):
                patch = {"status": {"keyId": desk.key, "state": state}}
                done = await desk.request("PATCH", f"{path}/{name}/status", patch, "application/merge-patch+json")
                assert done.status == 200, done.body
                await desk.until(lambda state=state: desk.keys.get(name).state == state)
                before = desk.kms.calls["Decrypt"]
                answer = await desk.ask(token)
                assert answer.status == status
                if status == 403:
                    await desk.denied(answer, 403, "KeyUnusable", kms=before, wipe=True)
    finally:
        assert (await desk.request("DELETE", f"{path}/{name}")).status == 200


async def test_a_key_that_kms_says_is_disabled_wipes(desk: Any) -> None:
    """Before any KMSKey says so: KMS has said it itself. The audit has the id of the request that it refused."""
    await desk.secret()
    desk.kms.disable(desk.key)
    line = await desk.denied(await granted(desk, "db"), 403, "KeyUnusable", kms=1, wipe=True)
    assert line["requestIds"] == [desk.kms.audit.of("Decrypt")[0].request_id]
    assert line["keys"] == []


async def test_a_key_that_is_not_found_does_not_wipe(desk: Any) -> None:
    """It may be a wrong endpoint: nobody has shut anything."""
    manifest = await desk.seal("db", {"password": CANARY})
    wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
    wrapping["keyId"] = wrapping["keyId"].rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    show_key(desk, "NotFound", 1)
    await desk.apply(manifest)
    answer = await granted(desk, "db")
    assert not answer.body["wipe"], answer.body


async def test_a_removed_binding_wipes_at_once(desk: Any) -> None:
    """The next request after it is refused; binding again gives the values back."""
    await desk.secret()
    token = await desk.token(await desk.pod())
    binding = await desk.allow()
    assert (await desk.ask(token)).status == 200
    await desk.disallow(binding)
    await desk.denied(await desk.ask(token), 403, "Forbidden", kms=1, wipe=True)
    await desk.allow()
    assert (await desk.ask(token)).status == 200


async def test_a_namespace_that_a_kmskey_does_not_allow(desk: Any) -> None:
    """The rule is asked at each grant, before KMS."""
    await desk.secret()
    show_key(desk, "Enabled", 1, allowedNamespaces={"names": ["elsewhere"]})
    await desk.denied(await granted(desk, "db"), 403, "NamespaceNotAllowed", wipe=True)


async def test_a_limit_that_may_be_meant_for_another_key_takes_nothing_back(desk: Any) -> None:
    """An alias that nobody has resolved yet holds for every key of its region, but wipes nobody's files."""
    await desk.secret()
    alias = desk.key.rpartition(":")[0] + ":alias/new"
    desk.keys.observe({
        "apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey",
        "metadata": {"name": "new", "uid": "u", "resourceVersion": "1"},
        "spec": {"keyId": alias, "allowedNamespaces": {"names": []}},
    })  # fmt: skip
    answer = await granted(desk, "db")
    await desk.denied(answer, 503, "NamespaceNotAllowed")
    assert answer.body["retry"] is True


# Faults, which never wipe


async def test_kms_down(desk: Any) -> None:
    """Come again, and keep what you have."""
    await desk.secret()
    await desk.kms.stop_listening()
    answer = await granted(desk, "db")
    await desk.denied(answer, 503, "KmsUnavailable")
    assert answer.body["retry"] is True
    assert int(answer.headers["Retry-After"]) >= 1


async def test_kms_throttles(desk: Any) -> None:
    """It says so, and when to come again."""
    await desk.secret()
    desk.kms.faults.add(throttling("Decrypt"))
    made = await desk.pod()
    await desk.allow()
    answer = await desk.ask(await desk.token(made))
    assert (answer.status, answer.reason, answer.body["wipe"]) == (503, "KmsThrottled", False)
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.body["retry"] is True
    assert desk.lines()[-1]["decision"] == "deny"


async def test_the_brokers_own_right_is_missing(desk: Any) -> None:
    """Somebody has to give it to the broker; no pod has lost anything."""
    await desk.secret()
    desk.kms.set_policy(desk.identity, ())
    await desk.denied(await granted(desk, "db"), 503, "KmsDenied", kms=1)


async def test_the_gravest_of_several_refusals_is_answered(desk: Any) -> None:
    """A key that was shut must reach the pod, though another object is merely wrong."""
    manifest = await desk.seal("db", {"password": CANARY})
    manifest["spec"]["encryptedData"]["password"] = alter(manifest["spec"]["encryptedData"]["password"])
    await desk.apply(manifest)
    second = desk.kms.create_key()
    await desk.secret("cache", key=second)
    desk.kms.disable(second)
    await desk.denied(await granted(desk, "db", "cache"), 403, "KeyUnusable", kms=2, wipe=True)


async def test_what_cannot_be_written_down_is_not_given_out(desk: Any) -> None:
    """An audit stream that is broken takes the broker down with it, as far as values go."""
    await desk.secret()
    trail = desk.trail.getvalue()
    desk.trail.close()
    answer = await granted(desk, "db")
    desk.trail = io.StringIO(trail)
    assert (answer.status, answer.reason, answer.body["retry"], answer.body["wipe"]) == (503, "Unexpected", True, False)
    desk.require_no_value()


async def test_a_mistake_of_ours_gives_nothing_away(desk: Any) -> None:
    """An exception may quote anything: its class and place are logged; what KMS was asked is in the audit."""
    await desk.secret()

    def fail(key: str) -> None:
        raise RuntimeError(CANARY.decode())

    desk.on_opened = fail
    line = await desk.denied(await granted(desk, "db"), 503, "Unexpected", kms=1)
    assert "RuntimeError" not in line["detail"]


async def test_the_api_server_does_not_let_the_broker_ask(desk: Any) -> None:
    """A role that is missing is a fault of the installation: no pod loses anything by it."""
    await desk.secret()
    pod = await desk.pod()
    await desk.allow()
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{desk.agent}"
    assert (await desk.request("DELETE", path)).status == 200
    await desk.until(lambda: forbidden(desk, pod))
    await desk.denied(await desk.ask(await desk.token(pod)), 503, "ApiForbidden", kms=desk.kms.calls["Decrypt"])


# Objects that cannot be opened


async def test_an_object_that_is_not_there(desk: Any) -> None:
    """Who may have it is told that there is none."""
    await desk.denied(await granted(desk, "db"), 404, "NotFound", wipe=True)


@pytest.mark.parametrize(
    ("damage", "reason", "kms"),
    [
        ("altered value", "Unauthentic", 1),
        ("another name", "WrongPlace", 0),
        ("altered wrapping", "KmsRefused", 1),
        ("form", "Invalid", 0),
    ],
)
async def test_an_object_that_cannot_be_opened(desk: Any, damage: str, reason: str, kms: int) -> None:
    """It is said which field is wrong; running pods keep what they have; what needs no KMS asks none."""
    manifest = await desk.seal("db", {"password": CANARY})
    spec = manifest["spec"]
    match damage:
        case "altered value":
            spec["encryptedData"]["password"] = alter(spec["encryptedData"]["password"])
        case "another name":
            spec["encryptedData"]["other"] = spec["encryptedData"].pop("password")
        case "altered wrapping":
            wrapping = spec["dataKeys"][0]["wrappings"][0]
            wrapping["wrapped"] = alter(wrapping["wrapped"])
        case "form":
            # Bits that are lost in decoding: more than the CRD's pattern can see.
            head, _, _ = spec["encryptedData"]["password"].rpartition(".")
            canonical = base64.b64encode(b"x" * 34).decode()
            spec["encryptedData"]["password"] = f"{head}.{canonical.removesuffix('A==')}B=="
    await desk.apply(manifest)
    answer = await granted(desk, "db")
    await desk.denied(answer, 409, reason, kms=kms)
    assert "spec." in answer.body["message"]


async def test_a_mistake_does_not_hide_the_kill_switch(desk: Any) -> None:
    """Beside an object that cannot be read, the others are opened as far as they go: a key that was shut reaches it."""
    await desk.secret("db")
    manifest = await desk.seal("cache", {"password": CANARY})
    manifest["spec"]["encryptedData"]["other"] = manifest["spec"]["encryptedData"].pop("password")
    await desk.apply(manifest)
    answer = await granted(desk, "db", "cache")
    await desk.denied(answer, 409, "WrongPlace", kms=1)
    desk.kms.disable(desk.key)
    token = await desk.token(await desk.pod("other", secrets="db, cache"))
    for names in (["db", "cache"], ["cache", "db"]):
        before = desk.kms.calls["Decrypt"]
        await desk.denied(await desk.ask(token, names), 403, "KeyUnusable", kms=before + 1, wipe=True)


async def test_what_takes_values_away_asks_no_kms(desk: Any) -> None:
    """Beside an object that is gone nothing is unwrapped: KMS could say nothing graver."""
    await desk.secret("db")
    await desk.denied(await granted(desk, "db", "cache"), 404, "NotFound", wipe=True)


async def test_a_grant_is_not_larger_than_an_agent_takes(desk: Any) -> None:
    """What the agent would have to refuse is said by the broker, with what to do, and is no grant in the trail."""
    names = [f"part{number}" for number in range(7)]
    for name in names:
        await desk.secret(name, {"file": CANARY * 54_000})
    answer = await granted(desk, *names)
    await desk.denied(answer, 409, "GrantTooLarge", kms=7)
    assert "inject fewer or smaller secrets" in answer.body["message"]
    token = await desk.token(await desk.pod("fewer", secrets=", ".join(names)))
    assert (await desk.ask(token, names[:6])).status == 200


async def test_all_templates_of_a_pod_are_bounded_together(desk: Any) -> None:
    """Its own and those of its objects; a key that was shut is heard all the same."""
    half = "x" * 33_000
    await desk.secret("db", target={"data": {"long": half}})
    await desk.secret("cache")
    template = {"kmseal.dev/template.cache": half}
    answer = await granted(desk, "db", "cache", annotations=template)
    await desk.denied(answer, 409, "TemplateFailed", kms=2)
    token = await desk.token(await desk.pod("other", secrets="db, cache", annotations=template))
    assert (await desk.ask(token, ["cache"])).values("cache") == {"cache": half.encode()}
    desk.kms.disable(desk.key)
    before = desk.kms.calls["Decrypt"]
    await desk.denied(await desk.ask(token, ["db", "cache"]), 403, "KeyUnusable", kms=before + 2, wipe=True)


async def test_a_binding_to_a_role_that_is_not_there_is_no_right(desk: Any) -> None:
    """RBAC says so in words of its own, and nothing has failed: the values go."""
    await desk.secret()
    pod = await desk.pod()
    await desk.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{desk.namespace}/rolebindings", {
        "metadata": {"name": "dangling"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gone"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": desk.namespace}],
    })  # fmt: skip
    spec = {
        "user": f"system:serviceaccount:{desk.namespace}:app",
        "resourceAttributes": {
            "verb": "decrypt", "group": "kmseal.dev", "resource": "encryptedsecrets", "namespace": desk.namespace,
            "name": "db",
        },
    }  # fmt: skip

    async def seen() -> bool:
        review = await desk.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        return "not found" in review["status"].get("reason", "")

    await desk.until(seen)
    await desk.denied(await desk.ask(await desk.token(pod)), 403, "Forbidden", wipe=True)


async def test_one_that_fails_gives_none(desk: Any) -> None:
    """All that is asked for or nothing."""
    await desk.secret("db")
    answer = await granted(desk, "db", "cache")
    await desk.denied(answer, 404, "NotFound", wipe=True)
    assert desk.lines()[-1]["secrets"] == ["db", "cache"]


async def test_the_feed_drops_its_rules_with_the_kmskey(desk: Any) -> None:
    """A KMSKey that is deleted limits nothing any more."""
    await desk.secret()
    show_key(desk, "Disabled", 1)
    token = await desk.token(await desk.pod())
    await desk.allow()
    await desk.denied(await desk.ask(token), 403, "KeyUnusable", wipe=True)
    desk.keys.vanish(Key("", "main"))
    assert (await desk.ask(token)).status == 200
