"""The oldest kubelet: found among all nodes, kept through faults for a while, and not guessed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from kmseal.cluster.names import Backoff
from kmseal.errors import AccessDenied, KmsealError, Unavailable
from kmseal.kube import Page, Resource
from kmseal_webhook.nodes import NO_NODES, NODES, TRUST_SECONDS, OldestKubelet, read_version

Json = dict[str, Any]


def node(version: str | None, name: str = "node") -> Json:
    information = {} if version is None else {"kubeletVersion": version}
    return {"metadata": {"name": name}, "status": {"nodeInfo": information}}


class Lists:
    """Answers of the API server: each is the pages of one list, or an error in place of a page."""

    def __init__(self, *answers: list[list[Json] | KmsealError]) -> None:
        self._answers = list(answers)
        self.over = asyncio.Event()

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, page_size: int = 500
    ) -> AsyncIterator[Page]:
        assert resource is NODES
        if not self._answers:
            self.over.set()
            await asyncio.Event().wait()
        for page in self._answers.pop(0):
            if isinstance(page, KmsealError):
                raise page
            yield Page(page, "1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def after(*answers: list[list[Json] | KmsealError], clock: Clock | None = None) -> OldestKubelet:
    """What is known when all these have been answered."""
    lists = Lists(*answers)
    subject = OldestKubelet(lists, backoff=Backoff(0.0, 0.0, lambda: 0.0), clock=clock or Clock(), pause=0.0)
    task = asyncio.create_task(subject.run())
    await lists.over.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert subject.tried.is_set()
    return subject


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.35.0", (1, 35)),
        ("v1.34.3-aliyun.1", (1, 34)),
        ("v1.35.2+k3s1", (1, 35)),
        ("1.36.0", (1, 36)),
        ("", (0, 0)),
        (None, (0, 0)),
        ("unknown", (0, 0)),
        ("v1.99999999", (0, 0)),
    ],
)
def test_the_version_of_a_kubelet(text: str | None, version: tuple[int, int]) -> None:
    """As distributions write it; one that tells none may be of any age."""
    assert read_version(node(text)) == version


def test_a_node_that_has_no_status_yet() -> None:
    """Somebody made it before its kubelet came."""
    assert read_version({"metadata": {"name": "n"}}) == (0, 0)


async def test_the_oldest_of_all_pages_counts() -> None:
    """Compared as numbers, wherever it stands."""
    subject = await after([[node("v1.36.1"), node("v1.35.0")], [node("v1.9.0"), node("v1.37.0")]])
    assert subject.version == (1, 9)


async def test_a_later_look_replaces_what_was_known() -> None:
    """Upwards when the last old node is gone, and downwards when an old one has come."""
    assert (await after([[node("v1.34.0")]], [[node("v1.35.0")]])).version == (1, 35)
    assert (await after([[node("v1.35.0")]], [[node("v1.34.0")]])).version == (1, 34)


async def test_a_cluster_without_nodes() -> None:
    """No kubelet is too old, so that one that scales from zero gets its first pods."""
    assert (await after([[]])).version == NO_NODES


@pytest.mark.parametrize("error", [AccessDenied("no right to list nodes"), Unavailable("down")])
async def test_nothing_is_known_before_the_first_answer(error: KmsealError) -> None:
    """A list of which a page is missing is none."""
    assert (await after([error])).version is None
    assert (await after([[node("v1.35.0")], error])).version is None


async def test_what_was_known_holds_through_a_fault_for_a_while() -> None:
    """Then older nodes may have come, and nothing is known any more."""
    clock = Clock()
    subject = await after([[node("v1.35.0")]], [Unavailable("down")], clock=clock)
    assert subject.version == (1, 35)
    clock.now += TRUST_SECONDS
    assert subject.version == (1, 35)
    clock.now += 1
    assert subject.version is None
