"""How long a rotation takes under a budget, and how long new objects wait meanwhile.

    python bench/rotation.py [--objects 1000] [--budget 100]

The operator serves the whole cluster, the KMSKey is polled every two seconds. The key is rotated; the clock runs from
the first poll that sees it until nothing is stale in the cluster. The bar is objects / budget x 1.1. Meanwhile new
objects are made, one after the other, and the time until each is Ready is noted. Nothing here is a test.
"""

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from stage import KEY, OperatorProcess, Stage, create_objects, describe_machine, set_up

NAMESPACE = "rotation"


def key_status(stage: Stage) -> dict[str, Any]:
    """The status of the KMSKey."""
    text = stage.control_plane.kubectl("get", "kmskey", "bench", "-o", "json")
    return dict(json.loads(text).get("status", {}))


def measure(stage: Stage, count: int, budget: int) -> list[str]:
    """The rows of the table."""
    stage.control_plane.kubectl("create", "namespace", NAMESPACE)
    manifest = stage.folder / "key.yaml"
    manifest.write_text(
        "apiVersion: kmseal.dev/v1alpha1\nkind: KMSKey\nmetadata: {name: bench}\n"
        f"spec: {{keyId: '{KEY}', pollInterval: 2s}}\n"
    )
    stage.control_plane.kubectl("apply", "-f", str(manifest))
    asyncio.run(create_objects(stage, NAMESPACE, count))
    operator = OperatorProcess(stage)
    try:
        operator.wait_for("/metrics", f'kmseal_objects{{reason="Applied"}} {count:.1f}')
        while key_status(stage).get("objects") != count:
            operator.wait_for("/readyz", "ok")
            time.sleep(0.1)
    finally:
        operator.stop()
    operator = OperatorProcess(stage, kms={"KMSEAL_KMS_CRYPTO_PER_SECOND": str(budget)})
    try:
        operator.wait_for("/readyz", "ok")
        time.sleep(2.0)  # The bucket is full, as it is in a process that has run for a while.
        used = operator.cpu_seconds()
        stage.admin("rotate", KEY)
        while 'where="cluster"} 0.0' in stale(operator):
            time.sleep(0.02)
        seen = time.perf_counter()
        waits: list[float] = []
        while 'where="cluster"} 0.0' not in stale(operator):
            number = len(waits)
            asyncio.run(create_objects(stage, NAMESPACE, 1, name=f"new{number}-"))
            started = time.perf_counter()
            operator.wait_for("/metrics", f'kmseal_objects{{reason="Applied"}} {count + number + 1:.1f}')
            waits.append(time.perf_counter() - started)
        seconds, cpu = time.perf_counter() - seen, operator.cpu_seconds() - used
        memory = operator.peak_mebibytes()
    finally:
        operator.stop()
    longest = max(waits, default=0.0)
    return [
        f"| {count} | {budget} | {count / budget * 1.1:.1f} | {seconds:.1f} | {cpu / count * 1000:.2f} "
        f"| {len(waits)} | {statistics.median(waits or [0.0]):.2f} | {longest:.2f} | {memory:.0f} |"
    ]


def stale(operator: OperatorProcess) -> str:
    """The metrics of what is stale."""
    lines = operator.read("/metrics").splitlines()
    return "\n".join(line for line in lines if line.startswith("kmseal_key_stale_objects"))


def main() -> None:
    """Sets the stage, measures, prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=100, help="requests per second")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [
        describe_machine(),
        "",
        "| objects | budget per s | bar, s | rotation, s | CPU ms/object | new objects meanwhile | Ready, median s "
        "| Ready, longest s | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with set_up() as stage:
        rows += measure(stage, options.objects, options.budget)
    print("\n".join(rows))
    if options.out:
        options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
