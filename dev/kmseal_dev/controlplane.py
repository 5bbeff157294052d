"""Runs etcd and kube-apiserver on loopback in a temporary folder: ready in about two seconds, gone without a trace.

The integration tests share one by a fixture; benches and the demo start their own; ``python -m
kmseal_dev.controlplane`` runs one in a terminal. RBAC is on and every request is audited. There is no controller
manager, no scheduler and no kubelet: nothing collects garbage, a deleted namespace stays Terminating, no pod runs.

All calls block; from asynchronous code use ``asyncio.to_thread``. It must not be reachable from outside: etcd asks
nobody who they are, and the folder holds a cluster-admin token.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kmseal_dev import audit
from kmseal_dev.api import Answer, Api
from kmseal_dev.binaries import Binaries, find_binaries
from kmseal_dev.certificates import Authority, signing_keys
from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.processes import Server, ServerGroup

ADMIN = "kmseal-admin"
# Ready takes under two seconds on an idle machine; the rest is for one that compiles at the same time.
START_SECONDS = 90.0
POLL_SECONDS = 0.05
# Below the range from which Linux takes the local ports of outgoing connections: while the API server is stopped,
# no client's connection can take its port by chance.
PORTS = range(20000, 32000)


class ControlPlane:
    """One control plane; use it as a context manager, or call ``start`` and in the end ``stop``."""

    def __init__(self, *, binaries: Binaries | None = None, audited: bool = True) -> None:
        """``audited=False`` spares the API server a written line per request, for measurements."""
        self._binaries = binaries
        self._audited = audited
        self._folder: Path | None = None
        self._group: ServerGroup | None = None
        self._etcd: Server | None = None
        self._apiserver: Server | None = None
        self._authority = Authority()
        self._token = secrets.token_urlsafe(32)
        self._etcd_url = ""
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Everything of this control plane: data, keys, logs, kubeconfigs. Exists while it is started."""
        if self._folder is None:
            raise ControlPlaneError("the control plane is not started: call start() or enter it with `with`")
        return self._folder

    @property
    def server(self) -> str:
        """The base URL of the API server; it stays the same across restarts."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The certificate to check the API server's against, PEM."""
        return self.folder / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for cluster-admin, by bearer token."""
        return self.folder / "admin.kubeconfig"

    @property
    def token(self) -> str:
        """The bearer token of cluster-admin."""
        return self._token

    @property
    def programs(self) -> Binaries:
        """The programs it runs, kubectl among them."""
        if self._binaries is None:
            self._binaries = find_binaries()
        return self._binaries

    def start(self) -> None:
        """Starts everything and waits until it is ready; raises ControlPlaneError with the end of a log if it is not."""
        if self._folder is not None:
            raise ControlPlaneError("the control plane is started already: call stop() first, or make another one")
        programs = self.programs
        self._folder = Path(tempfile.mkdtemp(prefix="kmseal-controlplane-"))
        try:
            client_port, peer_port, self._port = _free_ports(3)
            self._etcd_url = f"http://127.0.0.1:{client_port}"
            self._write_files()
            self._group = ServerGroup(self._folder)
            self._etcd = self._group.start("etcd", self._etcd_command(programs, f"http://127.0.0.1:{peer_port}"))
            self._wait_for(self._etcd, lambda: _accepts(client_port))
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the servers and removes the folder; does nothing when it is stopped."""
        if self._group is not None:
            self._group.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._group = self._etcd = self._apiserver = self._folder = None

    def start_apiserver(self) -> None:
        """Starts the API server, on the same port as before and over the same data, and waits until it is ready."""
        if self._group is None or self._apiserver is not None:
            raise ControlPlaneError("start_apiserver() needs a started control plane whose API server is stopped")
        self._apiserver = self._group.start("kube-apiserver", self._apiserver_command(self.programs))
        self._wait_for(self._apiserver, self._is_ready)

    def stop_apiserver(self) -> None:
        """Kills the API server; etcd and the data stay. Clients see what a crash looks like: resets, then refusals."""
        if self._apiserver is not None:
            self._apiserver.kill()
            self._apiserver = None

    def restart_apiserver(self) -> None:
        self.stop_apiserver()
        self.start_apiserver()

    def kubeconfig_for(self, user: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig for any user in any groups, by client certificate. What the user may do, RBAC objects say.

        For a ServiceAccount rather use its token: ``kubectl("create", "token", name, "-n", namespace)``.
        """
        pair = self._authority.client(user, groups)
        credentials = {"client-certificate-data": _base64(pair.public), "client-key-data": _base64(pair.private)}
        path = self.folder / f"user-{secrets.token_hex(4)}.kubeconfig"
        self._write_kubeconfig(path, user, credentials)
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Runs kubectl, as cluster-admin unless told otherwise, and returns what it prints; raises ControlPlaneError."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),
        }
        command = [str(self.programs.kubectl), *arguments]
        try:
            done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            raise ControlPlaneError(f"kubectl {arguments[0]} did not finish within a minute") from None
        if done.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Sends one request as cluster-admin (see ``Api.request``)."""
        api = Api(self._port, self._token, str(self.ca_file))
        return api.request(method, path, body, content_type=content_type, headers=headers, timeout=timeout)

    def audit_log(self) -> audit.AuditLog:
        """A reader of what is asked of the API server from now on."""
        if not self._audited:
            raise ControlPlaneError("this control plane was made with audited=False")
        return audit.AuditLog(self.folder / "audit.jsonl")

    def check_alive(self) -> None:
        """Raises ControlPlaneError when a server that should run has ended."""
        for server in (self._etcd, self._apiserver):
            if server is not None and (code := server.exit_code) is not None:
                raise ControlPlaneError(f"{server.name} ended with code {code}; its log ends:\n{server.log_tail()}")

    def _write_files(self) -> None:
        serving = self._authority.serving("127.0.0.1", "localhost", "kubernetes.default.svc")
        accounts = signing_keys()
        contents = {
            "ca.crt": self._authority.certificate,
            "serving.crt": serving.public,
            "serving.key": serving.private,
            "accounts.pub": accounts.public,
            "accounts.key": accounts.private,
            "tokens.csv": f'{self._token},{ADMIN},{ADMIN},"system:masters"\n'.encode(),
            "audit-policy.json": json.dumps(audit.POLICY).encode(),
        }
        for name, content in contents.items():
            # The folder itself is open to its owner only (mkdtemp).
            (self.folder / name).write_bytes(content)
        self._write_kubeconfig(self.kubeconfig, ADMIN, {"token": self._token})

    def _write_kubeconfig(self, path: Path, user: str, credentials: Mapping[str, str]) -> None:
        cluster = {"server": self.server, "certificate-authority-data": _base64(self._authority.certificate)}
        context = {"cluster": "kmseal-dev", "user": user, "namespace": "default"}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kmseal-dev", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "kmseal-dev", "context": context}],
            "current-context": "kmseal-dev",
        }
        # JSON is YAML, and the standard library writes no other.
        path.write_text(json.dumps(config, indent=2) + "\n")

    def _etcd_command(self, programs: Binaries, peer_url: str) -> list[str | Path]:
        return [
            programs.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            # The data need not survive the machine, and a disk that is busy must not slow the tests.
            "--unsafe-no-fsync",
            "--log-level=error",
        ]

    def _apiserver_command(self, programs: Binaries) -> list[str | Path]:
        folder = self.folder
        auditing = audit.server_flags(folder / "audit-policy.json", folder / "audit.jsonl") if self._audited else []
        return [
            programs.apiserver,
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--etcd-servers={self._etcd_url}",
            # With any other it refuses to advertise a loopback address.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={folder}",
            f"--tls-cert-file={folder / 'serving.crt'}",
            f"--tls-private-key-file={folder / 'serving.key'}",
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Nothing creates the default ServiceAccounts, which this plugin would wait for before it admits a pod.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            *auditing,
        ]

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz", timeout=5.0).status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _wait_for(self, server: Server, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise ControlPlaneError(
                    f"{server.name} was not ready {START_SECONDS:.0f} s after its start; its log ends:\n{server.log_tail()}"
                )
            time.sleep(POLL_SECONDS)


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; all are held until the last is found, so that they differ."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", secrets.choice(PORTS)))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        return [int(holder.getsockname()[1]) for holder in held]
    finally:
        for holder in held:
            holder.close()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


if __name__ == "__main__":
    from kmseal_dev.terminal import main

    main()
