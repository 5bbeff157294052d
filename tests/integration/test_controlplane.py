"""The development control plane itself: what the other integration tests take for granted about it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError

# Starts a control plane, says where it is, and waits to be killed.
DOOMED_PARENT = """
import json, time
from kmseal_dev.controlplane import ControlPlane
with ControlPlane() as control_plane:
    print(json.dumps([str(control_plane.folder), control_plane.server]), flush=True)
    time.sleep(600)
"""


def config_map(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": {"key": "value"}}


def wait_until(holds: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.02)


def accepts(server: str) -> bool:
    url = urlsplit(server)
    try:
        socket.create_connection((url.hostname, url.port), timeout=1).close()
    except OSError:
        return False
    return True


def test_it_is_the_kubernetes_version_that_go_mod_names(control_plane: ControlPlane) -> None:
    """The API server and kubectl both carry the version stamp of the Kubernetes module they were compiled from."""
    module = Path(__file__).parents[2] / "dev" / "controlplane" / "go.mod"
    versions = json.loads(control_plane.kubectl("version", "--output=json"))
    wanted = versions["serverVersion"]["gitVersion"]
    if "KUBEBUILDER_ASSETS" not in os.environ:
        assert f"k8s.io/kubernetes {wanted}\n" in module.read_text()
    assert versions["clientVersion"]["gitVersion"] == wanted


def test_rbac_denies_a_user_that_nothing_is_bound_to(control_plane: ControlPlane, namespace: str) -> None:
    """A user that authenticates but has no role is refused."""
    stranger = control_plane.kubeconfig_for("stranger")
    with pytest.raises(ControlPlaneError, match=r'Forbidden.*User "stranger" cannot list resource "secrets"'):
        control_plane.kubectl("get", "secrets", "--namespace", namespace, kubeconfig=stranger)


def test_rbac_grants_what_is_bound_to_a_group(control_plane: ControlPlane, namespace: str) -> None:
    """A user may do what a role allows that is bound to one of its groups, there and nowhere else."""
    member = control_plane.kubeconfig_for("member", ["readers", "others"])
    binding = ["--clusterrole=system:aggregate-to-view", "--group=readers", "--namespace", namespace]
    control_plane.kubectl("create", "rolebinding", "readers", *binding)

    def may_list(where: str) -> bool:
        try:
            control_plane.kubectl("get", "configmaps", "--namespace", where, kubeconfig=member)
        except ControlPlaneError:
            return False
        return True

    wait_until(lambda: may_list(namespace), seconds=10)
    assert not may_list("kube-system")


def test_a_restart_of_the_api_server_keeps_objects_and_address(control_plane: ControlPlane, namespace: str) -> None:
    """While the API server is stopped connections are refused; afterwards everything is where it was."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    created = control_plane.request("POST", path, config_map("kept")).body
    address = control_plane.server
    control_plane.stop_apiserver()
    try:
        with pytest.raises(ConnectionRefusedError):
            control_plane.request("GET", path)
    finally:
        control_plane.start_apiserver()
    assert control_plane.server == address
    assert control_plane.request("GET", f"{path}/kept").body["metadata"]["uid"] == created["metadata"]["uid"]


def test_the_audit_log_has_one_write_for_one_create(control_plane: ControlPlane, namespace: str) -> None:
    """A create is one write by its user, its agent and its resource, and a read is none."""
    log = control_plane.audit_log()
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.request("POST", path, config_map("one"), headers={"User-Agent": "counted/1.0"})
    control_plane.request("GET", f"{path}/one", headers={"User-Agent": "counted/1.0"})

    (write,) = log.writes(agent="counted/")
    assert (write.verb, write.resource, write.namespace, write.code) == ("create", "configmaps", namespace, 201)
    assert log.writes(namespace=namespace) == log.writes(user="kmseal-admin", verb="create") == [write]
    assert [event.verb for event in log.events(agent="counted/")] == ["create", "get"]
    log.clear()
    assert log.events(agent="counted/") == []


def test_a_refused_write_is_counted_with_its_code(control_plane: ControlPlane, namespace: str) -> None:
    """A write that the API server refuses costs a request all the same, and the log says how it ended."""
    log = control_plane.audit_log()
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for _ in range(2):
        control_plane.request("POST", path, config_map("twice"))
    assert [write.code for write in log.writes(namespace=namespace)] == [201, 409]


def test_every_answered_write_is_in_the_audit_log_at_once(control_plane: ControlPlane, namespace: str) -> None:
    """Whoever has read the answers of many concurrent writes finds all of them in the log, without waiting."""
    log = control_plane.audit_log()
    path = f"/api/v1/namespaces/{namespace}/configmaps"

    def create(number: int) -> int:
        # An answer of 20 kB is sent in pieces: the log must be complete by the last one.
        big = {"metadata": {"name": f"big-{number}"}, "data": {"key": "x" * 20_000}}
        return control_plane.request("POST", path, big).status

    with ThreadPoolExecutor(8) as pool:
        for start in range(0, 160, 40):
            assert set(pool.map(create, range(start, start + 40))) == {201}
            assert len(log.writes(namespace=namespace)) == start + 40


def test_nothing_is_left_when_the_parent_is_killed(control_plane: ControlPlane) -> None:
    """SIGKILL of the process that started a control plane ends its servers and removes its folder."""
    assets = {**os.environ, "KUBEBUILDER_ASSETS": str(control_plane.programs.folder)}
    with subprocess.Popen([sys.executable, "-c", DOOMED_PARENT], stdout=subprocess.PIPE, env=assets) as parent:
        assert parent.stdout is not None
        folder, server = json.loads(parent.stdout.readline())
        assert Path(folder).is_dir()
        assert accepts(server)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(folder).exists(), seconds=10)
    wait_until(lambda: not accepts(server), seconds=10)


def test_a_stopped_control_plane_can_be_started_again(control_plane: ControlPlane) -> None:
    """Stopping removes the folder, a second stop does nothing, and the next start is a new, empty cluster."""
    other = ControlPlane(binaries=control_plane.programs)
    with other:
        folder = other.folder
        other.request("POST", "/api/v1/namespaces", {"metadata": {"name": "gone"}})
    assert not folder.exists()
    other.stop()
    with pytest.raises(ControlPlaneError, match="not started"):
        _ = other.server
    with other:
        assert other.request("GET", "/api/v1/namespaces/gone").status == 404


def test_assets_that_lack_a_program_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KUBEBUILDER_ASSETS folder without kubectl is an error that says so, and nothing is compiled instead."""
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(ControlPlaneError, match="no executable kubectl"):
        find_binaries()


def test_a_server_that_ends_at_once_is_an_error_with_its_log(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A server that cannot run makes start() fail with the end of its log, and leaves nothing behind."""
    (tmp_path / "etcd").write_text("#!/bin/sh\necho no space left; exit 3\n")
    (tmp_path / "etcd").chmod(0o755)
    broken = ControlPlane(binaries=type(control_plane.programs)(tmp_path))
    with pytest.raises(ControlPlaneError, match=r"etcd ended with code 3(?s:.*)no space left"):
        broken.start()
    with pytest.raises(ControlPlaneError, match="not started"):
        _ = broken.folder
