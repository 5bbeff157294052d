"""Which missed pods are evicted, in which order, and when it stops."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kmseal.cluster.names import Backoff, Key
from kmseal.errors import Conflict, KmsealError, Throttled, Unavailable
from kmseal.kube import PODS, Page, Resource
from kmseal_webhook.eviction import HOLD_SECONDS, Evictor
from kmseal_webhook.missed import MissedPod, MissedPods

Json = dict[str, Any]
CREATED = "2026-01-02T00:00:00Z"


class Setting:
    """Missed pods, an API server that records evictions, and an evictor with a clock that stands still."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.missed = MissedPods(())
        self.configured: str | None = "2026-01-01T00:00:00Z"
        self.errors: list[KmsealError] = []
        self.unreadable: KmsealError | None = None
        self.asked: list[tuple[str, str]] = []
        self.pods: dict[tuple[str, str], Json] = {}
        """As the API server has them."""
        self.evictor = Evictor(
            self, self.missed, configuration="injector", backoff=Backoff(10.0, 300.0, lambda: 1.0),
            clock=lambda: self.now, choose=first, **options,
        )  # fmt: skip

    def show(
        self, name: str, *, uid: str = "", owner: str = "rs", created: str = CREATED, namespace: str = "prod"
    ) -> None:
        references = [{"kind": "ReplicaSet", "name": "rs", "uid": owner, "controller": True}] if owner else []
        raw: Json = {
            "metadata": {
                "name": name, "namespace": namespace, "uid": uid or f"u-{name}", "creationTimestamp": created,
                "annotations": {"kmseal.dev/inject": "db"}, "ownerReferences": references,
            }
        }  # fmt: skip
        self.missed.observe(raw)
        self.pods[namespace, name] = raw

    def gone(self, name: str) -> None:
        self.missed.vanish(Key("prod", name))

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        assert (resource.plural, name, metadata) == ("mutatingwebhookconfigurations", "injector", True)
        if self.unreadable:
            raise self.unreadable
        return {"metadata": {"creationTimestamp": self.configured}} if self.configured else None

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, fields: str = "", metadata: bool = False
    ) -> AsyncIterator[Page]:
        name = fields.removeprefix("metadata.name=").partition(",")[0]
        assert (resource, metadata) == (PODS, True)
        yield Page([raw for key, raw in self.pods.items() if key == (namespace, name)], "1")

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        self.asked.append((name, uid))
        if self.errors:
            raise self.errors.pop(0)
        return True

    async def turns(self, count: int) -> list[str]:
        """The names of the pods whose eviction was asked for in so many turns."""
        before = len(self.asked)
        for _ in range(count):
            await self.evictor.turn()
        return [name for name, _ in self.asked[before:]]


def first(pods: Sequence[MissedPod]) -> MissedPod:
    return min(pods, key=lambda pod: pod.key)


async def test_one_pod_goes_at_a_turn_and_none_twice() -> None:
    """Although the feed may show it for a while, also after others have gone."""
    setting = Setting()
    for name in ("a", "b"):
        setting.show(name)
    assert await setting.turns(1) == ["a"]
    assert await setting.turns(1) == ["b"]
    assert await setting.turns(3) == []
    assert setting.asked == [("a", "u-a"), ("b", "u-b")]


async def test_a_pod_that_nobody_makes_anew_stays() -> None:
    """Evicting it would only take it away."""
    setting = Setting()
    setting.show("bare", owner="")
    assert await setting.turns(2) == []


async def test_a_pod_from_before_the_configuration_stays_unless_asked_for() -> None:
    """It was not missed: there was no injection when it was made."""
    for options, expected in (({}, ["new"]), ({"older_too": True}, ["new", "old"])):
        setting = Setting(**options)
        setting.show("old", created="2025-12-31T23:59:59Z")
        setting.show("new", owner="other", created="2026-01-01T00:00:00Z")
        assert await setting.turns(3) == expected


