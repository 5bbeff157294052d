"""Missed pods at a real API server: found by metadata, told of once by all replicas, and evicted as budgets allow."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from kmseal.cluster.events import Announcer
from kmseal.cluster.feed import Feed
from kmseal.cluster.names import Backoff, Key
from kmseal.errors import Conflict
from kmseal.kube import KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal_dev.controlplane import ControlPlane
from kmseal_webhook.eviction import Evictor
from kmseal_webhook.missed import REASON, MissedPods

Json = dict[str, Any]
RBAC = Path(__file__).parents[3] / "webhook" / "rbac.yaml"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
FOUND_WITHIN = 60.0
"""Seconds; what the product promises."""


class Replica:
    """What one process of the webhook does about missed pods."""

    def __init__(self, stack: AsyncExitStack, kube: KubeClient, name: str, configuration: str = "") -> None:
        self.now = 0.0
        self.missed = MissedPods({"kube-system"})
        self.feed = self.missed.feed(kube, backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic)
        self.evictor = Evictor(
            kube, self.missed, configuration=configuration, backoff=Backoff(1.0, 1.0, random.random),
            clock=lambda: self.now, choose=lambda pods: min(pods, key=lambda pod: pod.key),
        )  # fmt: skip
        announcer = Announcer(kube, now=lambda: datetime.now(UTC), controller="kmseal.dev/webhook", instance=name)
        for work in (self.feed.run(), self.missed.announce(announcer)):
            stack.callback(asyncio.create_task(work).cancel)

    def has(self, key: Key) -> bool:
        return key in self.missed.present()

    async def sees(self, *keys: Key) -> None:
        """Waits until these are among the missed."""
        await until(lambda: all(map(self.has, keys)))

    async def forgets(self, *keys: Key) -> None:
        """Waits until none of these is among them any more."""
        await until(lambda: not any(map(self.has, keys)))


class Setting:
    """A namespace in which pods can be created, and replicas."""

    def __init__(self, control_plane: ControlPlane, namespace: str, stack: AsyncExitStack, kube: KubeClient) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.kube = kube
        self._stack = stack

    async def replica(self, name: str = "one") -> Replica:
        replica = Replica(self._stack, self.kube, name, f"inject-{self.namespace}")
        await replica.feed.synced.wait()
        return replica

    async def configure(self) -> None:
        """The webhook configuration; it matches nothing, for the product's own is another test's business."""
        body = {
            "metadata": {"name": f"inject-{self.namespace}"},
            "webhooks": [
                {
                    "name": "pods.kmseal.test", "clientConfig": {"url": "https://127.0.0.1:1/mutate"},
                    "rules": [
                        {"apiGroups": ["kmseal.test"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}
                    ],
                    "sideEffects": "None", "admissionReviewVersions": ["v1"],
                }
            ],
        }  # fmt: skip
        assert (await self.request("POST", CONFIGURATIONS, body)).status == 201
        self._stack.push_async_callback(self.request, "DELETE", f"{CONFIGURATIONS}/inject-{self.namespace}")

    async def create(self, name: str, *, owned: bool = False, **annotations: str) -> str:
        """A pod; its uid. ``owned``: as a controller makes it."""
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "11-22", "controller": True}
        body = {
            "metadata": {
                "name": name,
                "labels": {"app": "a"},
                "annotations": {f"kmseal.dev/{key}": text for key, text in (annotations or {"inject": "db"}).items()},
                "ownerReferences": [owner] if owned else [],
            },
            "spec": {"containers": [{"name": "app", "image": "registry.test/app"}]},
        }
        answer = await self.request("POST", self.path(), body)
        assert answer.status == 201, answer.body
        return str(answer.body["metadata"]["uid"])

    async def set_phase(self, name: str, phase: str) -> None:
        """As a kubelet reports it."""
        answer = await self.merge(self.path(name) + "/status", {"status": {"phase": phase}})
        assert answer.status == 200, answer.body

    async def exists(self, name: str) -> bool:
        answer = await self.request("GET", self.path(name))
        return answer.status == 200 and "deletionTimestamp" not in answer.body["metadata"]

    async def events(self) -> list[Json]:
        answer = await self.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        return [event for event in answer.body["items"] if event["reason"] == REASON]

    def path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{name}" if name else "")

    def key(self, name: str) -> Key:
        return Key(self.namespace, name)

    async def request(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self.control_plane.request, method, path, body)

    async def merge(self, path: str, body: Json) -> Any:
        return await asyncio.to_thread(
            self.control_plane.request, "PATCH", path, body, content_type="application/merge-patch+json"
        )


async def until(reached: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for a condition for as long as the product may take."""
    deadline = time.monotonic() + FOUND_WITHIN
    while True:
        answer = reached()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, "not reached in time"
        await asyncio.sleep(0.02)


