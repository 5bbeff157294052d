"""Nodes as a real API server lists them, under rbac.yaml: with an old kubelet among them, no pod is given variables."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kmseal.envelope import Place, Scope, encode_base64, encrypt_value, new_data_key_id
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted

Json = dict[str, Any]
NODES = "/api/v1/nodes"
GROUP = "/apis/kmseal.dev/v1alpha1"


def sealed(namespace: str) -> Json:
    """An EncryptedSecret ``db`` that nobody here opens."""
    place, id_ = Place.of(Scope.STRICT, namespace, "db"), new_data_key_id()
    line = encrypt_value(Redacted(bytes(32)), id_, place, "PASSWORD", Redacted(b"x")).line()
    wrapping = {
        "keyId": "local:test", "keyVersionId": "1", "algorithm": "LOCAL_AES_256_GCM",
        "wrapped": encode_base64(bytes(60)),
    }  # fmt: skip
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [wrapping]}],
            "encryptedData": {"PASSWORD": line},
        },
    }


@pytest.fixture
async def old_node(site: Any) -> AsyncIterator[str]:
    """A node whose kubelet does not know env files, beside one that does."""
    names = []
    for version in ("v1.36.1", "v1.34.2-aliyun.1"):
        name = f"node-{secrets.token_hex(4)}"
        node = await site.send("POST", NODES, {"metadata": {"name": name}})
        node["status"] = {"nodeInfo": {**node["status"]["nodeInfo"], "kubeletVersion": version}}
        await site.send("PUT", f"{NODES}/{name}/status", node)
        names.append(name)
    yield names[-1]
    for name in names:
        await site.request("DELETE", f"{NODES}/{name}")


async def test_variables_wait_until_every_node_knows_them(site: Any, old_node: str) -> None:
    """The API server alone would admit the pod; its old kubelet would start it without its variables."""
    await site.send("POST", f"{GROUP}/namespaces/{site.namespace}/encryptedsecrets", sealed(site.namespace))
    variables = {"kmseal.dev/inject": "db", "kmseal.dev/as": "env"}
    await site.start()
    answer = await site.create_pod(variables)
    assert answer.status == 403, answer.body
    assert "the oldest node has 1.34" in answer.body["message"]
    assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201


async def test_variables_where_every_node_knows_them(site: Any) -> None:
    """Under the rights of rbac.yaml the nodes are read, and nothing stands in the way."""
    await site.send("POST", f"{GROUP}/namespaces/{site.namespace}/encryptedsecrets", sealed(site.namespace))
    await site.start()
    answer = await site.create_pod({"kmseal.dev/inject": "db", "kmseal.dev/as": "env"})
    assert answer.status == 201, answer.body
