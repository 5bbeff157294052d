"""Certificates in a real cluster: made, raced for, renewed under load, repaired; nobody is ever refused for them."""

import asyncio
import itertools
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from kmseal.errors import Conflict
from kmseal.kube import KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal_webhook.authority import issue, make_authority
from kmseal_webhook.own import OwnSource
from kmseal_webhook.rollover import Terms
from kmseal_webhook.tlssecret import TlsSecret

NAME = "kmseal-webhook.kmseal-system.svc"
OURS, TLS_SECRET = "kmseal-system", "kmseal-webhook-tls"
SHORT = Terms(
    authority=timedelta(seconds=24), leaf=timedelta(seconds=8), settle=timedelta(seconds=1),
    overlap=timedelta(seconds=1), spread=0.02,
)  # fmt: skip


def certificates(pem: bytes) -> list[bytes]:
    return [item.fingerprint(item.signature_hash_algorithm) for item in x509.load_pem_x509_certificates(pem)]  # type: ignore[arg-type]  # Ours have one.


async def test_the_cluster_is_told_of_a_new_authority(site: Any) -> None:
    """Under rbac.yaml and nothing else: the Secret, caBundle of both configurations and the trust bundle, all alike."""
    webhook = await site.start()
    secret = await site.secret()
    assert secret["type"] == "kubernetes.io/tls"
    bundle = secret["data"]["ca.crt"]
    assert len(certificates(bundle)) == 2
    assert await site.ca_bundle() == await site.ca_bundle("validatingwebhookconfigurations") == bundle
    assert await site.trust_bundle() == bundle
    assert webhook._certificates.ca_pem().encode() == bundle
    assert webhook._certificates.serves_trust_bundle
    leaf = x509.load_pem_x509_certificate(secret["data"]["tls.crt"])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {
        NAME,
        f"{NAME}.cluster.local",
        "kmseal-webhook.kmseal-system",
    }
    assert await site.ask_broker(bundle) == 401


async def test_what_is_in_order_is_not_written_again(site: Any) -> None:
    """Many looks by two replicas change no resource version."""
    first, second = await site.start(look_seconds=0.05), await site.start(look_seconds=0.05)

    async def versions() -> list[str]:
        objects = [
            await site.secret(),
            await site.configuration(),
            await site.configuration("validatingwebhookconfigurations"),
        ]
        return [item["metadata"]["resourceVersion"] for item in objects]

    before, looks = await versions(), first.metrics.registry
    await asyncio.sleep(1.0)
    assert await versions() == before
    written = [
        sample
        for metric in (*looks.collect(), *second.metrics.registry.collect())
        for sample in metric.samples
        if sample.name == "kmseal_api_writes_total" and sample.labels["resource"] == "secrets"
    ]
    assert sum(sample.value for sample in written) == 1


async def test_leaf_and_authority_are_renewed_under_load_and_nobody_notices(site: Any, traffic: Any) -> None:
    """Two replicas go through three authorities and more leaves, while pods are made and grants asked for.

    New connections of clients that know only what is published at that moment; not one fails.
    """
    for _ in range(2):
        await site.start(terms=SHORT)
    leaves, signers = set(), set()
    async with traffic(site) as load:

        async def seen() -> bool:
            data = (await site.secret())["data"]
            leaves.update(certificates(data["tls.crt"]))
            signers.add(certificates(data["ca.crt"])[0])
            return len(signers) >= 3 and len(leaves) >= 5

        await site.until(seen, 90.0)
    assert load.pods > 50
    assert load.grants > 50


async def test_a_pod_that_knows_an_old_bundle_is_answered_after_the_next_renewal(site: Any) -> None:
    """Without trust bundles a pod has what was the bundle when it was made: the authority after that one is in it."""
    await site.start(terms=SHORT)
    known = await site.ca_bundle()
    signer = certificates(known)[0]

    async def renewed() -> bool:
        return certificates(await site.ca_bundle())[0] != signer

    await site.until(renewed)
    await asyncio.sleep(SHORT.settle.total_seconds() + 1.0)
    assert await site.ask_broker(known) == 401


