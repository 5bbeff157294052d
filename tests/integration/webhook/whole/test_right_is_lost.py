"""The kill switch reaches pods: whatever takes the right takes the values of pods that run, and gives them back."""

import os
from typing import Any

import pytest

from kmseal_dev.kubelet import StartError

DB = {"user": b"app-of-db", "password": b"canary-91d07aa4c3"}
DEFAULT = "/run/secrets/kmseal/db"
REFRESHED = {"inject": "db", "as": "both", "refresh": "1s"}


async def wiped(house: Any, pod: Any) -> None:
    """Waits until a container finds nothing, within a small part of the lifetime of a grant."""
    # Which fails after thirty seconds: a small part of the ten minutes that are promised.
    await house.until(lambda: pod.containers["app"].files(DEFAULT) == {})
    # No copy is left in any corner of the volume: not of the files, and not of what variables are made of.
    await house.until(lambda: not any(files for _, _, files in os.walk(pod.volume("kmseal-secrets"))))
    assert pod.is_refreshed
    # A container that starts now gets no variables either.
    with pytest.raises(StartError, match="CreateContainerConfigError"):
        pod.restart("app")


async def back(house: Any, pod: Any) -> None:
    """Waits until the files are what they were, in the mount that the container has had all the time."""
    await house.until(lambda: pod.containers["app"].files(DEFAULT) == DB)
    # Files come first, and what variables are made of a moment later.
    await house.until((pod.volume("kmseal-secrets") / "env" / "db.env").exists)
    assert pod.restart("app").env == {name: value.decode() for name, value in DB.items()}


async def test_a_disabled_key(house: Any, trail: Any) -> None:
    """Seen by the operator's poll, it wipes the files of pods, with no more calls of KMS; enabling it heals."""
    replica = await house.replica()
    path = await house.kms_key()
    await house.operator()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(REFRESHED)
    house.kms.disable(house.key)

    async def seen() -> bool:
        return bool((await house.site.send("GET", path)).get("status", {}).get("state") == "Disabled")

    await house.until(seen)
    await wiped(house, pod)
    line = trail()[-1]
    assert (line["decision"], line["reason"]) == ("deny", "KeyUnusable")
    await house.until(lambda: replica.keys.refusal(house.key, house.namespace) is not None)
    calls, lines = house.asked(), len(trail())
    await house.until(lambda: len(trail()) >= lines + 2)
    assert house.asked() == calls, "what the operator saw is known here as well: KMS is not asked again"
    house.kms.enable(house.key)
    await back(house, pod)


async def test_a_disabled_key_that_nobody_polls(house: Any) -> None:
    """Without a KMSKey, and without an operator, KMS itself says so to the broker."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(REFRESHED)
    house.kms.disable(house.key)
    await wiped(house, pod)
    house.kms.enable(house.key)
    await back(house, pod)


async def test_a_removed_binding(house: Any, trail: Any) -> None:
    """The ServiceAccount may not decrypt the object any more."""
    await house.replica()
    await house.secret("db", DB)
    binding = await house.allow("db")
    pod = await house.run(REFRESHED)
    await house.site.send("DELETE", binding)
    await wiped(house, pod)
    assert trail()[-1]["reason"] == "Forbidden"
    await house.allow("db")
    await back(house, pod)


async def test_a_deleted_object(house: Any, trail: Any) -> None:
    """What is not there any more is not kept by those who had it."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(REFRESHED)
    await house.site.send("DELETE", house.path("db"))
    await wiped(house, pod)
    assert trail()[-1]["reason"] == "NotFound"
    await house.secret("db", DB)
    await back(house, pod)


async def test_a_deleted_pod_gets_nothing_more(house: Any, trail: Any) -> None:
    """As where a node has lost its API server: the agent runs on with its last token, which is worth nothing."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(REFRESHED)
    name = pod.pod["metadata"]["name"]
    path = f"/api/v1/namespaces/{house.namespace}/pods/{name}?gracePeriodSeconds=0"
    await house.site.send("DELETE", path)
    await house.until(lambda: pod.containers["app"].files(DEFAULT) == {})
    assert trail()[-1]["reason"] in ("BadToken", "PodGone")


async def test_faults_take_nothing(house: Any) -> None:
    """KMS down, then no replica at all: the files stay as they are, and a change arrives when all are back."""
    replica = await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(REFRESHED)
    app = pod.containers["app"]
    await house.kms.stop_listening()
    await house.until(lambda: pod.logs["kmseal-refresh"].count(b"not refreshed") >= 2)
    assert app.files(DEFAULT) == DB
    await house.site.kill(replica)
    await house.until(lambda: b"BrokerUnreachable" in pod.logs["kmseal-refresh"])
    assert app.files(DEFAULT) == DB
    await house.kms.start_listening()
    await house.replica()
    await house.secret("db", {"password": b"canary-after-all-that"})
    await house.until(lambda: app.files(DEFAULT) == {"password": b"canary-after-all-that"})
