"""What may go wrong, or change, around pods that start or run: they come through it with the right values."""

import asyncio
import secrets
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from kmseal.fakekms.faults import latency
from kmseal_webhook.rollover import Terms

OLD = {"user": b"old-user-of-db", "password": b"canary-old-5e1fd0"}
NEW = {"user": b"new-user-of-db", "password": b"canary-new-5e1fd0"}
DEFAULT = "/run/secrets/kmseal/db"
WAITS_FOR_HUP = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
print("waiting", flush=True)
signal.sigwait({signal.SIGHUP})
print("told", flush=True)
"""
QUICK = Terms(
    authority=timedelta(seconds=9), leaf=timedelta(seconds=4), settle=timedelta(seconds=1),
    overlap=timedelta(seconds=1), spread=0.02,
)  # fmt: skip


async def test_kms_is_down_while_pods_start(house: Any) -> None:
    """Their agents wait, and succeed as soon as KMS is back."""
    await house.replica()
    await house.secret("db", OLD)
    await house.allow("db")
    stored = [await house.admit({"inject": "db"}) for _ in range(3)]
    await house.kms.stop_listening()
    starting = [asyncio.create_task(house.start(pod)) for pod in stored]

    def all_asked_twice() -> bool:
        logs = [pod.logs.get("kmseal-init", b"") for pod in house.pods]
        return len(logs) == 3 and all(log.count(b"asking again") >= 2 for log in logs)

    await house.until(all_asked_twice)
    assert not any(task.done() for task in starting)
    assert all(b"KmsUnavailable" in pod.logs["kmseal-init"] for pod in house.pods)
    await house.kms.start_listening()
    for pod in await asyncio.gather(*starting):
        assert pod.containers["app"].files(DEFAULT) == OLD


async def test_a_replica_is_killed_in_the_middle(house: Any, trail: Any) -> None:
    """A pod whose request dies with a replica asks again, and another replica answers."""
    first = await house.replica()
    second = await house.replica()
    await house.secret("db", OLD)
    await house.allow("db")
    stored = await house.admit({"inject": "db"})
    # All connections lead to the first, and what it asks of KMS takes its time.
    house.site.front.replicas.remove(second)
    house.kms.faults.add(latency(2.0, "Decrypt", times=1))
    starting = asyncio.create_task(house.start(stored))
    await house.until(lambda: not house.kms.faults.active)
    house.site.front.replicas.append(second)
    await house.site.kill(first)
    pod = await starting
    assert pod.containers["app"].files(DEFAULT) == OLD
    assert [line["reason"] for line in trail()] == ["Aborted", "Granted"]


async def test_the_authority_is_renewed_between_two_refreshes(house: Any) -> None:
    """Pods that trust by the ClusterTrustBundle go through renewals of leaf and authority without a single failure."""
    await house.replica(terms=QUICK)
    await house.secret("db", OLD)
    await house.allow("db")
    pod = await house.run({"inject": "db", "refresh": "1s"})
    bundle = pod.volume("kmseal-token") / "ca.crt"
    first = bundle.read_text().partition("-----END")[0]
    await house.until(lambda: first not in bundle.read_text())
    await house.secret("db", NEW)
    await house.until(lambda: pod.containers["app"].files(DEFAULT) == NEW)
    assert b"asking again" not in pod.logs["kmseal-refresh"]


async def test_a_pod_that_has_its_authorities_as_a_variable(house: Any) -> None:
    """Without trust bundles, a pod knows those of the time when it was made: it is served through the next renewal."""
    await house.replica(terms=QUICK, kubeconfig=await house.user_without("certificates.k8s.io"))
    await house.secret("db", OLD)
    await house.allow("db")
    pod = await house.run({"inject": "db", "refresh": "1s"})
    assert not (pod.volume("kmseal-token") / "ca.crt").exists()
    first = (await house.site.ca_bundle()).partition(b"-----END")[0]
    (known,) = (item["value"] for item in pod.pod["spec"]["initContainers"][1]["env"] if item["name"] == "KMSEAL_CA")
    assert known.encode().startswith(first)

    async def another_signs() -> bool:
        return not (await house.site.ca_bundle()).startswith(first)

    await house.until(another_signs)
    await house.secret("db", NEW)
    await house.until(lambda: pod.containers["app"].files(DEFAULT) == NEW)
    assert b"asking again" not in pod.logs["kmseal-refresh"]


async def test_a_change_arrives_whole_and_is_told_once(house: Any, application: Any) -> None:
    """All files of a secret change in one moment; then the application is told, once, and finds them changed."""
    await house.replica()
    await house.secret("db", OLD)
    await house.allow("db")
    hook = f"http://127.0.0.1:{application.port}/reload"
    pod = await house.run({"inject": "db", "refresh": "1s", "reload": hook})
    app = pod.containers["app"]
    found: list[dict[str, bytes]] = []
    seen: list[dict[str, bytes]] = []
    application.on_call = lambda: found.append(app.files(DEFAULT))

    async def read() -> None:
        while True:
            # What has been exchanged is removed: a reader that is in the middle of it begins again.
            with suppress(FileNotFoundError):
                moment = app.snapshot(DEFAULT)
                if not seen or seen[-1] != moment:
                    seen.append(moment)
            await asyncio.sleep(0)

    reader = asyncio.create_task(read())
    await house.granted_again()
    assert application.calls == []
    await house.secret("db", NEW)
    await house.until(lambda: application.calls != [])
    await house.granted_again()
    reader.cancel()
    assert application.calls == ["/reload"]
    assert found == [NEW]
    assert seen == [OLD, NEW]


async def test_a_change_is_told_by_a_signal(house: Any, tmp_path: Path) -> None:
    """The process of the name that the pod gives gets it, after a change and not before."""
    await house.replica()
    await house.secret("db", OLD)
    await house.allow("db")
    program = tmp_path / f"app-{secrets.token_hex(4)}"
    program.symlink_to(Path(sys.executable).resolve())
    process = await asyncio.create_subprocess_exec(program, "-c", WAITS_FOR_HUP, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        assert await process.stdout.readline() == b"waiting\n"
        pod = await house.run(
            {"inject": "db", "refresh": "1s", "reload": f"signal:HUP:{program.name}"},
            shareProcessNamespace=True, securityContext={"runAsUser": 1000},
        )  # fmt: skip
        await house.granted_again()
        assert process.returncode is None
        await house.secret("db", NEW)
        async with asyncio.timeout(30.0):
            assert await process.stdout.readline() == b"told\n"
        assert pod.containers["app"].files(DEFAULT) == NEW
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_container_that_starts_again_has_the_new_variables(house: Any) -> None:
    """A refresh renews what variables are made of; a running container keeps what it has."""
    await house.replica()
    await house.secret("db", OLD)
    await house.allow("db")
    pod = await house.run({"inject": "db", "as": "env", "refresh": "1s"})
    before = pod.containers["app"]
    await house.secret("db", NEW)
    await house.until(lambda: b"secrets changed" in pod.logs["kmseal-refresh"])
    assert before.env["password"] == "canary-old-5e1fd0"
    assert pod.restart("app").env["password"] == "canary-new-5e1fd0"
