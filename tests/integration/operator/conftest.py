"""The operator against the real kube-apiserver and the fake KMS over TLS, in the test's own event loop."""

import asyncio
import base64
import copy
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value, new_data_key_id
from kmseal.fakekms import OPERATOR_ACTIONS
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import API_VERSION, KIND, DataKey
from kmseal.redacted import Redacted
from kmseal.rewrapped import brought_up_to_date, read_rewrapped
from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane
from kmseal_operator.runtime import Operator
from kmseal_operator.settings import OperatorSettings

Json = dict[str, Any]
DEADLINE = 60.0
CRDS = Path(__file__).parents[3] / "crds"


class Bench:
    """One namespace, one fake KMS, and operators that serve just that namespace."""

    def __init__(
        self, control_plane: ControlPlane, namespace: str, kms: FakeKms, stack: AsyncExitStack, *, whole: bool = False
    ) -> None:
        self.namespaces = () if whole else (namespace,)
        self.control_plane = control_plane
        self.namespace = namespace
        self.kms = kms
        self.key = kms.create_key()
        self.operator_identity = kms.add_identity("operator", OPERATOR_ACTIONS)
        self._developer = kms.add_identity("developer", ("GenerateDataKey",))
        self._stack = stack
        self.variables: dict[str, str] = {}
        """Environment variables of the operator that a test adds or changes."""

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
            **self.variables,
        }

    def neighbour(self, namespace: str) -> "Bench":
        """The same bench, as seen from another namespace."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    def with_kms(self, kms: FakeKms) -> "Bench":
        """The same API server and namespace, for objects that are sealed under a key of another KMS."""
        other = Bench(self.control_plane, self.namespace, kms, self._stack)
        other.namespaces = self.namespaces
        return other

    async def seal(
        self, name: str, values: Mapping[str, bytes], *, key: str = "", also: Sequence[str] = (),
        scope: Scope = Scope.STRICT, **spec: Any,
    ) -> Json:  # fmt: skip
        """A manifest, sealed by an identity that may only GenerateDataKey; one that may Encrypt wraps it ``also``."""
        place = Place.of(scope, self.namespace, name)
        async with self._keyring(self._developer) as keyring:
            fresh = await keyring.generate(key or self.key, place.encryption_context())
        manifest = self.manifest(name, values, fresh.data_key, fresh.wrapping.to_dict(), scope=scope, **spec)
        if also:
            async with self._keyring(self.kms.add_identity(f"wraps-{name}", ("Encrypt",))) as keyring:
                for further in also:
                    wrapping = await keyring.wrap(further, fresh.data_key, place.encryption_context())
                    manifest["spec"]["dataKeys"][0]["wrappings"].append(wrapping.to_dict())
        return manifest

    def keyring_that_may(self, *actions: str) -> Keyring:
        """A keyring of a new identity with these rights."""
        return self._keyring(self.kms.add_identity(f"may-{secrets.token_hex(4)}", actions))

    def _keyring(self, identity: Any) -> Keyring:
        environment = self.environment(identity)
        return Keyring(KmsSettings.from_environment(environment), environment)

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

    async def start(self, *, kms: Mapping[str, str] | None = None, **settings: Any) -> "Running":
        """Starts an operator for the namespace and waits until its caches are filled.

        :param kms: environment variables in place of those of ``environment``
        """
        environment = {**self.environment(self.operator_identity), **(kms or {})}
        options = {
            "retry_base": 0.1,
            "retry_cap": 0.5,
            "listen": "127.0.0.1:0",
            "namespaces": self.namespaces,
            "status_pause": 0.2,
        }
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

    async def create_key(self, name: str, key_id: str, **spec: Any) -> Json:
        """A KMSKey; polled every second, which is the shortest there is."""
        body = {
            "apiVersion": API_VERSION, "kind": "KMSKey", "metadata": {"name": name},
            "spec": {"keyId": key_id, "pollInterval": "1s", **spec},
        }  # fmt: skip
        answer = await self.request("POST", "/apis/kmseal.dev/v1alpha1/kmskeys", body)
        assert answer.status == 201, answer.body
        return dict(answer.body)

    async def until(self, reached: Callable[[], bool | Awaitable[bool]]) -> None:
        """Waits for what only a test knows."""
        await until(reached)

    async def patch_key(self, name: str, patch: Json) -> None:
        """Merges into the spec of a KMSKey."""
        answer = await self.merge(f"/apis/kmseal.dev/v1alpha1/kmskeys/{name}", {"spec": patch})
        assert answer.status == 200, answer.body

    async def delete_key(self, name: str) -> None:
        answer = await self.request("DELETE", f"/apis/kmseal.dev/v1alpha1/kmskeys/{name}")
        assert answer.status == 200, answer.body

    async def keys(self) -> list[Json]:
        """All KMSKeys."""
        return list((await self.request("GET", "/apis/kmseal.dev/v1alpha1/kmskeys")).body["items"])

    async def key_events(self, name: str) -> list[tuple[str, str]]:
        """Type and reason of the events about a KMSKey, in any order."""
        answer = await self.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")
        return [
            (event["type"], event["reason"])
            for event in answer.body["items"]
            if (event["regarding"]["kind"], event["regarding"]["name"]) == ("KMSKey", name)
        ]

    async def create_namespace(self, labels: Mapping[str, str] | None = None, name: str = "") -> str:
        """A fresh namespace; its name."""
        name = name or f"test-{secrets.token_hex(5)}"
        body = {"metadata": {"name": name, "labels": dict(labels or {})}}
        answer = await self.request("POST", "/api/v1/namespaces", body)
        assert answer.status in (201, 409), answer.body
        return name

    async def label_namespace(self, labels: Mapping[str, str | None]) -> None:
        """Changes labels of the bench's namespace; None removes one."""
        answer = await self.merge(f"/api/v1/namespaces/{self.namespace}", {"metadata": {"labels": dict(labels)}})
        assert answer.status == 200, answer.body

    async def merge(self, path: str, patch: Json) -> Any:
        return await asyncio.to_thread(
            self.control_plane.request, "PATCH", path, patch, content_type="application/merge-patch+json"
        )

    async def key_status(self, name: str) -> Json:
        """The status of a KMSKey; empty where there is none yet."""
        answer = await self.request("GET", f"/apis/kmseal.dev/v1alpha1/kmskeys/{name}")
        return dict(answer.body.get("status", {})) if answer.status == 200 else {}

    async def key_shows(self, name: str, reached: Callable[[Json], bool]) -> Json:
        """Waits until the status of a KMSKey is as wanted."""
        found: Json = {}

        async def shown() -> bool:
            nonlocal found
            found = await self.key_status(name)
            return bool(found) and reached(found)

        await until(shown, lambda: f"KMSKey {name} is {found}")
        return found

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

    async def apply_many(self, manifests: Sequence[Json]) -> None:
        """Applies them, some at a time."""
        for start in range(0, len(manifests), 25):
            await asyncio.gather(*map(self.apply, manifests[start : start + 25]))

    async def apply_all(self, running: "Running", names: Sequence[str], *, key: str = "") -> None:
        """Seals and applies new objects, and waits until the operator has done with them."""
        done = running.operator.ledger.states()["Applied"] + len(names)
        await self.apply_many(await self.seal_many(names, key=key))
        await until(lambda: running.operator.ledger.states()["Applied"] == done)
        await running.idle()

    async def seal_many(self, names: Sequence[str], *, key: str = "") -> list[Json]:
        """Manifests that hold one value each."""
        environment = self.environment(self._developer)
        async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:

            async def one(name: str) -> Json:
                place = Place.of(Scope.STRICT, self.namespace, name)
                fresh = await keyring.generate(key or self.key, place.encryption_context())
                return self.manifest(name, {"a": name.encode()}, fresh.data_key, fresh.wrapping.to_dict())

            return list(await asyncio.gather(*map(one, names)))

    async def objects(self) -> dict[str, Json]:
        """All EncryptedSecrets of the namespace by name."""
        answer = await self.request("GET", self.path("encryptedsecrets"))
        return {item["metadata"]["name"]: item for item in answer.body["items"]}

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
        answer = await self.merge(self.path("secrets", name) + "?fieldManager=somebody", patch)
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


