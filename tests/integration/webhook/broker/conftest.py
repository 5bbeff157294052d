"""The broker over TLS against the real kube-apiserver and the fake KMS, as an identity with just its rights."""

import asyncio
import base64
import io
import json
import logging
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.opening import GuardedKeyring
from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value, new_data_key_id
from kmseal.errors import KmsealError
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, PODS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_dev.certificates import Authority
from kmseal_dev.controlplane import ControlPlane
from kmseal_webhook.audit import Audit
from kmseal_webhook.broker import Broker
from kmseal_webhook.limits import BrokerLimits

Json = dict[str, Any]
AUDIENCE = "kmseal.dev/broker"
CANARY = b"canary-7d1e0a93c4"
AGENT = "kmseal-broker-"
DEADLINE = 30.0
# What the chart has to grant, and no more: the tests fail where the broker needs another right.
RULES = [
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": ["kmseal.dev"], "resources": ["encryptedsecrets"], "verbs": ["get"]},
]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Json

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", "Granted"))

    def values(self, name: str) -> dict[str, bytes]:
        values = self.body["secrets"][name]["values"]
        return {value: base64.b64decode(text, validate=True) for value, text in values.items()}


@dataclass(frozen=True)
class Pod:
    """A pod that is there, or was."""

    namespace: str
    name: str
    uid: str
    account: str


