"""Runs etcd and kube-apiserver on loopback in a temporary folder: ready in about two seconds, gone without a trace.

The integration tests share one by a fixture; benches and the demo start their own; ``python -m
kmseal_dev.controlplane`` runs one in a terminal. RBAC is on and every request is audited. There is no controller
manager, no scheduler and no kubelet: nothing collects garbage, a deleted namespace stays Terminating, no pod runs, and
the aggregated roles (admin, edit, view) are empty: bind system:aggregate-to-view and its like instead.

All calls block; from asynchronous code use ``asyncio.to_thread``. It must not be reachable from outside: etcd asks
nobody who they are, and the folder holds a cluster-admin token.
"""

import http.client
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
from typing import Self

from kmseal_dev.api import Answer, Api
from kmseal_dev.audit import AuditLog
from kmseal_dev.binaries import Binaries, find_binaries
from kmseal_dev.certificates import Authority
from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.layout import Layout
from kmseal_dev.processes import Server, ServerGroup

# Ready takes about two seconds on an idle machine; the rest is for one that compiles at the same time.
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
        self._authority = Authority()
        self._token = secrets.token_urlsafe(32)
        self._layout: Layout | None = None
        self._group: ServerGroup | None = None
        self._etcd: Server | None = None
        self._apiserver: Server | None = None

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
        return self._started.folder

    @property
    def server(self) -> str:
        """The base URL of the API server; a restart of it does not change it."""
        return self._started.server

    @property
    def ca_file(self) -> Path:
        """The certificate to check the API server's against, PEM."""
        return self._started.ca_file

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for cluster-admin, by bearer token."""
        return self._started.admin_kubeconfig

    @property
    def token(self) -> str:
        """The bearer token of cluster-admin."""
        return self._token

    @property
    def programs(self) -> Binaries:
        """The programs it runs, kubectl among them; compiles them on first use where needed."""
        if self._binaries is None:
            self._binaries = find_binaries()
        return self._binaries

    def start(self) -> None:
        """Starts everything and waits until it is ready; raises ControlPlaneError, with the end of a log."""
        if self._layout is not None:
            raise ControlPlaneError("the control plane is started already: call stop() first, or make another one")
        programs = self.programs
        ports = _free_ports(3)
        self._layout = layout = Layout(Path(tempfile.mkdtemp(prefix="kmseal-controlplane-")), *ports)
        try:
            layout.write(self._authority, self._token)
            self._group = ServerGroup(layout.folder)
            self._etcd = self._group.start("etcd", layout.etcd_command(programs))
            self._wait_for(self._etcd, lambda: _accepts(layout.etcd_port))
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the servers and removes the folder; does nothing when it is stopped."""
        # There is nothing to save and nobody to say goodbye to: killing is quick, and clean enough.
        if self._group is not None:
            self._group.close()
        if self._layout is not None:
            shutil.rmtree(self._layout.folder, ignore_errors=True)
        self._group = self._etcd = self._apiserver = self._layout = None

    def start_apiserver(self) -> None:
        """Starts the API server, on the same port as before and over the same data, and waits until it is ready."""
        if self._group is None or self._apiserver is not None:
            raise ControlPlaneError("start_apiserver() needs a started control plane whose API server is stopped")
        command = self._started.apiserver_command(self.programs, audited=self._audited)
        self._apiserver = self._group.start("kube-apiserver", command)
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

        The API server learns of a new role or binding through its own watch, milliseconds after it was created: poll.
        For a ServiceAccount rather use its token: ``kubectl("create", "token", name, "--namespace", namespace)``.
        """
        pair = self._authority.client(user, groups)
        path = self.folder / f"user-{secrets.token_hex(4)}.kubeconfig"
        credentials = {
            "client-certificate-data": b64encode(pair.public).decode(),
            "client-key-data": b64encode(pair.private).decode(),
        }
        self._started.write_kubeconfig(path, user, credentials)
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Runs kubectl, as cluster-admin by default, and returns what it prints; raises ControlPlaneError."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),
            # The preferences of whoever runs the tests must not change what they do.
            "KUBERC": "off",
        }
        command = [str(self.programs.kubectl), *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            raise ControlPlaneError(f"kubectl {' '.join(arguments[:2])} did not finish within a minute") from None
        if done.returncode != 0:
            what = " ".join(arguments[:2])
            raise ControlPlaneError(f"kubectl {what} failed with exit code {done.returncode}: {done.stderr.strip()}")
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
        api = Api(self._started.port, self._token, str(self.ca_file))
        return api.request(method, path, body, content_type=content_type, headers=headers, timeout=timeout)

    def audit_log(self) -> AuditLog:
        """A reader of what is asked of the API server from now on."""
        if not self._audited:
            raise ControlPlaneError("this control plane was made with audited=False: it keeps no audit log")
        return AuditLog(self._started.audit_log)

    def check_alive(self) -> None:
        """Raises ControlPlaneError when a server that should run has ended."""
        for server in (self._etcd, self._apiserver):
            if server is not None and (code := server.exit_code) is not None:
                raise ControlPlaneError(f"{server.name} ended with code {code}; its log ends:\n{server.log_tail()}")

    @property
    def _started(self) -> Layout:
        if self._layout is None:
            raise ControlPlaneError("the control plane is not started: call start() or enter it with `with`")
        return self._layout

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
                    f"{server.name} is not ready {START_SECONDS:.0f} s after its start; its log ends:\n"
                    f"{server.log_tail()}"
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


if __name__ == "__main__":
    from kmseal_dev.terminal import main

    main()
