"""Two ports: API servers ask at the one, agents at the other, and neither is served at the wrong door."""

import asyncio
import secrets
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kmseal_webhook.authority import make_authority
from kmseal_webhook.gate import Patience

Json = dict[str, Any]
NAME = "kmseal-webhook.kmseal-system.svc"
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "forged", "operation": "CREATE", "namespace": "kube-system", "kind": {"kind": "Pod"},
        "object": {"metadata": {"annotations": {"kmseal.dev/inject": "db"}}},
    },
}  # fmt: skip


async def post(site: Any, port: int, path: str, body: Json) -> int:
    """As a pod would, which trusts what pods are given; the status."""
    trust = ssl.create_default_context(cadata=(await site.trust_bundle()).decode())
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.post(f"https://127.0.0.1:{port}{path}", json=body, server_hostname=NAME) as answer,
    ):
        return answer.status


async def test_reviews_are_answered_at_one_port_and_grants_at_the_other(site: Any) -> None:
    """A NetworkPolicy that shuts pods out of the one shuts them out of reviews."""
    webhook = await site.start()
    for path in ("/mutate", "/validate"):
        assert await post(site, webhook.broker_port, path, REVIEW) == 404
    assert await post(site, webhook.port, "/v1/decrypt", {"secrets": ["db"]}) == 404
    assert await post(site, webhook.broker_port, "/v1/decrypt", {"secrets": ["db"]}) == 401
    assert site.admissions(webhook) == 0


async def test_a_forged_review_is_not_answered_where_client_certificates_are_asked_for(
    site: Any, tmp_path: Path
) -> None:
    """A pod cannot ask about another namespace; agents, which show no certificate, are served as ever."""
    (tmp_path / "ca").write_bytes(make_authority(datetime.now(UTC), timedelta(days=1)).certificate.pem)
    webhook = await site.start(admission_client_ca=tmp_path / "ca")
    for path in ("/mutate", "/validate"):
        with pytest.raises(aiohttp.ClientError):
            await post(site, webhook.port, path, REVIEW)
    assert site.admissions(webhook, "mutate") + site.admissions(webhook, "validate") == 0
    assert await site.ask_broker(await site.ca_bundle(), webhook.broker_port) == 401


async def test_pods_that_fill_the_port_for_agents_stop_no_admission(site: Any) -> None:
    """Every place of the broker is taken, and a pod that asks for injection is still created."""
    webhook = await site.start(broker_patience=Patience(connections=3, address_connections=3))
    trust = ssl.create_default_context(cadata=(await site.trust_bundle()).decode())
    taken = [
        await asyncio.open_connection("127.0.0.1", webhook.broker_port, ssl=trust, server_hostname=NAME)
        for _ in range(4)
    ]
    async with asyncio.timeout(3):
        assert await taken[-1][0].read() == b""
    assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201
    labels = {"port": "broker", "reason": "connections"}
    assert webhook.metrics.registry.get_sample_value("kmseal_connections_refused_total", labels) == 1
    for _, writer in taken:
        writer.transport.abort()


async def test_pods_that_cannot_be_listed_do_not_keep_it_from_being_ready(site: Any) -> None:
    """Missed pods are only told of: without the right to look for them, everything else is done."""
    user = f"no-pods-{secrets.token_hex(4)}"
    rules = [
        {"apiGroups": [""], "resources": ["secrets", "namespaces", "nodes"], "verbs": ["*"]},
        {
            "apiGroups": ["kmseal.dev", "admissionregistration.k8s.io", "certificates.k8s.io"],
            "resources": ["*"], "verbs": ["*"],
        },
    ]  # fmt: skip
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await site.send("POST", f"{rbac}/clusterroles", {"metadata": {"name": user}, "rules": rules})
    await site.send("POST", f"{rbac}/clusterrolebindings", {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user}],
    })  # fmt: skip
    kubeconfig = await asyncio.to_thread(site.control_plane.kubeconfig_for, user)
    await site.start(kubeconfig=str(kubeconfig), missed="evict")
    assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201
