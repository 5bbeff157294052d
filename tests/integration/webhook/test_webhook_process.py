"""The program ``kmseal-webhook`` as it is deployed: a process under rbac.yaml, from an outage to a graceful end."""

import asyncio
import base64
import json
import secrets
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.fakekms import OPERATOR_ACTIONS
from kmseal.fakekms.server import FakeKms
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted

Json = dict[str, Any]
OURS = "kmseal-system"
PROGRAM = Path(sys.executable).parent / "kmseal-webhook"


class Program:
    """The process; its logs, and its audit trail on standard output."""

    def __init__(self, folder: Path, site: Any) -> None:
        self._folder = folder
        self._site = site
        self.process: asyncio.subprocess.Process
        first = 15000 + secrets.randbelow(3000) * 3
        self.port, self.broker_port, self.health = first, first + 1, first + 2

    async def start(self, *flags: str, **variables: str) -> None:
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("wb") as err:
            self.process = await asyncio.create_subprocess_exec(
                PROGRAM, "--listen", f"127.0.0.1:{self.port}", "--broker-listen",
                f"127.0.0.1:{self.broker_port}", "--health", f"127.0.0.1:{self.health}",
                "--drain-seconds", "2", "--kubeconfig", str(self._site.kubeconfig), "--agent-image", "agent:1", *flags,
                env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **variables}, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def health_port(self) -> int:
        """As the front asks for it."""
        return self.health

    def lines(self, stream: str) -> list[Json]:
        """All lines, which have to be JSON."""
        return [json.loads(line) for line in (self._folder / stream).read_text().splitlines()]

    async def status(self, path: str) -> int:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.health}{path}") as answer,
            ):
                return answer.status
        except aiohttp.ClientError:
            return 0

    def shows(self, path: str, status: int) -> Callable[[], Any]:
        async def shown() -> bool:
            return await self.status(path) == status

        return shown


@pytest.fixture
async def program(site: Any, tmp_path: Path) -> AsyncIterator[Program]:
    """Not started yet."""
    program = Program(tmp_path, site)
    site.front.replicas.append(program)
    yield program
    process = getattr(program, "process", None)
    if process and process.returncode is None:
        process.kill()
        await process.wait()


async def test_it_waits_for_an_api_server_that_is_away_and_ends_with_0(site: Any, program: Program) -> None:
    """Alive and not ready while there is none; ready when there is; drained and gone on SIGTERM. Logs are JSON."""
    await asyncio.to_thread(site.control_plane.stop_apiserver)
    try:
        await program.start()
        await site.until(program.shows("/readyz", 503))
        assert await program.status("/healthz") == 200
    finally:
        await asyncio.to_thread(site.control_plane.start_apiserver)
    await site.until(program.shows("/readyz", 200), 60)
    assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201
    program.process.send_signal(signal.SIGTERM)
    await site.until(program.shows("/readyz", 503), 2)
    assert await asyncio.wait_for(program.process.wait(), 10) == 0
    lines = program.lines("err")
    assert not [line for line in lines if line["level"] in ("error", "critical")]
    assert "ready" in [line["message"] for line in lines]


async def test_a_mistake_in_its_configuration_ends_it_with_6(site: Any, program: Program) -> None:
    """It names the flag, in one line of JSON, and does not hang."""
    for flags, field in (
        (("--listen", "nonsense"), "--listen"),
        (("--broker-listen", "nonsense"), "--broker-listen"),
        (("--admission-client-ca", "/nonexistent"), "--admission-client-ca"),
        (("--health", "127.0.0.1:123456"), "--health"),
        (("--kubeconfig", "/nonexistent"), "kubeconfig"),
    ):
        await program.start(*flags)
        assert await asyncio.wait_for(program.process.wait(), 30) == 6
        line = program.lines("err")[-1]
        assert (line["level"], field in line["message"]) == ("error", True)