@pytest.fixture
async def bench(
    control_plane: ControlPlane, crds: None, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A namespace with a fake KMS; the operators that a test starts are stopped at its end."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.sleep, 0.2)  # In which the transports of what ends before are closed.
        kms = await stack.enter_async_context(FakeKms(regions=("cn-hangzhou", "cn-beijing")))
        yield Bench(control_plane, namespace, kms, stack)


@pytest.fixture(scope="session")
def whole_control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A second API server, for operators that serve and judge the whole cluster; one that stops it starts it again."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        binaries = find_binaries()
    with ControlPlane(binaries=binaries) as running:
        running.kubectl("apply", "--server-side", "--filename", str(CRDS))
        running.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRDS))
        yield running


@pytest.fixture
async def cluster(whole_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """As ``bench``, in a cluster that holds nothing else, for operators that serve and judge all of it."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.sleep, 0.2)  # In which the transports of what ends before are closed.
        kms = await stack.enter_async_context(FakeKms(regions=("cn-hangzhou", "cn-beijing")))
        yield Bench(whole_control_plane, "default", kms, stack, whole=True)
    await asyncio.to_thread(_empty, whole_control_plane)


def _empty(control_plane: ControlPlane) -> None:
    """Deletes what the test before has left."""
    for group, resource in (
        ("/apis/kmseal.dev/v1alpha1", "kmskeys"),
        ("/apis/kmseal.dev/v1alpha1", "encryptedsecrets"),
        ("/api/v1", "secrets"),
        ("/apis/events.k8s.io/v1", "events"),
    ):
        deadline = time.monotonic() + DEADLINE
        # A custom resource is not served in the first moment after a restart.
        while (answer := control_plane.request("GET", f"{group}/{resource}")).status != 200:
            assert time.monotonic() < deadline, answer.body
            time.sleep(0.1)
        items = answer.body["items"]
        for namespace in {item["metadata"].get("namespace", "") for item in items}:
            within = f"/namespaces/{namespace}" if namespace else ""
            answer = control_plane.request("DELETE", f"{group}{within}/{resource}")
            assert answer.status == 200, answer.body


@pytest.fixture
def settled() -> Callable[[int, int], Callable[[Json], bool]]:
    """Makes the test whether a KMSKey's status says that nothing is stale in the cluster, and this much in Git."""

    def make(objects: int, in_git: int) -> Callable[[Json], bool]:
        def is_settled(status: Json) -> bool:
            stale = status["stale"]
            return (status["objects"], stale["inCluster"], stale["inGit"]) == (objects, 0, in_git)

        return is_settled

    return make


@pytest.fixture
def updated() -> Callable[[Json], Json]:
    """Makes of an object the manifest that Git should hold after a rotation, as kmseal rewrap --from-cluster does."""

    def make(raw: Json) -> Json:
        rewrapped = read_rewrapped(raw["status"])
        keys = [brought_up_to_date(DataKey.parse(item), rewrapped).to_dict() for item in raw["spec"]["dataKeys"]]
        metadata = {name: raw["metadata"][name] for name in ("name", "namespace")}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": metadata,
            "spec": {**raw["spec"], "dataKeys": keys},
        }

    return make


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[None]]:
    """The polling wait, for conditions that only a test knows."""
    return until
