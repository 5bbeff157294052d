"""Which pods count as missed, by their metadata alone, and how often that is told."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kmseal.cluster.events import Announcer
from kmseal.cluster.names import Key
from kmseal.kube import Resource
from kmseal_webhook.missed import NOTE, NOTE_OF_EXCLUDED, MissedPod, MissedPods, read_missed

Json = dict[str, Any]
DIGEST = "0123456789abcdef"


def pod(
    name: str = "app", *, namespace: str = "prod", uid: str = "u1", inject: str | None = "db",
    injected: str | None = None, **metadata: Any,
) -> Json:  # fmt: skip
    """What a feed of metadata shows of a pod."""
    annotations = {"kmseal.dev/inject": inject, "kmseal.dev/injected": injected}
    return {
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": {name: text for name, text in annotations.items() if text is not None}, **metadata,
        }
    }  # fmt: skip


def owned_by(kind: str, **more: Any) -> list[Json]:
    return [{"apiVersion": "x/v1", "kind": kind, "name": "n", "uid": "o1", "controller": True, **more}]


def read(raw: Json) -> MissedPod | None:
    return read_missed(Key("prod", "app"), raw["metadata"])


def test_a_pod_that_asks_and_carries_nothing_is_missed() -> None:
    """With its uid, its age and the controller that would make it anew."""
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read(pod(ownerReferences=owned_by("ReplicaSet"))) == MissedPod(
        Key("prod", "app"), "u1", created, "prod/o1"
    )  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        pod(inject=None),
        pod(injected=DIGEST),
        pod(deletionTimestamp="2026-01-02T03:04:05Z"),
        {"metadata": {"name": "app", "namespace": "prod", "uid": "u"}},
    ],
)
def test_other_pods_are_not(raw: Json) -> None:
    """One that does not ask, one that carries the digest, one on its way out, and one with no annotations at all."""
    assert read(raw) is None


@pytest.mark.parametrize("injected", ["", "true", DIGEST.upper(), DIGEST + "0"])
def test_what_is_no_digest_of_ours_does_not_count_as_injected(injected: str) -> None:
    """Somebody copied the annotation from the documents into a template, say."""
    assert read(pod(injected=injected))


@pytest.mark.parametrize("references", [[], owned_by("Node"), owned_by("ReplicaSet", controller=False)])
def test_a_pod_that_nobody_makes_anew_has_no_owner(references: list[Json]) -> None:
    """Bare pods, the mirrors of static pods, and owners that are no controllers."""
    missed = read(pod(ownerReferences=references))
    assert missed
    assert missed.owner == ""


def test_pods_in_namespaces_that_are_never_injected_are_missed_and_not_to_be_evicted() -> None:
    """They start without their secrets, which somebody must be told; a new pod would be missed as well."""
    missed = MissedPods({"kube-system"})
    missed.observe(pod(namespace="kube-system", ownerReferences=owned_by("ReplicaSet")))
    missed.observe(pod(ownerReferences=owned_by("ReplicaSet")))
    assert {item.key.namespace: item.owner for item in missed.pods()} == {"kube-system": "", "prod": "prod/o1"}


def test_pods_leave_when_they_go_end_or_are_injected_after_all() -> None:
    """A pod of the same name that is injected takes the place of the missed one."""
    missed = MissedPods(())
    for uid in ("u1", "u2"):
        missed.observe(pod(uid=uid))
        assert [item.uid for item in missed.pods()] == [uid]
        assert missed.present() == {Key("prod", "app")}
    missed.observe(pod(uid="u3", injected=DIGEST))
    assert not missed.present()
    missed.observe(pod())
    missed.vanish(Key("prod", "app"), 7)
    assert not missed.present()


def test_the_metric_counts_by_namespace() -> None:
    """Only namespaces that have some are shown."""
    registry, missed = CollectorRegistry(), MissedPods(())
    registry.register(missed)
    for name, namespace in (("a", "one"), ("b", "one"), ("a", "two")):
        missed.observe(pod(name, namespace=namespace))
    assert registry.get_sample_value("kmseal_missed_pods", {"namespace": "one"}) == 2
    assert registry.get_sample_value("kmseal_missed_pods", {"namespace": "two"}) == 1
    missed.vanish(Key("two", "a"))
    assert registry.get_sample_value("kmseal_missed_pods", {"namespace": "two"}) is None


class Written(Announcer):
    """Keeps the names of the events that would be written."""

    def __init__(self) -> None:
        self.events: list[tuple[Key, str, str]] = []
        self.notes: dict[Key, str] = {}

    async def tell(
        self, resource: Resource, key: Key, uid: str, reason: str, note: str, *, warning: bool, action: str = "",
        name: str = "",
    ) -> None:  # fmt: skip
        self.events.append((key, uid, name))
        self.notes[key] = note


async def test_each_pod_is_told_of_once() -> None:
    """Not again when it changes; a pod of the same name is another one. The event's name depends on the uid only."""
    missed, announcer = MissedPods(()), Written()
    missed.observe(pod())
    missed.observe(pod("gone", uid="u9"))
    missed.vanish(Key("prod", "gone"))
    task = asyncio.create_task(missed.announce(announcer))
    for uid in ("u1", "u1", "u2", "u2"):
        missed.observe(pod(uid=uid, labels={"a": "b"}))
        for _ in range(5):
            await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert [(key.name, uid) for key, uid, _ in announcer.events] == [("app", "u1"), ("app", "u2")]
    names = [name for *_, name in announcer.events]
    assert len(set(names)) == 2
    assert all(name.startswith("app.missed-") for name in names)


async def test_what_is_told_of_a_pod_in_a_namespace_that_is_never_injected() -> None:
    """Not to delete it, which would not help."""
    missed, announcer = MissedPods({"kube-system"}), Written()
    for namespace in ("kube-system", "prod"):
        missed.observe(pod(namespace=namespace))
    task = asyncio.create_task(missed.announce(announcer))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert announcer.notes == {Key("kube-system", "app"): NOTE_OF_EXCLUDED, Key("prod", "app"): NOTE}


@pytest.mark.parametrize("name", ["a" * 253, "a" * 199 + "-" * 20 + "a", "a" * 199 + ".b"])
async def test_the_name_of_the_event_is_valid_for_every_pod(name: str) -> None:
    """Cut where it must be, and never with a dash or a full stop before the next one."""
    missed, announcer = MissedPods(()), Written()
    missed.observe(pod(name))
    task = asyncio.create_task(missed.announce(announcer))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    ((_, _, event),) = announcer.events
    assert len(event) <= 253
    assert all(label[0].isalnum() and label[-1].isalnum() for label in event.split("."))
