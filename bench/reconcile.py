"""How fast the operator makes Secrets, beside bare clients that do just the same unwrap and the same two writes.

    python bench/reconcile.py [--sizes 100,1000,5000] [--out FILE]

Each size is measured against the same API server and fake KMS: bare clients first, then the operator as a process that
starts with N new objects, then the same operator started again with N unchanged ones. Times are those of this machine
in this run: compare the ratio, not the seconds. Nothing here is a test.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, SECRETS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import API_VERSION, KIND, EncryptedSecret
from kmseal.redacted import Redacted
from kmseal_dev.controlplane import ControlPlane

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CLIENTS = 32
PORT = 18099


async def create_objects(kubeconfig: Path, namespace: str, count: int, environment: dict[str, str], key: str) -> None:
    """Seals and creates N objects of one value each, with a data key of their own."""
    async with (
        KubeClient(load_kubeconfig(kubeconfig), user_agent="bench") as kube,
        Keyring(KmsSettings.from_environment(environment), environment) as keyring,
    ):

        async def create(index: int) -> None:
            place, id_ = Place.of(Scope.STRICT, namespace, f"o{index}"), new_data_key_id()
            fresh = await keyring.generate(key, place.encryption_context())
            line = encrypt_value(fresh.data_key, id_, place, "password", Redacted(b"correct horse")).line()
            body = {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": f"o{index}", "namespace": namespace},
                "spec": {
                    "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [fresh.wrapping.to_dict()]}],
                    "encryptedData": {"password": line},
                },
            }
            await kube.create(ENCRYPTED_SECRETS, namespace, body, manager="bench")

        await in_parallel(create, count)


async def run_bare(kubeconfig: Path, namespace: str, count: int, environment: dict[str, str]) -> None:
    """The least that any operator must do: read once, then unwrap, apply and patch, 32 at a time."""
    async with (
        KubeClient(load_kubeconfig(kubeconfig), user_agent="bare") as kube,
        Keyring(KmsSettings.from_environment(environment), environment) as keyring,
    ):
        pages = [page async for page in kube.pages(ENCRYPTED_SECRETS, namespace)]
        items = [item for page in pages for item in page.items]
        started, used = time.perf_counter(), time.process_time()

        async def handle(index: int) -> None:
            object_ = EncryptedSecret.parse({"apiVersion": API_VERSION, "kind": KIND, **items[index]})
            data_key = object_.data_keys[0]
            unwrapped = await keyring.unwrap(data_key.wrappings, object_.place.encryption_context())
            object_.decrypt({data_key.id: unwrapped.data_key})
            body = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": object_.name, "namespace": namespace},
                "data": {"password": "Y29ycmVjdCBob3JzZQ=="},
            }
            await kube.apply(SECRETS, namespace, object_.name, body, manager="bare", force=True)
            await kube.patch_status(
                ENCRYPTED_SECRETS,
                namespace,
                object_.name,
                {"observedGeneration": 1},
                manager="bare",
                version=int(items[index]["metadata"]["resourceVersion"]),
            )

        await in_parallel(handle, count)
        print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - used}))


async def in_parallel(work, count: int) -> None:  # type: ignore[no-untyped-def]
    """Runs work(0) … work(count - 1), 32 at a time."""
    indexes = iter(range(count))

    async def worker() -> None:
        for index in indexes:
            await work(index)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(worker())


class OperatorProcess:
    """kmseal-operator as a process, with what it has used of the machine."""

    def __init__(self, kubeconfig: Path, namespace: str, environment: dict[str, str], log: Path) -> None:
        self.started = time.perf_counter()
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [BIN / "kmseal-operator", "--kubeconfig", kubeconfig, "--namespace", namespace,
             "--listen", f"127.0.0.1:{PORT}"],
            env=environment, stderr=self._log,
        )  # fmt: skip

    def wait_for(self, path: str, wanted: str) -> float:
        """Seconds from the start until ``path`` answers with ``wanted``."""
        while self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
                    if wanted in answer.read().decode():
                        return time.perf_counter() - self.started
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"the operator has ended; see {self._log.name}")

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mebibytes(self) -> float:
        """The most memory that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def measure(control_plane: ControlPlane, count: int, kms: dict[str, dict[str, str]], key: str, log: Path) -> str:
    """One row of the table."""
    kubeconfig = control_plane.kubeconfig
    bare_namespace, namespace = f"bare-{count}", f"ours-{count}"
    for name in (bare_namespace, namespace):
        control_plane.kubectl("create", "namespace", name)
        asyncio.run(create_objects(kubeconfig, name, count, kms["developer"], key))
    output = subprocess.run(
        [sys.executable, __file__, "--bare", str(kubeconfig), bare_namespace, str(count)],
        env=kms["operator"], check=True, capture_output=True, text=True,
    )  # fmt: skip
    bare = json.loads(output.stdout)
    operator = OperatorProcess(kubeconfig, namespace, kms["operator"], log)
    try:
        ready = operator.wait_for("/readyz", "ok")
        idle_cpu = operator.cpu_seconds()
        done = operator.wait_for("/metrics", f'kmseal_objects{{reason="Applied"}} {count:.1f}')
        cpu, memory = operator.cpu_seconds() - idle_cpu, operator.peak_mebibytes()
    finally:
        operator.stop()
    again = OperatorProcess(kubeconfig, namespace, kms["operator"], log)
    try:
        restart = again.wait_for("/readyz", "ok")
    finally:
        again.stop()
    ours, theirs = count / (done - ready), count / bare["seconds"]
    return (
        f"| {count} | {theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} | {bare['cpu'] / count * 1000:.2f} "
        f"| {cpu / count * 1000:.2f} | {memory:.0f} | {restart:.1f} |"
    )


def main() -> None:
    """Sets the stage, measures, prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000,5000")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", nargs=3, metavar=("KUBECONFIG", "NAMESPACE", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        kubeconfig, namespace, count = options.bare
        asyncio.run(run_bare(Path(kubeconfig), namespace, int(count), dict(os.environ)))
        return
    with tempfile.TemporaryDirectory() as text, ControlPlane(audited=False) as control_plane:
        folder = Path(text)
        control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
        kms = subprocess.Popen(
            [BIN / "kmseal", "dev", "kms", "--alias", "bench", "--env-file", folder / "env", "-o", "json"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not (folder / "env.operator").exists():
                time.sleep(0.1)
            environments = {role: read_environment(folder / f"env.{role}") for role in ("developer", "operator")}
            rows = [
                f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
                f"{time.strftime('%Y-%m-%d')}; the API server and the fake KMS share the cores.",
                "",
                "| objects | bare: objects/s | operator: objects/s | ratio | bare: CPU ms/object "
                "| operator: CPU ms/object | operator: peak MiB | ready again, s |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
            ]
            print("\n".join(rows), flush=True)
            for size in map(int, options.sizes.split(",")):
                key = "acs:kms:cn-hangzhou:1000000000000001:alias/bench"
                rows.append(measure(control_plane, size, environments, key, folder / "operator.log"))
                print(rows[-1], flush=True)
            if options.out:
                options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")
        finally:
            kms.terminate()
            kms.wait(30)


def read_environment(path: Path) -> dict[str, str]:
    """The environment of an identity, with no budget in the way."""
    lines = [line.removeprefix("export ") for line in path.read_text().splitlines() if line.startswith("export ")]
    environment = dict(line.split("=", 1) for line in lines)
    unquoted = {name: value.strip("'\"") for name, value in environment.items()}
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "KMSEAL_KMS_CRYPTO_PER_SECOND": "100000",
        **unquoted,
    }


if __name__ == "__main__":
    main()