@pytest.mark.parametrize("attempt", range(3))
async def test_replicas_that_start_at_once_end_with_one_authority(site: Any, attempt: int) -> None:
    """Whoever comes first makes it; the others read it. All serve the same, and the cluster trusts it."""
    replicas = [await site.begin() for _ in range(4)]
    for replica in replicas:
        await asyncio.wait_for(replica.ready.wait(), 30)
    bundle = (await site.secret())["data"]["ca.crt"]
    assert await site.ca_bundle() == bundle
    for replica in replicas:
        assert replica._certificates.ca_pem().encode() == bundle
        assert await site.ask_broker(bundle, replica.broker_port) == 401


async def test_replicas_that_renew_at_once_end_with_one_authority(site: Any) -> None:
    """Each sees that the authority is due, and one write wins; the losers take what the winner made."""
    now = datetime.now(UTC)
    terms = Terms()
    async with KubeClient(load_kubeconfig(site.kubeconfig), user_agent="race") as kube:
        secret = TlsSecret(kube, OURS, TLS_SECRET)
        sources = [OwnSource(secret, [NAME], terms=terms, now=lambda: now, chance=0.0) for _ in range(5)]
        first = {material.bundle for material in await asyncio.gather(*(source.current() for source in sources))}
        assert len(first) == 1
        now += terms.authority * 0.7
        second = {material.bundle for material in await asyncio.gather(*(source.current() for source in sources))}
        assert len(second) == 1
        ((before,), (after,)) = first, second
        assert certificates(after)[0] == certificates(before)[1]
        found = await secret.read()
        assert found
        assert found.chain
        await secret.write(replace(found.chain, former_until=now), found)
        for stale in (found, None):
            with pytest.raises(Conflict):
                await secret.write(found.chain, stale)


def foreign() -> dict[str, bytes | None]:
    """Somebody else's certificate, for our names."""
    now = datetime.now(UTC)
    leaf = issue(make_authority(now, timedelta(days=9)), [NAME], now, timedelta(days=9))
    return {"tls.crt": leaf.certificate.pem, "tls.key": leaf.key.reveal()}


def expired(names: list[str], lifetime: timedelta) -> dict[str, bytes | None]:
    """A chain of ours, as it is after that time."""
    made = datetime.now(UTC) - timedelta(days=90)
    signer, successor = make_authority(made, timedelta(days=900)), make_authority(made, timedelta(days=900))
    leaf = issue(signer, names, made, lifetime)
    return {
        "tls.crt": leaf.certificate.pem, "tls.key": leaf.key.reveal(),
        "ca.crt": signer.certificate.pem + successor.certificate.pem,
        "ca.key": signer.key.reveal(), "ca-next.key": successor.key.reveal(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        foreign(),
        expired([NAME], timedelta(days=89)),
        expired(["other.svc"], timedelta(days=1000)),
        {"ca.key": None},
        {"tls.key": b"nonsense"},
        {"ca.crt": b""},
    ],
    ids=["foreign leaf", "expired leaf", "wrong names", "no key", "no PEM", "nothing trusted"],
)
async def test_a_secret_that_is_not_right_is_put_right(
    site: Any, traffic: Any, damage: dict[str, bytes | None]
) -> None:
    """While it is served, and before a replica starts; the replica that runs goes on with what it has."""
    await site.start()
    async with traffic(site) as load:
        await site.until(lambda: load.pods > 2 and load.grants > 2)
        await site.change_secret(damage)

        async def healed() -> bool:
            data = (await site.secret())["data"]
            return bool(data.get("tls.crt")) and await verifies(data) and not damage.items() <= data.items()

        await site.until(healed)
        before = load.pods
        await site.until(lambda: load.pods > before + 5)
    site.front.replicas.clear()
    await site.change_secret(damage)
    late = await site.start()
    assert await site.ask_broker(await site.ca_bundle(), late.broker_port) == 401


async def verifies(data: dict[str, bytes]) -> bool:
    leaf = x509.load_pem_x509_certificate(data["tls.crt"])
    for authority in x509.load_pem_x509_certificates(data["ca.crt"] or data["tls.crt"]):
        try:
            leaf.verify_directly_issued_by(authority)
        except Exception:  # noqa: BLE001, S112  # Whatever it says: it is not this one.
            continue
        return leaf.not_valid_after_utc > datetime.now(UTC)
    return False


