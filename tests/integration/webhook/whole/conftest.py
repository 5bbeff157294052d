"""All of injection at once: API server, webhook replicas, fake KMS, operator, and pods whose agents are processes."""

import asyncio
import json
import logging
import secrets
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.fakekms import OPERATOR_ACTIONS
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_dev.kubelet import Kubelet, RunningPod
from kmseal_operator.runtime import Operator
from kmseal_operator.settings import OperatorSettings
from kmseal_webhook import forms
from kmseal_webhook.limits import BrokerLimits, Rate

Json = dict[str, Any]
AGENT_IMAGE = "agent:1"
GROUP = "/apis/kmseal.dev/v1alpha1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
# The pods of these tests ask every second, for which the limits of a real broker leave no room.
OFTEN = BrokerLimits(token=Rate(100.0, 100), pod=Rate(100.0, 100))


class House:
    """One namespace with a ServiceAccount ``app``, and what serves its pods."""

    def __init__(self, site: Any, kms: FakeKms, folder: Path, stack: AsyncExitStack) -> None:
        self.site = site
        self.kms = kms
        self.key = kms.create_key()
        self._stack = stack
        self._developer = kms.add_identity("developer", ("GenerateDataKey",))
        self._operator = kms.add_identity("operator", OPERATOR_ACTIONS)
        self.kubelet = Kubelet(
            site.control_plane, folder, {AGENT_IMAGE: [sys.executable, "-m", "kmseal_agent"]},
            f"https://127.0.0.1:{site.front.broker_port}",
        )  # fmt: skip
        self.pods: list[RunningPod] = []
        self._values: set[bytes] = set()

    @property
    def namespace(self) -> str:
        return str(self.site.namespace)

    async def replica(self, **settings: Any) -> Any:
        """A replica of the webhook that is ready. It may decrypt and nothing else."""
        identity = self.kms.add_identity(f"broker-{secrets.token_hex(4)}", ("Decrypt",))
        self.site.environment.update(self._environment(identity))
        return await self.site.start(agent_image=AGENT_IMAGE, limits=OFTEN, **settings)

    async def operator(self) -> Operator:
        """An operator of the whole cluster, for no other says what state a key is in; it runs until the test ends."""
        environment = {
            "HOME": "/nonexistent",
            "KUBECONFIG": str(self.site.control_plane.kubeconfig),
            **self._environment(self._operator),
        }
        settings = OperatorSettings(retry_base=0.1, retry_cap=0.5, listen="127.0.0.1:0", status_pause=0.2)
        operator = Operator(settings, KmsSettings.from_environment(environment), environment)
        task = asyncio.create_task(operator.run())
        self._stack.push_async_callback(_cancel, task)
        await self.until(lambda: operator.ready.is_set() or task.done())
        assert operator.ready.is_set(), task
        return operator

    def _environment(self, identity: Any) -> dict[str, str]:
        return {
            "KMSEAL_KMS_ENDPOINT": self.kms.endpoint("cn-hangzhou"),
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "KMSEAL_KMS_BREAKER_SECONDS": "0.3",
            "KMSEAL_KMS_DEADLINE_SECONDS": "3",
            "KMSEAL_KMS_CRYPTO_PER_SECOND": "2000",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }

    # -- objects

    async def secret(self, name: str, values: Mapping[str, bytes], **spec: Any) -> None:
        """Seals values as somebody who may only GenerateDataKey, and applies the manifest as GitOps does."""
        self._values.update(values.values())
        place, id_ = Place.of(Scope.STRICT, self.namespace, name), new_data_key_id()
        environment = self._environment(self._developer)
        async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:
            fresh = await keyring.generate(self.key, place.encryption_context())
        data_key = {"id": id_, "sealedFor": place.sealed_for, "wrappings": [fresh.wrapping.to_dict()]}
        lines = {
            value: encrypt_value(fresh.data_key, id_, place, value, Redacted(content)).line()
            for value, content in values.items()
        }
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "scope": Scope.STRICT.value, "delivery": "Inject", "dataKeys": [data_key], "encryptedData": lines,
                **spec,
            },
        }  # fmt: skip
        path = f"{self.path(name)}?fieldManager=gitops&force=true"
        await self.site.send("PATCH", path, manifest, content_type="application/apply-patch+yaml")

    def path(self, name: str) -> str:
        """Of an EncryptedSecret."""
        return f"{GROUP}/namespaces/{self.namespace}/encryptedsecrets/{name}"

    async def object(self, name: str) -> Json:
        return dict(await self.site.send("GET", self.path(name)))

    async def kms_key(self) -> str:
        """A KMSKey of the house's key, polled each second; its path."""
        name = f"key-{secrets.token_hex(4)}"
        body = {
            "apiVersion": API_VERSION, "kind": "KMSKey", "metadata": {"name": name},
            "spec": {"keyId": self.key, "pollInterval": "1s"},
        }  # fmt: skip
        await self.site.send("POST", f"{GROUP}/kmskeys", body)
        return f"{GROUP}/kmskeys/{name}"

    async def forget_keys(self) -> None:
        """Deletes all KMSKeys, also those that an operator has registered: they are the whole cluster's."""
        for item in (await self.site.send("GET", f"{GROUP}/kmskeys"))["items"]:
            await self.site.send("DELETE", f"{GROUP}/kmskeys/{item['metadata']['name']}")

    # -- rights

    async def allow(self, *names: str) -> str:
        """Gives ``app`` the verb on these EncryptedSecrets; the path of the binding."""
        role = f"decrypt-{secrets.token_hex(3)}"
        rule = {
            "apiGroups": ["kmseal.dev"], "resources": ["encryptedsecrets"], "resourceNames": list(names),
            "verbs": ["decrypt"],
        }  # fmt: skip
        within = f"{RBAC}/namespaces/{self.namespace}"
        await self.site.send("POST", f"{within}/roles", {"metadata": {"name": role}, "rules": [rule]})
        await self.site.send("POST", f"{within}/rolebindings", {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": self.namespace}],
        })  # fmt: skip
        for name in names:
            await self.until(partial(self._may, name))  # The API server learns of it by a watch of its own.
        return f"{within}/rolebindings/{role}"

    async def _may(self, name: str) -> bool:
        spec = {
            "user": f"system:serviceaccount:{self.namespace}:app",
            "resourceAttributes": {
                "verb": "decrypt", "group": "kmseal.dev", "resource": "encryptedsecrets", "namespace": self.namespace,
                "name": name,
            },
        }  # fmt: skip
        answer = await self.site.send("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        return bool(answer["status"]["allowed"])

    async def user_without(self, group: str) -> str:
        """A kubeconfig of somebody who may do all that a replica does, but for one API group."""
        user = f"without-{secrets.token_hex(4)}"
        groups = [
            "", "kmseal.dev", "authentication.k8s.io", "authorization.k8s.io", "admissionregistration.k8s.io",
            "certificates.k8s.io", "events.k8s.io",
        ]  # fmt: skip
        rule = {"apiGroups": [item for item in groups if item != group], "resources": ["*"], "verbs": ["*"]}
        await self.site.send("POST", f"{RBAC}/clusterroles", {"metadata": {"name": user}, "rules": [rule]})
        await self.site.send("POST", f"{RBAC}/clusterrolebindings", {
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"kind": "User", "name": user}],
        })  # fmt: skip
        return str(await asyncio.to_thread(self.site.control_plane.kubeconfig_for, user))

    # -- pods

    async def admit(self, annotations: Mapping[str, str], **spec: Any) -> Json:
        """A pod as the API server stores it; the annotations' names are those after the slash."""
        asked = {f"kmseal.dev/{name}": text for name, text in annotations.items()}
        answer = await self.site.create_pod(asked, **{"serviceAccountName": "app", **spec})
        assert answer.status == 201, answer.body
        return dict(answer.body)

    async def run(self, annotations: Mapping[str, str], **spec: Any) -> RunningPod:
        """Admits a pod and runs it until its containers have started."""
        return await self.start(await self.admit(annotations, **spec))

    async def start(self, pod: Json) -> RunningPod:
        """Runs a stored pod; it ends with the test."""
        running = RunningPod(self.kubelet, pod)
        self.pods.append(running)
        self._stack.push_async_callback(running.stop)
        await running.start()
        return running

    def granted(self) -> int:
        """How often KMS has given a data key to a broker."""
        return self.asked("Success")

    def asked(self, result: str = "") -> int:
        """How often brokers have asked KMS, with any result or this one."""
        calls = [record for record in self.kms.audit if record.identity.startswith("broker-")]
        return sum(record.result == result or not result for record in calls)

    async def granted_again(self, times: int = 3) -> None:
        """Waits until a pod that is refreshed has been served some more."""
        before = self.granted()
        await self.until(lambda: self.granted() >= before + times)

    def require_no_value(self, *outputs: str) -> None:
        """Holds at the end of every test: no agent and no server has said a value."""
        said = b"".join(log for pod in self.pods for log in pod.logs.values())
        everywhere = said + "".join(outputs).encode()
        for value in self._values:
            for form in (value, b64encode(value).rstrip(b"=")[:-1], value.hex().encode()):
                assert len(form) < 8 or form not in everywhere

    async def until(self, reached: Callable[[], Any]) -> None:
        await self.site.until(reached)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def house(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trail: "Trail"
) -> AsyncIterator[House]:
    """A cluster in which nothing of ours runs yet. Pods may ask to be refreshed every second."""
    monkeypatch.setattr(forms, "REFRESH_MIN", 1)
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        kms = await stack.enter_async_context(FakeKms(regions=("cn-hangzhou",)))
        house = House(site, kms, tmp_path, stack)
        stack.push_async_callback(house.forget_keys)
        path = f"/api/v1/namespaces/{house.namespace}/serviceaccounts"
        await site.send("POST", path, {"metadata": {"name": "app"}})
        yield house
        house.require_no_value(caplog.text, json.dumps(trail()))


class Application:
    """What answers to reload hooks."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.port = int(server.server_address[1])
        self.calls: list[str] = []
        self.on_call: Callable[[], None] = lambda: None


@pytest.fixture
def application() -> Iterator[Application]:
    """An HTTP server on the loopback network."""
    with _serving() as application:
        yield application


@contextmanager
def _serving() -> Iterator[Application]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.on_call()
            told.calls.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Application(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


Trail = Callable[[], Sequence[Json]]


@pytest.fixture
def trail(capsys: pytest.CaptureFixture[str]) -> Trail:
    """The audit lines so far. They are on standard output, where nothing else is."""
    lines: list[Json] = []

    def read() -> Sequence[Json]:
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return lines

    return read