def _grant(control_plane: ControlPlane, namespace: str) -> None:
    """Gives a user of the test the ClusterRole of the product, for the webhook configuration of the test."""
    role = next(item for item in YAML(typ="safe").load_all(RBAC.read_text()) if item["kind"] == "ClusterRole")
    for rule in role["rules"]:
        if "mutatingwebhookconfigurations" in rule["resources"]:
            rule["resourceNames"] = [f"inject-{namespace}"]
    role["metadata"] = {"name": f"webhook-{namespace}"}
    binding = {
        "metadata": {"name": f"webhook-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"webhook-{namespace}"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"webhook-{namespace}"}],
    }
    for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        answer = control_plane.request("POST", f"/apis/rbac.authorization.k8s.io/v1/{plural}", body)
        assert answer.status == 201, answer.body


@pytest.fixture
async def setting(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    """A namespace with the ServiceAccount that pods need, and a client with the rights of rbac.yaml and no others."""
    _grant(control_plane, namespace)
    kubeconfig = control_plane.kubeconfig_for(f"webhook-{namespace}")
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeClient(load_kubeconfig(kubeconfig), user_agent="missed-test"))
        made = Setting(control_plane, namespace, stack, kube)
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        assert (await made.request("POST", accounts, {"metadata": {"name": "default"}})).status == 201
        yield made


async def test_a_missed_pod_is_counted_and_told_of_once_by_all_replicas(setting: Setting) -> None:
    """One that was there before, and one that comes; a third replica, later, repeats nothing."""
    registry = CollectorRegistry()
    before = await setting.create("before")
    replicas = [await setting.replica("one"), await setting.replica("two")]
    registry.register(replicas[0].missed)
    after = await setting.create("after")
    await setting.create("injected", inject="db", injected="0123456789abcdef")
    await setting.create("plain", note="x")
    for replica in replicas:
        await replica.sees(setting.key("after"))
        assert {key.name for key in replica.missed.present() if key.namespace == setting.namespace} == {
            "before", "after",
        }  # fmt: skip
    assert registry.get_sample_value("kmseal_missed_pods", {"namespace": setting.namespace}) == 2

    async def all_told() -> bool:
        return len(await setting.events()) >= 2

    await until(all_told)
    later = await setting.replica("three")
    await setting.create("last")
    await later.sees(setting.key("last"))

    async def last_told() -> bool:
        return any(event["regarding"]["name"] == "last" for event in await setting.events())

    await until(last_told)
    events = {event["regarding"]["uid"]: event for event in await setting.events()}
    assert len(await setting.events()) == len(events) == 3
    assert {before, after} < set(events)
    assert (events[after]["type"], events[after]["action"]) == ("Warning", "Inject")
    assert "kmseal.dev/inject" in events[after]["note"]


async def test_nothing_but_metadata_is_asked_for(setting: Setting) -> None:
    """By list and by watch: a pod's content may be secret, and is no business of this."""

    class Recorder(MissedPods):
        seen: list[Json]

        def observe(self, raw: Json) -> None:
            self.seen.append(raw)
            super().observe(raw)

    recorder = Recorder(())
    recorder.seen = []
    await setting.create("before")
    feed: Feed = recorder.feed(setting.kube, backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic)
    task = asyncio.create_task(feed.run())
    await feed.synced.wait()
    await setting.create("after")
    await until(lambda: {setting.key("before"), setting.key("after")} <= recorder.present())
    task.cancel()
    assert all(not {"spec", "status"} & raw.keys() for raw in recorder.seen)


async def test_pods_that_end_or_go_are_missed_no_more(setting: Setting) -> None:
    """The API server takes finished ones out of the watch, although the phase is no metadata."""
    replica = await setting.replica()
    for name in ("done", "failed", "deleted", "stays"):
        await setting.create(name)
    await replica.sees(setting.key("stays"))
    await setting.set_phase("done", "Succeeded")
    await setting.set_phase("failed", "Failed")
    assert (await setting.request("DELETE", setting.path("deleted"))).status == 200
    await replica.forgets(*map(setting.key, ("done", "failed", "deleted")))
    assert replica.has(setting.key("stays"))
    again = await setting.replica("again")
    assert [key.name for key in again.missed.present() if key.namespace == setting.namespace] == ["stays"]


async def test_pods_that_went_while_nobody_watched_are_missed_no_more(setting: Setting) -> None:
    """A new list, as after a break that outlasted the history, forgets them, although it selects by fields."""
    missed = MissedPods(())
    for name in ("goes", "stays"):
        await setting.create(name)
    for expected in ({"goes", "stays"}, {"stays"}):
        feed = missed.feed(setting.kube, backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic)
        task = asyncio.create_task(feed.run())
        await feed.synced.wait()
        task.cancel()
        assert {key.name for key in missed.present() if key.namespace == setting.namespace} == expected
        await setting.request("DELETE", setting.path("goes"))


async def test_namespaces_that_are_never_injected_are_watched_too(setting: Setting) -> None:
    """A pod that asks there starts without its secrets, and nobody evicts it for that."""
    missed = MissedPods({setting.namespace})
    await setting.create("app", owned=True)
    feed = missed.feed(setting.kube, backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic)
    task = asyncio.create_task(feed.run())
    await feed.synced.wait()
    task.cancel()
    assert [pod.owner for pod in missed.pods() if pod.key == setting.key("app")] == [""]
    await setting.request("DELETE", setting.path("app"))  # Other tests' replicas would evict it.


async def test_a_missed_pod_of_a_controller_is_evicted(setting: Setting) -> None:
    """By two replicas at once; the pod that comes in its place is not hit, and one without a controller stays."""
    await setting.configure()
    replicas = [await setting.replica("one"), await setting.replica("two")]
    await setting.create("app", owned=True)
    await setting.create("bare")
    for replica in replicas:
        await replica.sees(setting.key("app"), setting.key("bare"))
    await asyncio.gather(*(replica.evictor.turn() for replica in replicas))
    assert not await setting.exists("app")
    await setting.create("app", owned=True, inject="db", injected="0123456789abcdef")
    for replica in replicas:
        await replica.forgets(setting.key("app"))
        await replica.evictor.turn()
    assert await setting.exists("app")
    assert await setting.exists("bare")


async def test_a_stale_view_never_evicts_the_successor(setting: Setting) -> None:
    """Where one of the same name has come that the replica has not seen: it looks again, and the uid protects it."""
    await setting.configure()
    replica = await setting.replica()
    uid = await setting.create("app", owned=True)
    await replica.sees(setting.key("app"))
    assert (await setting.request("DELETE", setting.path("app"))).status == 200
    successor = await setting.create("app", owned=True, inject="db", injected="0123456789abcdef")
    assert successor != uid
    replica.missed.observe(
        {
            "metadata": {
                "name": "app", "namespace": setting.namespace, "uid": uid,
                "creationTimestamp": "2099-01-01T00:00:00Z", "annotations": {"kmseal.dev/inject": "db"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "uid": "11-22", "controller": True}],
            }
        }
    )  # fmt: skip
    await replica.evictor.turn()
    assert await setting.exists("app")
    # A pending one the API server would try to evict for ten seconds.
    await setting.set_phase("app", "Running")
    with pytest.raises(Conflict):
        await setting.kube.evict(setting.namespace, "app", uid=uid)
    assert await setting.exists("app")