async def test_deleting_the_secret_makes_a_new_authority_without_a_failure(site: Any, traffic: Any) -> None:
    """The way to be rid of an authority whose key has leaked: in the end nobody trusts it any more."""
    for _ in range(2):
        await site.start()
    old = await site.ca_bundle()
    async with traffic(site):
        await site.send("DELETE", site.path("secrets", TLS_SECRET))

        async def is_forgotten() -> bool:
            return not set(certificates(old)) & set(certificates(await site.ca_bundle()))

        await site.until(is_forgotten)
    assert not set(certificates(old)) & set(certificates(await site.trust_bundle()))


async def test_somebody_who_takes_the_bundle_away_gets_it_back(site: Any) -> None:
    """An applier that overwrites caBundle, or deletes the trust bundle, is put right at the next look."""
    await site.start()
    bundle = await site.ca_bundle()
    configuration = await site.configuration()
    del configuration["webhooks"][0]["clientConfig"]["caBundle"]
    await site.send("PUT", site.path("mutatingwebhookconfigurations") + "/kmseal-webhook", configuration)
    await site.send("DELETE", site.path("clustertrustbundles", "kmseal.dev:broker:ca"))

    async def restored() -> bool:
        trust = await site.request("GET", site.path("clustertrustbundles", "kmseal.dev:broker:ca"))
        return bool(trust.status == 200 and await site.ca_bundle() == bundle)

    await site.until(restored)


@pytest.mark.parametrize("way", ["files", "cert-manager"])
async def test_mounted_certificates_are_served_and_renewed(site: Any, tmp_path: Any, way: str) -> None:
    """Changed files are served without a restart; caBundle is ours to patch for files, and cert-manager's otherwise."""
    flags = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key", "tls_ca": tmp_path / "ca.crt"}
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=9))

    def write() -> None:
        leaf = issue(authority, [NAME], now, timedelta(days=1))
        flags["tls_ca"].write_bytes(authority.certificate.pem)
        flags["tls_cert"].write_bytes(leaf.certificate.pem)
        flags["tls_key"].write_bytes(leaf.key.reveal())

    begun = await site.begin(certificates=way, **flags)
    await asyncio.sleep(0.5)
    assert not begun.ready.is_set()  # cert-manager may come later.
    write()
    await asyncio.wait_for(begun.ready.wait(), 30)
    expiry = begun._certificates.expires_at
    assert await site.ca_bundle() == (authority.certificate.pem if way == "files" else b"")
    assert await site.trust_bundle() == authority.certificate.pem
    now += timedelta(minutes=30)  # Less than what certificates are backdated by.
    write()
    await site.until(lambda: begun._certificates.expires_at > expiry)
    assert await site.ask_broker(authority.certificate.pem) == 401
    if way == "files":
        assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201


async def test_without_the_right_to_a_trust_bundle_pods_get_a_variable(site: Any) -> None:
    """A cluster that serves none, or does not let us keep one, is no obstacle."""
    user = f"no-attest-{secrets.token_hex(4)}"
    rules = [
        {"apiGroups": [""], "resources": ["secrets", "namespaces", "pods"], "verbs": ["*"]},
        {"apiGroups": ["kmseal.dev", "admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]},
    ]
    role = {"metadata": {"name": user}, "rules": rules}
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await site.send("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    await site.send("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    kubeconfig = await asyncio.to_thread(site.control_plane.kubeconfig_for, user)
    webhook = await site.start(kubeconfig=str(kubeconfig))
    assert not webhook._certificates.serves_trust_bundle
    pod = (await site.create_pod({"kmseal.dev/inject": "db"})).body
    variables = itertools.chain.from_iterable(item.get("env", []) for item in pod["spec"]["initContainers"])
    given = {item["name"]: item.get("value", "") for item in variables}
    assert given["KMSEAL_CA"].encode() == await site.ca_bundle()
    assert await site.ask_broker(given["KMSEAL_CA"].encode()) == 401
