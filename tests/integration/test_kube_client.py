"""The API client against the real kube-apiserver: the preconditions that the operator's promises stand on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import AccessDenied, Conflict, Refused
from kmseal.kube import SECRETS, KubeClient, Resource
from kmseal.kubeconfig import load_kubeconfig
from kmseal.kubeerrors import Expired
from kmseal_dev.controlplane import ControlPlane


def secret(name: str, **metadata: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, **metadata},
        "data": {"a": "Y2FuYXJ5"},
    }


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """A client with all rights."""
    async with KubeClient(load_kubeconfig(control_plane.kubeconfig), user_agent="test") as client:
        yield client


async def test_create_only_apply(kube: KubeClient, namespace: str) -> None:
    """resourceVersion "1" creates an absent Secret, and never touches one that is there."""
    body = secret("s", resourceVersion="1")
    created = await kube.apply(SECRETS, namespace, "s", body, manager="m", force=True)
    with pytest.raises(Conflict):
        await kube.apply(SECRETS, namespace, "s", {**body, "data": {"a": "eA=="}}, manager="other", force=True)
    found = await kube.get(SECRETS, namespace, "s", metadata=True)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_update_only_apply(kube: KubeClient, namespace: str) -> None:
    """A uid in the body makes an apply refuse another Secret of the name, and an absent one."""
    await kube.apply(SECRETS, namespace, "s", secret("s"), manager="m", force=True)
    foreign = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(Refused) as caught:
        await kube.apply(SECRETS, namespace, "s", secret("s", uid=foreign), manager="m", force=True)
    assert caught.value.field == "metadata.uid"
    with pytest.raises(Conflict):
        await kube.apply(SECRETS, namespace, "none", secret("none", uid=foreign), manager="m", force=True)


async def test_answers_hold_no_data(kube: KubeClient, namespace: str) -> None:
    """Neither a write nor a metadata read brings a Secret's data back."""
    written = await kube.apply(SECRETS, namespace, "s", secret("s"), manager="m", force=True)
    read = await kube.get(SECRETS, namespace, "s", metadata=True)
    listed = [page async for page in kube.pages(SECRETS, namespace, metadata=True)]
    assert "Y2FuYXJ5" not in repr([written, read, listed])


async def test_a_refusal_does_not_quote_the_object(kube: KubeClient, namespace: str) -> None:
    """An error names the field and never the content, though the API server's own message may quote it."""
    body = {**secret("s"), "type": "kubernetes.io/tls", "metadata": {"name": "s", "labels": {"x": "canary value"}}}
    with pytest.raises(Refused) as caught:
        await kube.apply(SECRETS, namespace, "s", body, manager="m", force=True)
    assert "metadata.labels" in caught.value.field
    assert "canary" not in str(caught.value)


async def test_a_field_conflict_names_the_field(kube: KubeClient, namespace: str) -> None:
    """Without force, somebody else's value is a conflict that names the field."""
    await kube.apply(SECRETS, namespace, "s", secret("s"), manager="one", force=True)
    with pytest.raises(Conflict) as caught:
        await kube.apply(SECRETS, namespace, "s", {**secret("s"), "data": {"a": "eA=="}}, manager="two", force=False)
    assert (caught.value.reason, caught.value.field) == ("FieldConflict", ".data.a")


async def test_delete_minds_the_uid(kube: KubeClient, namespace: str) -> None:
    """A delete with another uid does nothing; with the right one it deletes; an absent one is False."""
    made = await kube.apply(SECRETS, namespace, "s", secret("s"), manager="m", force=True)
    with pytest.raises(Conflict):
        await kube.delete(SECRETS, namespace, "s", uid="00000000-0000-0000-0000-000000000001")
    assert await kube.delete(SECRETS, namespace, "s", uid=made["metadata"]["uid"])
    assert not await kube.delete(SECRETS, namespace, "s", uid=made["metadata"]["uid"])


async def test_pages_and_watch(kube: KubeClient, namespace: str) -> None:
    """A list comes in pages; a watch from its end shows what comes after, and only that."""
    for index in range(5):
        await kube.apply(SECRETS, namespace, f"s{index}", secret(f"s{index}"), manager="m", force=True)
    pages = [page async for page in kube.pages(SECRETS, namespace, metadata=True, page_size=2)]
    assert [len(page.items) for page in pages] == [2, 2, 1]
    await kube.apply(SECRETS, namespace, "later", secret("later"), manager="m", force=True)
    async with aclosing(kube.watch(SECRETS, namespace, since=pages[-1].resource_version, metadata=True)) as changes:
        change = await anext(aiter(changes))
    assert (change.type, change.object["metadata"]["name"]) == ("ADDED", "later")
    assert "data" not in change.object


async def test_too_old_a_watch_expires(control_plane: ControlPlane, kube: KubeClient, namespace: str) -> None:
    """A watch from history that the server does not have raises Expired, so that the feed lists again."""
    await asyncio.to_thread(control_plane.restart_apiserver)  # Its cache of history begins anew.
    with pytest.raises(Expired):
        async for _ in kube.watch(SECRETS, namespace, since="1", server_timeout=5):
            pass


async def test_no_right_is_denied(control_plane: ControlPlane, namespace: str) -> None:
    """Without RBAC rights the error is AccessDenied with a remedy."""
    kubeconfig: Path = control_plane.kubeconfig_for("nobody")
    async with KubeClient(load_kubeconfig(kubeconfig), user_agent="test") as kube:
        with pytest.raises(AccessDenied, match="RBAC"):
            await kube.get(SECRETS, namespace, "s")


async def test_what_the_api_server_is(kube: KubeClient) -> None:
    """Its version as numbers, and whether it serves a kind: also of a group or version that it does not know."""
    major, minor = await kube.version()
    assert (major, minor) >= (1, 30)
    assert await kube.serves(Resource("certificates.k8s.io", "v1", "certificatesigningrequests", ""))
    assert not await kube.serves(Resource("certificates.k8s.io", "v1", "nothing", ""))
    assert not await kube.serves(Resource("certificates.k8s.io", "v9", "certificatesigningrequests", ""))
    assert not await kube.serves(Resource("nobody.example", "v1", "nothing", ""))
