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
import subprocess
import sys
import time
from pathlib import Path

from stage import OperatorProcess, Stage, create_objects, describe_machine, in_parallel, set_up

from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, SECRETS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import API_VERSION, KIND, EncryptedSecret


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


def measure(stage: Stage, count: int) -> str:
    """One row of the table."""
    bare_namespace, namespace = f"bare-{count}", f"ours-{count}"
    for name in (bare_namespace, namespace):
        stage.control_plane.kubectl("create", "namespace", name)
        asyncio.run(create_objects(stage, name, count))
    output = subprocess.run(
        [sys.executable, __file__, "--bare", str(stage.control_plane.kubeconfig), bare_namespace, str(count)],
        env=stage.kms["operator"], check=True, capture_output=True, text=True,
    )  # fmt: skip
    bare = json.loads(output.stdout)
    operator = OperatorProcess(stage, "--namespace", namespace)
    try:
        ready = operator.wait_for("/readyz", "ok")
        idle_cpu = operator.cpu_seconds()
        done = operator.wait_for("/metrics", f'kmseal_objects{{reason="Applied"}} {count:.1f}')
        cpu, memory = operator.cpu_seconds() - idle_cpu, operator.peak_mebibytes()
    finally:
        operator.stop()
    again = OperatorProcess(stage, "--namespace", namespace)
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
    rows = [
        describe_machine(),
        "",
        "| objects | bare: objects/s | operator: objects/s | ratio | bare: CPU ms/object "
        "| operator: CPU ms/object | operator: peak MiB | ready again, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(rows), flush=True)
    with set_up() as stage:
        for size in map(int, options.sizes.split(",")):
            rows.append(measure(stage, size))
            print(rows[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