async def test_nothing_is_evicted_while_nothing_would_be_injected() -> None:
    """The configuration is gone, or cannot be read; when it is back, it goes on."""
    setting = Setting()
    setting.show("a")
    setting.configured = None
    assert await setting.turns(2) == []
    setting.configured, setting.unreadable = "2026-01-01T00:00:00Z", Unavailable("down")
    assert await setting.turns(2) == []
    setting.unreadable = None
    assert await setting.turns(2) == ["a"]


async def test_a_controller_whose_new_pods_are_missed_too_is_left_alone() -> None:
    """Evicting does not help there, and would never end; its other pods stay as well. Other controllers go on."""
    setting = Setting()
    for name in ("a", "b"):
        setting.show(name)
    setting.show("z", owner="other")
    assert await setting.turns(1) == ["a"]
    setting.gone("a")
    setting.show("c")
    assert await setting.turns(3) == ["z"]
    setting.now += HOLD_SECONDS + 1
    assert await setting.turns(1) == ["b"]


async def test_nobody_can_hold_up_evictions_elsewhere() -> None:
    """A pod of another namespace that names a foreign controller's uid is no sign that evicting is in vain."""
    setting = Setting()
    for name in ("a", "b"):
        setting.show(name)
    assert await setting.turns(1) == ["a"]
    setting.show("forged", namespace="zone")
    setting.gone("a")
    assert (await setting.turns(2))[0] == "b"


async def test_a_pod_whose_budget_says_no_rests_while_others_go() -> None:
    """Longer with each refusal, and at least as long as the API server asks."""
    setting = Setting()
    for name in ("a", "b"):
        setting.show(name)
    setting.errors = [Throttled("not now", retry_after=60.0)]
    assert await setting.turns(3) == ["a", "b"]
    setting.gone("b")
    setting.now += 59
    assert await setting.turns(1) == []
    setting.now += 1
    setting.errors = [Throttled("not now")]
    assert await setting.turns(2) == ["a"]
    setting.now += 19.9
    assert await setting.turns(1) == []
    setting.now += 0.1
    assert await setting.turns(2) == ["a"]


async def test_a_fault_of_the_api_server_is_tried_again() -> None:
    """After a rest."""
    setting = Setting()
    setting.show("a")
    setting.errors = [Unavailable("down")]
    assert await setting.turns(2) == ["a"]
    setting.now += 10
    assert await setting.turns(2) == ["a"]


async def test_a_pod_that_changed_meanwhile_is_not_evicted() -> None:
    """It is gone, or has been injected, or another one has its name: what the feed has yet to tell."""
    setting = Setting()
    for name in ("a", "b", "c", "d"):
        setting.show(name)
    del setting.pods["prod", "a"]
    setting.pods["prod", "b"]["metadata"]["uid"] = "other"
    setting.pods["prod", "c"]["metadata"]["annotations"]["kmseal.dev/injected"] = "0123456789abcdef"
    assert await setting.turns(4) == ["d"]


async def test_a_pod_that_is_replaced_at_the_last_moment_is_forgotten() -> None:
    """The API server says Conflict, for the uid is another one."""
    setting = Setting()
    setting.show("a")
    setting.errors = [Conflict("another uid")]
    assert await setting.turns(3) == ["a"]


@pytest.mark.parametrize(
    ("error", "result"), [(None, "evicted"), (Throttled("x"), "refused"), (Unavailable("x"), "failed")]
)
async def test_results_are_counted(error: KmsealError | None, result: str) -> None:
    """As kmseal_missed_pod_evictions_total."""
    setting, registry = Setting(), CollectorRegistry()
    registry.register(setting.evictor)
    setting.show("a")
    setting.errors = [error] if error else []
    await setting.turns(1)
    assert registry.get_sample_value("kmseal_missed_pod_evictions_total", {"result": result}) == 1
