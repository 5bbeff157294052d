"""Injection from the annotation to the value: admitted by the real API server, fetched by the real agent.

The pods are those that the API server stored; what their containers find is read as a kubelet would mount it.
"""

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from kmseal_dev.kubelet import StartError

CANARY = b"canary-2f7be1c05d"
DB = {"user": b"app-of-db", "password": CANARY}
TEXT = {name: value.decode() for name, value in DB.items()}
DEFAULT = "/run/secrets/kmseal/db"
APP = {"name": "app", "image": "app:1"}


async def test_files(house: Any, trail: Any) -> None:
    """Each value is a file that only its user may read, and the grant has left one line of the audit trail."""
    replica = await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({"inject": "db"}, securityContext={"runAsUser": 1000})
    app = pod.containers["app"]
    assert app.mounts == {DEFAULT}
    assert app.files(DEFAULT) == DB
    assert app.mode(DEFAULT, "password") == 0o400
    assert app.env == {}
    assert not pod.is_refreshed
    (line,) = trail()
    assert (line["decision"], line["pod"], line["secrets"]) == ("allow", pod.pod["metadata"]["name"], ["db"])
    assert (line["namespace"], line["serviceAccount"]) == (house.namespace, "app")
    assert [key["keyId"] for key in line["keys"]] == [house.key]
    assert house.granted() == 1
    assert house.site.admissions(replica, "validate", allowed=True) == 1
    assert replica.metrics.registry.get_sample_value("kmseal_unwrap_seconds_count") == 1


async def test_variables(house: Any) -> None:
    """Each value is a variable, to which others of the container can refer; nothing is mounted."""
    await house.replica()
    await house.secret("db", {**DB, "note": b'two\nlines, "quoted" $(user) \xc3\xa4'})
    await house.allow("db")
    url = {"name": "URL", "value": "postgres://$(user):$(password)@db"}
    pod = await house.run({"inject": "db", "as": "env"}, containers=[{**APP, "env": [url]}])
    app = pod.containers["app"]
    assert app.mounts == set()
    assert app.env == {
        **TEXT, "note": 'two\nlines, "quoted" $(user) ä', "URL": f"postgres://app-of-db:{CANARY.decode()}@db"
    }  # fmt: skip


async def test_files_and_variables(house: Any) -> None:
    """Both at once, of one grant."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({"inject": "db", "as": "both"})
    assert pod.containers["app"].files(DEFAULT) == DB
    assert pod.containers["app"].env == TEXT
    assert house.granted() == 1


async def test_other_names(house: Any) -> None:
    """Values have the names that the pod gives them, and those that it does not list stay away."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({"inject": "db", "as": "both", "names.db": "password=PGPASSWORD"})
    assert pod.containers["app"].files(DEFAULT) == {"PGPASSWORD": CANARY}
    assert pod.containers["app"].env == {"PGPASSWORD": CANARY.decode()}


async def test_a_template_of_the_pod(house: Any) -> None:
    """It makes the only file, of the name, at the place and with the mode that the pod asks for."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({
        "inject": "db", "path.db": "/etc/app", "mode.db": "0440", "file.db": "pgpass",
        "template.db": "db:5432:app:{{ values.user }}:{{ values.password }}\n",
    })  # fmt: skip
    assert pod.containers["app"].files("/etc/app") == {"pgpass": b"db:5432:app:app-of-db:" + CANARY + b"\n"}
    assert pod.containers["app"].mode("/etc/app", "pgpass") == 0o440


async def test_templates_of_the_object(house: Any) -> None:
    """Where the EncryptedSecret makes its values of templates, pods get these, as a native Secret would."""
    await house.replica()
    await house.secret("db", DB, target={"data": {"url": "postgres://{{ values.user }}:{{ values.password }}@db"}})
    await house.allow("db")
    pod = await house.run({"inject": "db", "as": "both"})
    assert pod.containers["app"].files(DEFAULT) == {"url": b"postgres://app-of-db:" + CANARY + b"@db"}
    assert set(pod.containers["app"].env) == {"url"}


async def test_two_secrets_each_in_its_own_way(house: Any) -> None:
    """Each has a folder or variables of its own. While one of them is forbidden, the pod gets neither."""
    await house.replica()
    await house.secret("db", DB)
    await house.secret("cache", {"URL": b"redis://cache.example"})
    await house.allow("db")
    stored = await house.admit({"inject": "db, cache", "as.cache": "env"})
    with pytest.raises(StartError, match="Forbidden") as caught:
        await house.kubelet.start(stored)
    assert caught.value.code == 4
    assert house.granted() == 0
    await house.allow("cache")
    pod = await house.start(stored)
    app = pod.containers["app"]
    assert app.mounts == {DEFAULT}
    assert app.files(DEFAULT) == DB
    assert app.env == {"URL": "redis://cache.example"}


async def test_chosen_containers_and_init_containers(house: Any) -> None:
    """An init container that is chosen finds the values when it starts; a container that is not chosen finds none."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run(
        {"inject": "db", "as": "both", "containers": "app, migrate", "refresh": "1h"},
        containers=[APP, {"name": "other", "image": "other:1"}],
        initContainers=[{"name": "first", "image": "first:1"}, {"name": "migrate", "image": "migrate:1"}],
    )
    for name in ("app", "migrate"):
        assert pod.containers[name].files(DEFAULT) == DB
        assert pod.containers[name].env == TEXT
    for name in ("first", "other"):
        assert (pod.containers[name].mounts, pod.containers[name].env) == (set(), {})


