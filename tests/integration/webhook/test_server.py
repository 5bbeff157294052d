"""The API server calls the webhook over TLS: which pods cause a call, what a refusal says, and rolling updates."""

from typing import Any

import aiohttp

from kmseal.envelope import Place, Scope, encode_base64, encrypt_value, new_data_key_id
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted

Json = dict[str, Any]
INJECT = {"kmseal.dev/inject": "db"}


async def test_an_annotated_pod_is_injected_by_way_of_the_patched_bundle(site: Any) -> None:
    """The API server trusts what the webhook wrote into caBundle, and the pod comes out with our containers."""
    webhook = await site.start()
    answer = await site.create_pod(INJECT)
    assert answer.status == 201, answer.body
    assert answer.body["spec"]["initContainers"][0]["name"] == "kmseal-init"
    volume = next(item for item in answer.body["spec"]["volumes"] if item["name"] == "kmseal-token")
    assert volume["projected"]["sources"][1]["clusterTrustBundle"]["signerName"] == "kmseal.dev/broker"
    assert site.admissions(webhook) >= 1


async def test_a_pod_without_the_annotation_causes_no_call(site: Any) -> None:
    """Nor does one that has only what we write ourselves, nor one of an excluded namespace. It starts without us."""
    webhook = await site.start()
    for annotations in (None, {"other.dev/inject": "db"}, {"kmseal.dev/injected": "0" * 16}):
        assert (await site.create_pod(annotations)).status == 201
    ours, site.namespace = site.namespace, "kube-system"
    assert (await site.create_pod(INJECT)).status == 201
    site.namespace = ours
    assert site.admissions(webhook) == 0
    await site.drain(webhook)
    assert (await site.create_pod(None)).status == 201
    refused = await site.create_pod(INJECT)
    assert refused.status == 500
    assert "inject.kmseal.dev" in refused.body["message"]


async def test_a_mistake_in_an_annotation_is_told_to_whoever_makes_the_pod(site: Any) -> None:
    """The API server passes on the annotation, the value and the remedy."""
    await site.start()
    answer = await site.create_pod({**INJECT, "kmseal.dev/path": "relative"})
    assert answer.status == 403
    message = answer.body["message"]
    assert "metadata.annotations[kmseal.dev/path]" in message
    assert "relative" in message


async def test_an_encrypted_secret_is_judged_at_admission(site: Any) -> None:
    """What the CRD's schema cannot see refuses the object, naming the field; with no replica it is let through."""
    webhook = await site.start(keys="registered")
    path = f"/apis/kmseal.dev/v1alpha1/namespaces/{site.namespace}/encryptedsecrets"
    answer = await site.request("POST", path, sealed("db", site.namespace))
    assert answer.status == 403
    assert "spec.dataKeys[0]" in answer.body["message"]
    assert site.admissions(webhook, "validate", allowed=False) == 1
    await site.drain(webhook)
    assert (await site.request("POST", path, sealed("db", site.namespace))).status == 201


async def test_a_rolling_update_under_load_loses_no_request(site: Any, traffic: Any) -> None:
    """Replicas come and go one after the other, while pods are made and grants asked for all the time."""
    old = [await site.start() for _ in range(2)]
    async with traffic(site) as load:
        await site.until(lambda: load.pods > 5)
        for webhook in old:
            await site.start()
            await site.drain(webhook)
            before = load.pods, load.grants
            await site.until(lambda before=before: load.pods > before[0] + 5 and load.grants > before[1] + 5)


async def test_readiness_ends_at_once_and_listening_later(site: Any) -> None:
    """Endpoints are updated while connections that are still sent here are answered."""
    webhook = await site.start(drain_seconds=4.0)
    bundle = await site.ca_bundle()
    webhook.stop()
    await site.until(lambda: not_ready(webhook), 1.0)
    assert await site.ask_broker(bundle, webhook.broker_port) == 401


async def not_ready(webhook: Any) -> bool:
    address = f"http://127.0.0.1:{webhook.health_port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return answer.status == 503


def sealed(name: str, namespace: str) -> Json:
    """A good manifest, under a key that no KMSKey names."""
    place, id_ = Place.of(Scope.STRICT, namespace, name), new_data_key_id()
    line = encrypt_value(Redacted(bytes(32)), id_, place, "password", Redacted(b"x")).line()
    wrapping = {
        "keyId": "local:unregistered",
        "keyVersionId": "1",
        "algorithm": "LOCAL_AES_256_GCM",
        "wrapped": encode_base64(bytes(60)),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scope": Scope.STRICT.value,
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [wrapping]}],
            "encryptedData": {"password": line},
        },
    }
