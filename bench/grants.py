"""How many grants a second the broker gives, and how long a pod waits for one, beside an empty handler over TLS.

    python bench/grants.py [--pods 200] [--clients 1,8,32] [--out FILE]

Each pod has a token of its own and asks as an agent does: on a new TLS connection for each request. The broker is a
process of its own, with limits that are never reached. The API server and the fake KMS share the machine with it, so
that most of the time is theirs: see what the broker itself uses. Times are those of this machine in this run. Nothing
here is a test.
"""

import argparse
import asyncio
import itertools
import json
import os
import ssl
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import web
from stage import KEY, Measured, Stage, create_objects, describe_machine, in_parallel, set_up

from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.opening import GuardedKeyring
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal_dev.certificates import Authority
from kmseal_webhook.audit import Audit
from kmseal_webhook.broker import Broker
from kmseal_webhook.identity import AUDIENCE
from kmseal_webhook.limits import BrokerLimits, Rate

NAMESPACE = "grants"
NEVER = Rate(1e6, 1_000_000)
REQUESTS = 2_000


async def serve(kubeconfig: Path, certificate: Path) -> None:
    """The broker, and beside it the empty handler, until killed; says its port on standard output."""
    environment = dict(os.environ)
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeClient(load_kubeconfig(kubeconfig), user_agent="bench-broker"))
        keyring = await stack.enter_async_context(Keyring(KmsSettings.from_environment(environment), environment))
        await keyring.warm(KEY)
        keys = Keys(Mode.OPEN, Listeners(lambda found: None, lambda name: None, lambda name: None))
        trail = stack.enter_context(certificate.with_name("audit.jsonl").open("w"))
        broker = Broker(
            kube,
            GuardedKeyring(keyring, keys, lambda key: None, lambda key: None),
            BrokerLimits(remote=NEVER, token=NEVER, pod=NEVER, namespace=NEVER, turns=1_000),
            audit=Audit(trail, now=lambda: datetime.now(UTC)),
            clock=time.monotonic,
        )
        app = web.Application()
        app.router.add_route("*", "/v1/decrypt", broker.decrypt)
        app.router.add_post("/empty", _answer_nothing)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


async def _answer_nothing(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}")


class BrokerProcess(Measured):
    """The process, with what it has used of the machine."""

    def __init__(self, stage: Stage, authority: Authority) -> None:
        pair = authority.serving("127.0.0.1")
        certificate = stage.folder / "serving.pem"
        certificate.write_bytes(pair.public + pair.private)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(stage.control_plane.kubeconfig), str(certificate)],
            env=stage.kms["operator"], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self._process.stdout is None:
            raise SystemExit("the broker's output is not piped")
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)


async def make_pods(stage: Stage, count: int) -> list[tuple[str, bytes]]:
    """As many pods, each with an object of its own, the right to it, and a token: what each sends."""
    kubectl = stage.control_plane.kubectl
    kubectl("create", "namespace", NAMESPACE)
    kubectl("create", "serviceaccount", "app", "--namespace", NAMESPACE)
    kubectl("create", "role", "decrypt", "--verb=decrypt", "--resource=encryptedsecrets.kmseal.dev", "-n", NAMESPACE)
    kubectl("create", "rolebinding", "decrypt", "--role=decrypt", f"--serviceaccount={NAMESPACE}:app", "-n", NAMESPACE)
    await create_objects(stage, NAMESPACE, count)
    pods: list[tuple[str, bytes]] = []

    async def create(index: int) -> None:
        pod = {
            "metadata": {"name": f"p{index}", "annotations": {"kmseal.dev/inject": f"o{index}"}},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app"}]},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}"
        made = await asyncio.to_thread(stage.control_plane.request, "POST", f"{path}/pods", pod)
        bound = {"apiVersion": "v1", "kind": "Pod", "name": f"p{index}", "uid": made.body["metadata"]["uid"]}
        asked = {"spec": {"audiences": [AUDIENCE], "boundObjectRef": bound}}
        token = await asyncio.to_thread(stage.control_plane.request, "POST", f"{path}/serviceaccounts/app/token", asked)
        pods.append((token.body["status"]["token"], json.dumps({"secrets": [f"o{index}"]}).encode()))

    await in_parallel(create, count)
    return pods


async def ask(url: str, tls: ssl.SSLContext, pods: list[tuple[str, bytes]], clients: int) -> list[float]:
    """Seconds of each of the requests, of that many clients at once."""
    took: list[float] = []
    turns = iter(itertools.islice(itertools.cycle(pods), REQUESTS))

    async def work() -> None:
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            for token, body in turns:
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                started = time.perf_counter()
                async with session.post(url, data=body, headers=headers) as answer:
                    content = await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"HTTP {answer.status}: {content.decode()}")
                took.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(work())
    return sorted(took)


async def measure(
    broker: BrokerProcess, path: str, tls: ssl.SSLContext, pods: list[tuple[str, bytes]], clients: int
) -> str:
    """One row of the table."""
    cpu, started = broker.cpu_seconds(), time.perf_counter()
    took = await ask(f"https://127.0.0.1:{broker.port}{path}", tls, pods, clients)
    seconds, used = time.perf_counter() - started, broker.cpu_seconds() - cpu
    middle, late = took[len(took) // 2], took[len(took) * 99 // 100]
    return (
        f"| {path} | {clients} | {len(took) / seconds:.0f} | {middle * 1000:.1f} | {late * 1000:.1f} "
        f"| {used / len(took) * 1000:.2f} | {broker.peak_mebibytes():.0f} |"
    )


async def run(stage: Stage, pods: int, clients: list[int]) -> list[str]:
    """All rows."""
    made, authority = await make_pods(stage, pods), Authority()
    tls = ssl.create_default_context(cadata=authority.certificate.decode())
    broker = BrokerProcess(stage, authority)
    rows = []
    try:
        for number in clients:
            for path in ("/empty", "/v1/decrypt"):
                rows.append(await measure(broker, path, tls, made, number))
                print(rows[-1], flush=True)
    finally:
        broker.stop()
    return rows


def main() -> None:
    """Sets the stage, measures, prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", nargs=2, type=Path, metavar=("KUBECONFIG", "CERTIFICATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(*options.serve))
        return
    rows = [
        describe_machine(),
        "",
        "| path | clients | requests/s | median ms | 99 % ms | process: CPU ms/request | process: peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(rows), flush=True)
    with set_up() as stage:
        rows += asyncio.run(run(stage, options.pods, [int(number) for number in options.clients.split(",")]))
    if options.out:
        options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