async def test_a_job_ends(house: Any) -> None:
    """The sidecar is a native one: when the containers have ended, the kubelet ends it, at once and with success."""
    await house.replica()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({"inject": "db", "refresh": "1s"}, restartPolicy="Never")
    await house.granted_again()
    (init, sidecar) = pod.pod["spec"]["initContainers"]
    assert "restartPolicy" not in init
    assert sidecar["restartPolicy"] == "Always"
    assert pod.is_refreshed
    async with asyncio.timeout(2.0):
        await pod.stop()
    assert pod.exit_code("kmseal-refresh") == 0


async def test_a_value_that_cannot_be_a_variable(house: Any) -> None:
    """The pod does not start, and its last words name the value and never what it is."""
    await house.replica()
    await house.secret("db", {"password": b"canary-with-a-'quote'"})
    await house.allow("db")
    with pytest.raises(StartError, match="db/password: cannot be an environment variable") as caught:
        await house.run({"inject": "db", "as": "env"})
    assert caught.value.code == 3


async def test_nothing_is_in_etcd(house: Any) -> None:
    """With an operator beside, and all that was done for the pod: no Secret, and no value in any file of etcd."""
    await house.replica()
    await house.operator()
    await house.secret("inject-only", DB)
    await house.allow("inject-only")

    async def settled() -> bool:
        status = (await house.object("inject-only")).get("status", {})
        return bool(status.get("observedGeneration"))

    await house.until(settled)
    pod = await house.run({"inject": "inject-only", "as": "both", "refresh": "1s"})
    await house.granted_again()
    assert pod.containers["app"].env == TEXT
    found = (await house.site.send("GET", "/api/v1/secrets"))["items"]
    assert house.namespace not in [item["metadata"]["namespace"] for item in found]
    assert b64encode(CANARY).decode() not in str(found)
    written = b"".join(
        path.read_bytes() for path in (house.site.control_plane.folder / "etcd").rglob("*") if path.is_file()
    )
    assert f"{house.namespace}/inject-only".encode() in written, "this looks into the files that etcd writes"
    # In base64, whatever stands before it.
    forms = [b64encode(bytes(shift) + CANARY)[4 * (shift > 0) : -4] for shift in range(3)]
    assert not [form for form in (CANARY, *forms) if form in written]


async def test_an_object_that_was_wrapped_again(house: Any, trail: Any) -> None:
    """After a rotation, pods are served by the newer wrapping, while Git still has the older one."""
    await house.replica()
    await house.kms_key()
    await house.operator()
    await house.secret("db", DB)
    await house.allow("db")
    pod = await house.run({"inject": "db", "refresh": "1s"})
    (before,) = {key["keyVersionId"] for line in trail() for key in line["keys"]}
    house.kms.rotate(house.key)

    async def wrapped_again() -> bool:
        return bool((await house.object("db")).get("status", {}).get("rewrapped"))

    await house.until(wrapped_again)
    (item,) = (await house.object("db"))["status"]["rewrapped"]
    after = item["wrapping"]["keyVersionId"]
    assert after != before
    await house.until(lambda: trail()[-1]["keys"] == [{"keyId": house.key, "keyVersionId": after}])
    assert pod.containers["app"].files(DEFAULT) == DB
    assert (await house.run({"inject": "db"})).containers["app"].files(DEFAULT) == DB