class Desk:
    """One broker, one namespace, one fake KMS, and everything around that a request needs."""

    def __init__(self, control_plane: ControlPlane, namespace: str, kms: FakeKms, caplog: Any) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.kms = kms
        self.key = kms.create_key()
        self.identity = kms.add_identity("broker", ("Decrypt",))
        self._developer = kms.add_identity("developer", ("GenerateDataKey",))
        self.keys = Keys(Mode.OPEN, Listeners(lambda keys: None, lambda name: None, lambda name: None))
        self.trail = io.StringIO()
        self.answers: list[bytes] = []
        """Every refusal's body, for the search for values."""
        self.on_opened: Callable[[str], None] = lambda key: None
        self.port = 0
        self.agent = f"{AGENT}{namespace}"
        self._authority = Authority()
        self._caplog = caplog

    # -- the broker

    @asynccontextmanager
    async def serving(self, limits: BrokerLimits, folder: Any) -> AsyncIterator["Desk"]:
        pair = self._authority.serving("127.0.0.1")
        certificate = folder / "serving.pem"
        certificate.write_bytes(pair.public + pair.private)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        environment = self.environment(self.identity)
        async with AsyncExitStack() as stack:
            kube = await stack.enter_async_context(
                KubeClient(load_kubeconfig(await self._become_broker()), user_agent=self.agent)
            )
            keyring = await stack.enter_async_context(Keyring(KmsSettings.from_environment(environment), environment))
            broker = Broker(
                kube,
                GuardedKeyring(keyring, self.keys, self._opened, lambda key: None),
                limits,
                audit=Audit(self.trail, now=lambda: datetime.now(UTC)),
                clock=time.monotonic,
            )
            app = web.Application()
            app.router.add_route("*", "/v1/decrypt", broker.decrypt)
            # aiohttp reads on for as long after it has refused a body.
            runner = web.AppRunner(app, access_log=None, lingering_time=0.2)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            self.port = runner.addresses[0][1]
            yield self

    def _opened(self, key: str) -> None:
        self.on_opened(key)

    def environment(self, identity: Any) -> dict[str, str]:
        return {
            "HOME": "/nonexistent",
            "KMSEAL_KMS_ENDPOINT": self.kms.endpoint("cn-hangzhou"),
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "KMSEAL_KMS_BREAKER_SECONDS": "0.3",
            "KMSEAL_KMS_DEADLINE_SECONDS": "1",
            "KMSEAL_KMS_CRYPTO_PER_SECOND": "2000",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }

    async def _become_broker(self) -> Any:
        name = self.agent
        role = {"metadata": {"name": name}, "rules": RULES}
        await self.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        await self.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": name}],
        })  # fmt: skip
        kubeconfig = await asyncio.to_thread(self.control_plane.kubeconfig_for, name)
        async with KubeClient(load_kubeconfig(kubeconfig), user_agent="probe") as kube:
            await self.until(lambda: self._may(kube))
        return kubeconfig

    async def _may(self, kube: KubeClient) -> bool:
        """Whether the API server has learned of the role yet."""
        try:
            await kube.review(TOKEN_REVIEWS, {"token": "x"})
            await kube.review(SUBJECT_ACCESS_REVIEWS, {
                "user": "x", "resourceAttributes": {"verb": "get", "resource": "pods"}
            })  # fmt: skip
            async for _ in kube.pages(PODS, self.namespace):
                pass
            await kube.get(ENCRYPTED_SECRETS, self.namespace, "x")
        except KmsealError:
            return False
        return True

    # -- requests

    async def ask(
        self, token: str, names: Sequence[str] = ("db",), *, body: Any = None, method: str = "POST",
        headers: Mapping[str, str] | None = None, address: str = "127.0.0.1",
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own, from any address of the loopback network."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=self.trust())
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **(headers or {})}
        data = json.dumps({"secrets": list(names)}).encode() if body is None else body
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method, f"https://127.0.0.1:{self.port}/v1/decrypt", data=data,
                headers={name: text for name, text in sent.items() if text},
            ) as answer,
        ):  # fmt: skip
            content = await answer.read()
            if answer.status != 200:
                self.answers.append(content)
            assert answer.content_type == "application/json", content
            assert answer.headers["Cache-Control"] == "no-store"
            return Answer(answer.status, answer.headers, json.loads(content))

    async def raw(self, content: bytes) -> bytes:
        """Sends bytes as they are, and reads until the broker closes the connection."""
        reader, writer = await self.connect()
        writer.write(content)
        await writer.drain()
        async with asyncio.timeout(DEADLINE):
            received = await reader.read()
        writer.close()
        self.answers.append(received)
        return received

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust())

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self._authority.certificate.decode())

    def lines(self) -> list[Json]:
        """The audit trail."""
        return [json.loads(line) for line in self.trail.getvalue().splitlines()]

    async def denied(self, answer: Answer, status: int, reason: str, *, kms: int = 0, wipe: bool = False) -> Json:
        """Holds for every attack: status, reason, no call of KMS, one line of the audit, and no value anywhere."""
        assert (answer.status, answer.reason) == (status, reason), answer.body
        assert set(answer.body) == {"reason", "message", "retry", "wipe"}
        assert answer.body["wipe"] is wipe
        line = self.lines()[-1]
        assert (line["decision"], line["reason"], line["status"]) == ("deny", reason, status)
        assert line["logger"] == "kmseal_webhook.audit"
        assert self.kms.calls["Decrypt"] == kms
        self.require_no_value()
        return line

    def require_no_value(self) -> None:
        """Neither in refusals nor in the audit nor in the logs, of any level."""
        everywhere = b"".join(self.answers) + self.trail.getvalue().encode() + self._caplog.text.encode()
        aligned = [base64.b64encode(b"\0" * shift + CANARY)[4 * (shift > 0) : -4] for shift in range(3)]
        for form in (CANARY, CANARY.hex().encode(), *aligned):
            assert form not in everywhere

    # -- the cluster

    async def create(self, path: str, body: Json, *, status: int = 201) -> Json:
        answer = await asyncio.to_thread(self.control_plane.request, "POST", path, body)
        assert answer.status == status, answer.body
        return dict(answer.body)

    async def request(self, method: str, path: str, body: object = None, content_type: str = "") -> Any:
        return await asyncio.to_thread(
            lambda: self.control_plane.request(method, path, body, content_type=content_type or "application/json")
        )

    async def create_namespace(self) -> str:
        name = f"test-{secrets.token_hex(5)}"
        await self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    async def pod(
        self, name: str = "web", *, secrets: str | None = "db", account: str = "app", namespace: str = "",
        annotations: Mapping[str, str] | None = None, finalizers: Sequence[str] = (),
    ) -> Pod:  # fmt: skip
        """A pod, with its ServiceAccount."""
        namespace = namespace or self.namespace
        await self.account(account, namespace)
        listed = {} if secrets is None else {"kmseal.dev/inject": secrets}
        body = {
            "metadata": {
                "name": name,
                "annotations": {**listed, **(annotations or {})},
                "finalizers": list(finalizers),
            },
            "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
        }
        created = await self.create(f"/api/v1/namespaces/{namespace}/pods", body)
        return Pod(namespace, name, created["metadata"]["uid"], account)

    async def account(self, name: str, namespace: str = "") -> None:
        path = f"/api/v1/namespaces/{namespace or self.namespace}/serviceaccounts"
        answer = await self.request("POST", path, {"metadata": {"name": name}})
        assert answer.status in (201, 409), answer.body

    async def delete(self, pod: Pod) -> None:
        answer = await self.request("DELETE", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}")
        assert answer.status == 200, answer.body

    async def annotate(self, pod: Pod, annotations: Mapping[str, str]) -> None:
        answer = await self.request(
            "PATCH", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}",
            {"metadata": {"annotations": dict(annotations)}}, "application/merge-patch+json",
        )  # fmt: skip
        assert answer.status == 200, answer.body

    async def token(self, pod: Pod, *, audience: str | None = AUDIENCE, bound: bool = True) -> str:
        """By the TokenRequest API, as the kubelet does it; no audience: the API server's own."""
        spec: Json = {"audiences": [audience] if audience else [], "expirationSeconds": 600}
        if bound:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        path = f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.account}/token"
        return str((await self.create(path, {"spec": spec}))["status"]["token"])

    def signed_again(self, token: str, changes: Mapping[str, Any]) -> str:
        """The same token with other claims, signed with the API server's own key."""
        head, claims, _ = token.split(".")
        content = {**json.loads(base64.urlsafe_b64decode(claims + "==")), **changes}
        text = f"{head}.{_url64(json.dumps(content).encode())}"
        key = serialization.load_pem_private_key((self.control_plane.folder / "accounts.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_url64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    async def allow(self, account: str = "app", names: Sequence[str] = ("db",), namespace: str = "") -> str:
        """Gives a ServiceAccount the verb on these objects; the name of role and binding."""
        namespace = namespace or self.namespace
        name, path = f"decrypt-{secrets.token_hex(3)}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rule = {
            "apiGroups": ["kmseal.dev"],
            "resources": ["encryptedsecrets"],
            "resourceNames": list(names),
            "verbs": ["decrypt"],
        }
        await self.create(f"{path}/roles", {"metadata": {"name": name}, "rules": [rule]})
        await self.create(f"{path}/rolebindings", {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        })  # fmt: skip
        await self.until(lambda: self._is_allowed(account, names[0], namespace))
        return name

    async def disallow(self, binding: str, account: str = "app", name: str = "db") -> None:
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/rolebindings/{binding}"
        assert (await self.request("DELETE", path)).status == 200

        async def gone() -> bool:
            return not await self._is_allowed(account, name, self.namespace)

        await self.until(gone)

    async def _is_allowed(self, account: str, name: str, namespace: str) -> bool:
        spec = {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "resourceAttributes": {
                "verb": "decrypt", "group": "kmseal.dev", "resource": "encryptedsecrets", "namespace": namespace,
                "name": name,
            },
        }  # fmt: skip
        answer = await self.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        return bool(answer["status"]["allowed"])

    async def seal(
        self, name: str, values: Mapping[str, bytes], *, namespace: str = "", key: str = "", data_keys: int = 1,
        **spec: Any,
    ) -> Json:  # fmt: skip
        """A manifest; the values are spread over as many data keys."""
        namespace = namespace or self.namespace
        place = Place.of(Scope.STRICT, namespace, name)
        environment = self.environment(self._developer)
        listed, lines = [], {}
        async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:
            made: list[tuple[DataKeyId, Redacted]] = []
            for _ in range(data_keys):
                fresh, id_ = await keyring.generate(key or self.key, place.encryption_context()), new_data_key_id()
                made.append((id_, fresh.data_key))
                wrappings = [fresh.wrapping.to_dict()]
                listed.append({"id": id_, "sealedFor": place.sealed_for, "wrappings": wrappings})
        for index, (value, content) in enumerate(values.items()):
            id_, data_key = made[index % data_keys]
            lines[value] = encrypt_value(data_key, id_, place, value, Redacted(content)).line()
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"scope": "Strict", "delivery": "Inject", "dataKeys": listed, "encryptedData": lines, **spec},
        }

    async def apply(self, manifest: Json) -> None:
        metadata = manifest["metadata"]
        path = (
            f"/apis/kmseal.dev/v1alpha1/namespaces/{metadata['namespace']}/encryptedsecrets/{metadata['name']}"
            "?fieldManager=gitops&force=true"
        )
        answer = await self.request("PATCH", path, manifest, "application/apply-patch+yaml")
        assert answer.status in (200, 201), answer.body

    async def secret(self, name: str = "db", values: Mapping[str, bytes] | None = None, **options: Any) -> None:
        """An EncryptedSecret of one canary."""
        await self.apply(await self.seal(name, values or {"password": CANARY}, **options))

    async def until(self, reached: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = reached()
            if answer if isinstance(answer, bool) else await answer:
                return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.fixture
def limits() -> BrokerLimits:
    """What the desk allows; a test module may say otherwise."""
    return BrokerLimits(body_seconds=0.5)


@pytest.fixture
async def desk(
    control_plane: ControlPlane, crds: None, namespace: str, limits: BrokerLimits, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, tmp_path: Any,
) -> AsyncIterator[Desk]:  # fmt: skip
    """A broker that serves, and a namespace that holds nothing yet."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    caplog.set_level(logging.DEBUG)
    async with (
        FakeKms(regions=("cn-hangzhou",)) as kms,
        Desk(control_plane, namespace, kms, caplog).serving(limits, tmp_path) as serving,
    ):
        yield serving