async def test_a_pod_is_given_its_values_by_its_key_s_own_connection(site: Any, program: Program) -> None:
    """The whole way through the process: a bound token, a role, a KMSKey with endpoint and Secret, one audit line.

    The process has no credentials of its own; disabling the key in the KMSKey's status shuts it here without a poll.
    """
    async with FakeKms() as kms:
        manifest = await seal(kms, key := kms.create_key(), "db", site.namespace)
        broker = kms.add_identity("broker", OPERATOR_ACTIONS)
        credentials = {"accessKeyId": broker.access_key_id, "accessKeySecret": broker.access_key_secret}
        secret = {"metadata": {"name": "kms-access"}, "stringData": credentials}
        await site.send("POST", f"/api/v1/namespaces/{OURS}/secrets", secret)
        name = f"main-{secrets.token_hex(3)}"
        kmskey = {
            "apiVersion": API_VERSION, "kind": "KMSKey", "metadata": {"name": name},
            "spec": {
                "keyId": key, "endpoint": kms.endpoint(), "caBundle": kms.ca_file.read_text(),
                "credentials": {"secretName": "kms-access"},
            },
        }  # fmt: skip
        path = "/apis/kmseal.dev/v1alpha1"
        await site.send("POST", f"{path}/kmskeys", kmskey)
        await program.start("--keys", "registered")
        await site.until(program.shows("/readyz", 200), 60)
        await site.send("POST", f"{path}/namespaces/{site.namespace}/encryptedsecrets", manifest)
        token = await grant(site, "app", "db")
        status, answer = await ask(site, program.broker_port, token)
        assert (status, answer["secrets"]) == (200, {"db": {"values": {"a": base64.b64encode(b"canary").decode()}}})
        patch = {"status": {"state": "Disabled", "keyId": key}}
        await site.send("PATCH", f"{path}/kmskeys/{name}/status", patch, content_type="application/merge-patch+json")

        async def is_shut() -> bool:
            status, answer = await ask(site, program.broker_port, token)
            return status == 403 and answer["reason"] == "KeyUnusable"

        await site.until(is_shut)
        await site.send("DELETE", f"{path}/kmskeys/{name}")
        await site.send("DELETE", f"/api/v1/namespaces/{OURS}/secrets/kms-access")
    decisions = [(line["decision"], line["reason"]) for line in program.lines("out")]
    assert decisions[0] == ("allow", "Granted")
    assert decisions[-1] == ("deny", "KeyUnusable")
    assert "canary" not in json.dumps(program.lines("err")) + json.dumps(program.lines("out"))


async def seal(kms: FakeKms, key: str, name: str, namespace: str) -> Json:
    developer = kms.add_identity("developer", ("GenerateDataKey",))
    environment = {
        "HOME": "/nonexistent", "KMSEAL_KMS_ENDPOINT": f"cn-hangzhou={kms.endpoint()}",
        "KMSEAL_KMS_CA_FILE": str(kms.ca_file), "ALIBABA_CLOUD_ACCESS_KEY_ID": developer.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": developer.access_key_secret,
    }  # fmt: skip
    place, id_ = Place.of(Scope.STRICT, namespace, name), new_data_key_id()
    async with Keyring(KmsSettings.from_environment(environment), environment) as keyring:
        fresh = await keyring.generate(key, place.encryption_context())
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scope": Scope.STRICT.value,
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [fresh.wrapping.to_dict()]}],
            "encryptedData": {"a": encrypt_value(fresh.data_key, id_, place, "a", Redacted(b"canary")).line()},
        },
    }


async def grant(site: Any, account: str, name: str) -> str:
    """A ServiceAccount that may decrypt, a pod of it, and that pod's token."""
    core, rbac = (
        f"/api/v1/namespaces/{site.namespace}",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{site.namespace}",
    )
    await site.send("POST", f"{core}/serviceaccounts", {"metadata": {"name": account}})
    rule = {
        "apiGroups": ["kmseal.dev"], "resources": ["encryptedsecrets"], "resourceNames": [name], "verbs": ["decrypt"]
    }  # fmt: skip
    await site.send("POST", f"{rbac}/roles", {"metadata": {"name": account}, "rules": [rule]})
    binding = {
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": site.namespace}],
    }
    await site.send("POST", f"{rbac}/rolebindings", binding)
    pod = (await site.create_pod({"kmseal.dev/inject": name}, serviceAccountName=account)).body
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    spec = {"audiences": ["kmseal.dev/broker"], "expirationSeconds": 600, "boundObjectRef": bound}
    path = f"{core}/serviceaccounts/{account}/token"
    return str((await site.send("POST", path, {"spec": spec}))["status"]["token"])


async def ask(site: Any, port: int, token: str) -> tuple[int, Json]:

    trust = ssl.create_default_context(cadata=(await site.ca_bundle()).decode())
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.post(
            f"https://127.0.0.1:{port}/v1/decrypt", json={"secrets": ["db"]},
            headers={"Authorization": f"Bearer {token}"}, server_hostname=f"kmseal-webhook.{OURS}.svc",
        ) as answer,
    ):  # fmt: skip
        return answer.status, await answer.json()
