"""The operator against the real kube-apiserver and the fake KMS over TLS, in the test's own event loop."""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value, new_data_key_id
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_dev.controlplane import ControlPlane
from kmseal_operator.runtime import Operator
from kmseal_operator.settings import OperatorSettings

Json = dict[str, Any]
CRDS = Path(__file__).parents[3] / "crds"
DEADLINE = 60.0


class Bench:
    """One namespace, one fake KMS, and operators that serve just that namespace."""

    def __init__(self, control_plane: ControlPlane, namespace: str, kms: FakeKms, stack: AsyncExitStack) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.kms = kms
        self.key = kms.create_key()
        self.operator_identity = kms.add_identity("operator", ("Decrypt",))
        self._developer = kms.add_identity("developer", ("GenerateDataKey",))
        self._stack = stack

    def environment(self, identity: Any) -> dict[str, str]:
        return {
            "HOME": "/nonexistent",
            "KUBECONFIG": str(self.control_plane.kubeconfig),
            "KMSEAL_KMS_ENDPOINT": ",".join(f"{region}={self.kms.endpoint(region)}" for region in self.kms.regions),
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "KMSEAL_KMS_BREAKER_SECONDS": "0.3",
            "KMSEAL_KMS_DEADLINE_SECONDS": "2",
            "KMSEAL_KMS_CRYPTO_PER_SECOND": "2000",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }

    async def seal(
        self, name: str, values: Mapping[str, bytes], *, key: str = "", scope: Scope = Scope.STRICT, **spec: Any
    ) -> Json:
        """A manifest, sealed by an identity that may only GenerateDataKey."""
        environment = self.environment(self._developer)
        place = Place.of(scope, self.namespace, name)
        async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:
            fresh = await keyring.generate(key or self.key, place.encryption_context())
        return self.manifest(name, values, fresh.data_key, fresh.wrapping.to_dict(), scope=scope, **spec)

    def manifest(
        self, name: str, values: Mapping[str, bytes], data_key: Redacted, wrapping: Json, *,
        scope: Scope = Scope.STRICT, data_key_id: DataKeyId | None = None, **spec: Any,
    ) -> Json:  # fmt: skip
        place, id_ = Place.of(scope, self.namespace, name), data_key_id or new_data_key_id()
        lines = {n: encrypt_value(data_key, id_, place, n, Redacted(v)).line() for n, v in values.items()}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "scope": scope.value,
                "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [wrapping]}],
                "encryptedData": lines,
                **spec,
            },
        }

    async def start(self, **settings: Any) -> "Running":
        """Starts an operator for the namespace and waits until its caches are filled."""
        environment = self.environment(self.operator_identity)
        options = {"retry_base": 0.1, "retry_cap": 0.5, "listen": "127.0.0.1:0", "namespaces": (self.namespace,)}
        operator = Operator(
            OperatorSettings(**{**options, **settings}), KmsSettings.from_environment(environment), environment
        )
        running = Running(operator, asyncio.create_task(operator.run()))
        self._stack.push_async_callback(running.stop)
        await until(lambda: operator.ready.is_set() or running.task.done())
        assert operator.ready.is_set(), running.task
        return running

    # -- the API server, as somebody else sees it

    async def request(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self.control_plane.request, method, path, body)

    def path(self, kind: str, name: str = "") -> str:
        prefix = "/api/v1" if kind == "secrets" else "/apis/kmseal.dev/v1alpha1"
        return f"{prefix}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    async def apply(self, manifest: Json) -> None:
        """As a GitOps applier does it: server-side apply with a field manager of its own."""
        name = manifest["metadata"]["name"]
        path = self.path("encryptedsecrets", name) + "?fieldManager=gitops&force=true"
        answer = await asyncio.to_thread(
            self.control_plane.request, "PATCH", path, manifest, content_type="application/apply-patch+yaml"
        )
        assert answer.status in (200, 201), answer.body

    async def delete(self, kind: str, name: str) -> None:
        answer = await self.request("DELETE", self.path(kind, name))
        assert answer.status == 200, answer.body

    async def object(self, name: str) -> Json:
        answer = await self.request("GET", self.path("encryptedsecrets", name))
        assert answer.status == 200, answer.body
        return dict(answer.body)

    async def secret(self, name: str) -> Json | None:
        answer = await self.request("GET", self.path("secrets", name))
        return dict(answer.body) if answer.status == 200 else None

    async def values(self, name: str) -> dict[str, bytes] | None:
        secret = await self.secret(name)
        return None if secret is None else {n: base64.b64decode(v) for n, v in secret.get("data", {}).items()}

    async def create_secret(self, name: str, data: Mapping[str, bytes], **extra: Any) -> Json:
        body = {
            "metadata": {"name": name, **extra},
            "data": {n: base64.b64encode(v).decode() for n, v in data.items()},
        }
        answer = await self.request("POST", self.path("secrets") + "?fieldManager=somebody", body)
        assert answer.status == 201, answer.body
        return dict(answer.body)

    async def patch_secret(self, name: str, patch: Json) -> None:
        answer = await asyncio.to_thread(
            self.control_plane.request, "PATCH", self.path("secrets", name) + "?fieldManager=somebody", patch,
            content_type="application/merge-patch+json",
        )  # fmt: skip
        assert answer.status == 200, answer.body

    async def condition(self, name: str, kind: str = "Ready") -> Json:
        conditions = (await self.object(name)).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    async def reason(self, name: str, expected: str, generation: int | None = None) -> Json:
        """Waits until Ready has the reason (and has seen the generation); returns the condition."""
        found: Json = {}

        async def reached() -> bool:
            nonlocal found
            found = await self.condition(name)
            return found.get("reason") == expected and generation in (None, found.get("observedGeneration"))

        await until(reached, lambda: f"{name} is {found} instead of {expected}")
        return found

    async def events(self) -> list[Json]:
        answer = await self.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        return list(answer.body["items"])


class Running:
    """An operator that runs."""

    def __init__(self, operator: Operator, task: "asyncio.Task[None]") -> None:
        self.operator = operator
        self.task = task

    async def idle(self) -> None:
        """Waits until nothing is ready and nobody works."""
        await until(lambda: self.operator.queue.backlog.idle)

    async def stop(self) -> None:
        """As a kill does it: at once, wherever it is."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def until(
    reached: Callable[[], bool | Awaitable[bool]], otherwise: Callable[[], str] = lambda: "not reached in time"
) -> None:
    """Waits for a condition, with a deadline that only a broken product meets."""
    deadline = time.monotonic() + DEADLINE
    while True:
        answer = reached()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, otherwise()
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    """The CRDs are installed and served."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))


@pytest.fixture
async def bench(
    control_plane: ControlPlane, crds: None, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A namespace with a fake KMS; the operators that a test starts are stopped at its end."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    async with AsyncExitStack() as stack:
        kms = await stack.enter_async_context(FakeKms(regions=("cn-hangzhou", "cn-beijing")))
        yield Bench(control_plane, namespace, kms, stack)


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[None]]:
    """The polling wait, for conditions that only a test knows."""
    return until