async def test_a_disruption_budget_is_respected(setting: Setting) -> None:
    """The API server says 429; the pod rests as long as it is told, and goes when the budget allows it."""
    await setting.configure()
    budgets = f"/apis/policy/v1/namespaces/{setting.namespace}/poddisruptionbudgets"
    budget = {"metadata": {"name": "a"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}
    created = await setting.request("POST", budgets, budget)
    assert created.status == 201, created.body
    replica = await setting.replica()
    await setting.create("app", owned=True)
    await setting.set_phase("app", "Running")
    await replica.sees(setting.key("app"))
    registry = CollectorRegistry()
    registry.register(replica.evictor)

    def results(result: str) -> float | None:
        return registry.get_sample_value("kmseal_missed_pod_evictions_total", {"result": result})

    for _ in range(3):
        await replica.evictor.turn()
    assert (results("refused"), await setting.exists("app")) == (1, True)
    status = {
        "observedGeneration": created.body["metadata"]["generation"],
        "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
    }  # fmt: skip
    assert (await setting.merge(f"{budgets}/a/status", {"status": status})).status == 200
    await replica.evictor.turn()
    assert await setting.exists("app")
    replica.now += 3600
    await replica.evictor.turn()
    assert (results("evicted"), await setting.exists("app")) == (1, False)


async def test_pods_from_before_the_configuration_are_told_of_and_stay(setting: Setting) -> None:
    """As long as there is none, nothing is evicted either: what would come would be missed as well."""
    replica = await setting.replica()
    await setting.create("old", owned=True)
    await replica.sees(setting.key("old"))
    await replica.evictor.turn()
    assert await setting.exists("old")
    await asyncio.sleep(1.1)  # The API server keeps whole seconds.
    await setting.configure()
    await replica.evictor.turn()
    assert await setting.exists("old")

    async def told() -> bool:
        return bool(await setting.events())

    await until(told)
