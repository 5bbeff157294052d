"""Validation at admission: the real API server asks it over TLS, with real rules and a real (fake) KMS behind it."""

import asyncio
import base64
import copy
import json
import os
import random
import secrets
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kmseal.cluster.feed import Feed
from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.names import Backoff
from kmseal.cluster.opening import GuardedKeyring
from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value
from kmseal.fakekms import OPERATOR_ACTIONS
from kmseal.fakekms.faults import Fault, FaultKind, throttling
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import KMS_KEYS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.redacted import Redacted
from kmseal_dev.certificates import Authority
from kmseal_dev.controlplane import ControlPlane
from kmseal_webhook.admission import make_handler
from kmseal_webhook.trial import Trial
from kmseal_webhook.validation import Validation

Json = dict[str, Any]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
DEADLINE = 30.0


class Admission:
    """One namespace, a fake KMS, and a webhook for the namespace's EncryptedSecrets."""

    def __init__(self, control_plane: ControlPlane, namespace: str, kms: FakeKms, folder: Path) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.kms = kms
        self.key = kms.create_key()
        self.reviews = 0
        self.denied = False
        """Whether the webhook may not decrypt."""
        self._folder = folder
        self._developer = kms.add_identity("developer", ("GenerateDataKey",))

    def keyring(self, identity: Any) -> Keyring:
        environment = {
            "HOME": "/nonexistent",
            "KMSEAL_KMS_ENDPOINT": f"cn-hangzhou={self.kms.endpoint()}",
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "KMSEAL_KMS_BREAKER_SECONDS": "0.3",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }
        return Keyring(KmsSettings.from_environment(environment), environment)

    async def start(self, stack: AsyncExitStack, mode: Mode = Mode.OPEN, *, trial: bool = False) -> None:
        """Serves, registers, and waits until the API server asks."""
        kube = await stack.enter_async_context(
            KubeClient(load_kubeconfig(self.control_plane.kubeconfig), user_agent="validation-test")
        )
        keys = Keys(mode, Listeners(lambda keys: None, lambda namespace: None, lambda name: None))
        feed = Feed(
            kube, KMS_KEYS, keys, namespace=None, backoff=Backoff(0.1, 1.0, random.random), clock=time.monotonic
        )  # fmt: skip
        task = asyncio.create_task(feed.run())
        stack.callback(task.cancel)
        await feed.synced.wait()
        identity = self.kms.add_identity("webhook", ("DescribeKey",) if self.denied else OPERATOR_ACTIONS)
        keyring = await stack.enter_async_context(self.keyring(identity))
        guarded = GuardedKeyring(keyring, keys, lambda key_id: None, lambda key_id: None)
        opened = Trial(guarded, clock=time.monotonic, on_unwrap=lambda seconds: None) if trial else None
        validation = Validation(keys, reader=kube, trial=opened)
        await self._serve(stack, validation)
        probe = self.altered(await self.seal("probe", {"a": b"x"}), namespace="elsewhere")
        deadline = time.monotonic() + DEADLINE
        while not self.reviews:
            assert time.monotonic() < deadline, "the API server does not ask"
            await self.create(probe, dry_run=True)
        self.reviews = 0

    async def _serve(self, stack: AsyncExitStack, validation: Validation) -> None:
        def observe(name: str, answer: object, seconds: float) -> None:
            self.reviews += 1

        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_post(
            "/validate", make_handler(validation.review, name="validate", clock=time.monotonic, observer=observe)
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        authority = Authority()
        pair = authority.serving("127.0.0.1")
        chain = self._folder / "serving.pem"
        chain.write_bytes(pair.public + pair.private)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(chain)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/validate"
        name = f"validate-{self.namespace}"
        body = {
            "metadata": {"name": name},
            "webhooks": [
                {
                    "name": "encryptedsecrets.kmseal.dev",
                    "clientConfig": {"url": url, "caBundle": base64.b64encode(authority.certificate).decode()},
                    "rules": [
                        {
                            "apiGroups": ["kmseal.dev"], "apiVersions": ["v1alpha1"], "resources": ["encryptedsecrets"],
                            "operations": ["CREATE", "UPDATE", "DELETE"],
                        }
                    ],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 5,
                }
            ],
        }  # fmt: skip
        answer = await self.request("POST", CONFIGURATIONS, body)
        assert answer.status == 201, answer.body
        stack.push_async_callback(self.request, "DELETE", f"{CONFIGURATIONS}/{name}")

    async def seal(self, name: str, values: Mapping[str, bytes], **spec: Any) -> Json:
        """A manifest, sealed by an identity that may only GenerateDataKey."""
        place, id_ = Place.of(Scope.STRICT, self.namespace, name), DataKeyId(secrets.token_hex(4))
        async with self.keyring(self._developer) as keyring:
            fresh = await keyring.generate(self.key, place.encryption_context())
        lines = {n: encrypt_value(fresh.data_key, id_, place, n, Redacted(v)).line() for n, v in values.items()}
        data_keys = [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [fresh.wrapping.to_dict()]}]
        return {
            "apiVersion": "kmseal.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"scope": "Strict", "dataKeys": data_keys, "encryptedData": lines, **spec},
        }

    def altered(self, manifest: Json, *, namespace: str = "", wrapped: str = "") -> Json:
        """A copy whose data key claims another namespace, or has another wrapping."""
        copied = copy.deepcopy(manifest)
        data_key = copied["spec"]["dataKeys"][0]
        if namespace:
            data_key["sealedFor"] = f"{namespace}/{manifest['metadata']['name']}"
        if wrapped:
            data_key["wrappings"][0]["wrapped"] = wrapped
        return copied

    # -- as a user

    async def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        return await asyncio.to_thread(self.control_plane.request, method, path, body, content_type=content_type)

    def path(self, name: str = "") -> str:
        return f"/apis/kmseal.dev/v1alpha1/namespaces/{self.namespace}/encryptedsecrets" + (f"/{name}" if name else "")

    async def create(self, manifest: Json, *, dry_run: bool = False) -> Any:
        return await self.request("POST", self.path() + ("?dryRun=All" if dry_run else ""), manifest)

    async def merge(self, name: str, patch: Json, subresource: str = "") -> Any:
        return await self.request(
            "PATCH", self.path(name) + subresource, patch, content_type="application/merge-patch+json"
        )


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


@pytest.fixture
async def admission(
    control_plane: ControlPlane, crds: None, namespace: str, stack: AsyncExitStack, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Admission:  # fmt: skip
    """A namespace with a fake KMS; the webhook is not started yet."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    kms = await stack.enter_async_context(FakeKms(regions=("cn-hangzhou",)))
    return Admission(control_plane, namespace, kms, tmp_path)


async def test_a_refusal_reaches_the_user_with_field_and_remedy(admission: Admission, stack: AsyncExitStack) -> None:
    """What the schema lets pass: ciphertext that was sealed for another namespace."""
    await admission.start(stack)
    good = await admission.seal("db", {"password": b"x"})
    answer = await admission.create(admission.altered(good, namespace="elsewhere"))
    assert answer.status == 403
    assert (answer.body["reason"], answer.body["kind"]) == ("NamespaceMismatch", "Status")
    assert "denied the request: spec.dataKeys[0].sealedFor: " in answer.body["message"]
    assert "; " in answer.body["message"]
    assert (await admission.create(good)).status == 201


async def test_warnings_reach_the_user(admission: Admission, stack: AsyncExitStack) -> None:
    """As kubectl shows them: a name that no variable can have, and another object that makes the same Secret."""
    await admission.start(stack)
    assert (await admission.create(await admission.seal("shared", {"a": b"x"}))).status == 201
    answer = await admission.create(await admission.seal("db", {"1st": b"x"}, target={"name": "shared"}))
    assert answer.status == 201
    stderr = await asyncio.to_thread(_create_with_kubectl, admission, await admission.seal("other", {"1st": b"x"}))
    assert 'Warning: spec.encryptedData["1st"]: no environment variable can have this name' in stderr
    answer = await admission.merge("other", {"spec": {"target": {"name": "shared"}}})
    assert answer.status == 200
    assert "spec.target.name: the EncryptedSecret shared makes a Secret of this name" in answer.headers["Warning"]


async def test_an_object_from_before_can_be_labelled_reported_on_and_deleted(
    admission: Admission, stack: AsyncExitStack
) -> None:
    """It is wrong and was stored before there was a webhook; only a change of its spec has to correct it."""
    wrong = admission.altered(await admission.seal("db", {"password": b"x"}), namespace="elsewhere")
    assert (await admission.create(wrong)).status == 201
    await admission.start(stack)
    metadata = {"labels": {"a": "b"}, "finalizers": ["kmseal.test/wait"]}
    assert (await admission.merge("db", {"metadata": metadata})).status == 200
    assert (await admission.merge("db", {"status": {"observedGeneration": 1}}, "/status")).status == 200
    refused = await admission.merge("db", {"spec": {"suspend": True}})
    assert refused.status == 403
    assert "spec.dataKeys[0].sealedFor" in refused.body["message"]
    assert (await admission.request("DELETE", admission.path("db"))).status == 200
    assert (await admission.merge("db", {"metadata": {"finalizers": None}})).status == 200
    assert (await admission.request("GET", admission.path("db"))).status == 404


async def test_the_rules_of_kmskeys_are_those_of_the_cluster(admission: Admission, stack: AsyncExitStack) -> None:
    """In registered mode a key is refused until a KMSKey allows it, and the object can be suspended afterwards."""
    await admission.start(stack, Mode.REGISTERED)
    manifest = await admission.seal("db", {"password": b"x"})
    refused = await admission.create(manifest)
    assert (refused.status, refused.body["reason"]) == (403, "KeyNotRegistered")
    assert f"spec.dataKeys[0]: {admission.key} is not registered" in refused.body["message"]
    name = f"key-{admission.namespace}"
    kmskeys = "/apis/kmseal.dev/v1alpha1/kmskeys"
    kmskey = {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "KMSKey",
        "metadata": {"name": name},
        "spec": {"keyId": admission.key, "allowedNamespaces": {"names": ["elsewhere"]}},
    }
    assert (await admission.request("POST", kmskeys, kmskey)).status == 201
    stack.push_async_callback(admission.request, "DELETE", f"{kmskeys}/{name}")
    assert await _reason(admission, manifest, "NamespaceNotAllowed")
    allowed = {"spec": {"allowedNamespaces": {"names": [admission.namespace]}}}
    assert (
        await admission.request("PATCH", f"{kmskeys}/{name}", allowed, content_type="application/merge-patch+json")
    ).status == 200
    assert await _reason(admission, manifest, "")
    assert (await admission.create(manifest)).status == 201
    assert (await admission.request("DELETE", f"{kmskeys}/{name}")).status == 200
    assert await _reason(admission, await admission.seal("new", {"a": b"x"}), "KeyNotRegistered")
    assert (await admission.merge("db", {"spec": {"suspend": True}})).status == 200


async def test_what_does_not_open_is_refused_by_a_trial(admission: Admission, stack: AsyncExitStack) -> None:
    """One unwrap for what opens; a wrapping that is another object's is found, and nothing of a value is told."""
    await admission.start(stack, trial=True)
    good = await admission.seal("db", {"password": b"correct-horse"})
    other = await admission.seal("other", {"password": b"battery-staple"})
    before = admission.kms.calls["Decrypt"]
    assert (await admission.create(good)).status == 201
    assert admission.kms.calls["Decrypt"] == before + 1
    foreign = other["spec"]["dataKeys"][0]["wrappings"][0]["wrapped"]
    refused = await admission.create(admission.altered(await admission.seal("third", {"a": b"x"}), wrapped=foreign))
    assert (refused.status, refused.body["reason"]) == (403, "KmsRefused")
    assert "spec.dataKeys[0]: " in refused.body["message"]
    assert foreign not in refused.body["message"]
    assert "battery" not in str(refused.body)


async def test_a_trial_costs_nothing_where_data_keys_stay(admission: Admission, stack: AsyncExitStack) -> None:
    """Labels, targets and values may change without a call to KMS."""
    await admission.start(stack, trial=True)
    assert (await admission.create(await admission.seal("db", {"a": b"x", "b": b"y"}))).status == 201
    before = admission.kms.calls["Decrypt"]
    for patch in (
        {"metadata": {"labels": {"a": "b"}}},
        {"spec": {"target": {"labels": {"a": "b"}}}},
        {"spec": {"encryptedData": {"b": None}}},
    ):
        assert (await admission.merge("db", patch)).status == 200
    assert (await admission.request("DELETE", admission.path("db"))).status == 200
    assert admission.kms.calls["Decrypt"] == before


@pytest.mark.parametrize(
    "fault",
    [throttling("Decrypt"), Fault(FaultKind.RESET, ("Decrypt",)), Fault(FaultKind.LATENCY, ("Decrypt",), seconds=30.0)],
    ids=["throttling", "reset", "latency"],
)
async def test_a_fault_of_kms_never_refuses(admission: Admission, stack: AsyncExitStack, fault: Fault) -> None:
    """The object is admitted with a warning, within the time that the API server grants."""
    await admission.start(stack, trial=True)
    manifest = await admission.seal("db", {"password": b"x"})
    admission.kms.faults.add(fault)
    started = time.monotonic()
    answer = await admission.create(manifest)
    assert (answer.status, time.monotonic() - started < 5.0) == (201, True)
    assert "spec.dataKeys" in answer.headers["Warning"]


async def test_a_key_that_is_disabled_refuses_nothing(admission: Admission, stack: AsyncExitStack) -> None:
    """It is the kill switch, not a mistake of the object, which heals when the key is enabled."""
    await admission.start(stack, trial=True)
    manifest = await admission.seal("db", {"password": b"x"})
    admission.kms.disable(admission.key)
    answer = await admission.create(manifest)
    assert answer.status == 201
    assert "spec.dataKeys[0]" in answer.headers["Warning"]


async def test_a_right_that_kms_denies_refuses(admission: Admission, stack: AsyncExitStack) -> None:
    """The webhook's identity may not decrypt with this key, so that nothing here can open the object."""
    admission.denied = True
    await admission.start(stack, trial=True)
    refused = await admission.create(await admission.seal("db", {"password": b"x"}))
    assert refused.status == 403
    assert "spec.dataKeys[0]: " in refused.body["message"]


async def _reason(admission: Admission, manifest: Json, expected: str) -> bool:
    """Whether a creation is refused for this reason, as soon as the feed has seen the KMSKey; empty: not refused."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        answer = await admission.create(manifest, dry_run=True)
        if (answer.body.get("reason", "") if answer.status >= 400 else "") == expected:
            return True
        await asyncio.sleep(0.02)
    return False


def _create_with_kubectl(admission: Admission, manifest: Json) -> str:
    """What kubectl prints on standard error."""
    done = subprocess.run(
        [admission.control_plane.programs.kubectl, "create", "-f", "-"],
        input=json.dumps(manifest), capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "KUBECONFIG": str(admission.control_plane.kubeconfig), "KUBERC": "off"},
    )  # fmt: skip
    return done.stderr
