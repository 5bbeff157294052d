"""Everything that kmseal needs to run, on this machine: a control plane, a fake KMS, the operator and the webhook.

``demo`` uses it. The three are processes, as in real life: the operator reaches the API server with the rights of
``operator/rbac.yaml`` and nothing more, and KMS over TLS with an identity that may open; whoever types commands is a
developer, whose identity may seal and nothing else. Commands run in a shell, in the playground's folder.

It must end only what it started, and must never put a secret on a command line.
"""

import asyncio
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kmseal_dev.binaries import Binaries
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.kubelet import Kubelet
from kmseal_dev.processes import Server, ServerGroup

REPOSITORY: Final = Path(__file__).resolve().parents[2]
# The folder of the programs of this very installation, where kmseal and kmseal-operator are.
PROGRAMS: Final = Path(sys.executable).parent
START_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
AGENT_IMAGE: Final = "kmseal-agent:demo"
WEBHOOK_USER: Final = "system:serviceaccount:kmseal-system:kmseal-webhook"
OPERATOR_USER: Final = "system:serviceaccount:kmseal-system:kmseal-operator"


class Playground:
    """Use it as a context manager; entering starts all but the operator, which needs the CRD first."""

    def __init__(self, binaries: Binaries) -> None:
        self._cluster = ControlPlane(binaries=binaries)
        self.folder = Path(tempfile.mkdtemp(prefix="kmseal-playground-"))
        self.audit_file = self.folder / "kms-audit.jsonl"
        self._group: ServerGroup | None = None
        self._servers: list[Server] = []
        self.environment: dict[str, str] = {}
        self._broker = ""

    def __enter__(self) -> Self:
        try:
            self._group = ServerGroup(self.folder)
            self._cluster.start()
            admin = self._start_kms()
        except BaseException:
            self._close()
            raise
        # The rest of the user's environment stays out: a proxy, a profile or a kubeconfig would change what is shown.
        self.environment = {
            "PATH": os.pathsep.join([self.programs_path, os.defpath]),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "KUBERC": "off",
            "KMSEAL_DEV_ADMIN": admin,
            **self._identity("developer"),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def programs_path(self) -> str:
        """What to put in front of PATH to have kmseal and kubectl."""
        return os.pathsep.join([str(PROGRAMS), str(self._cluster.programs.folder)])

    def start_operator(self) -> None:
        """Starts it and waits until it is ready; raises ControlPlaneError."""
        port = _free_port()
        kubeconfig = self._cluster.kubeconfig_for(OPERATOR_USER, ["system:serviceaccounts"])
        command: list[str | Path] = [
            PROGRAMS / "kmseal-operator",
            "--kubeconfig",
            kubeconfig,
            "--listen",
            f"127.0.0.1:{port}",
        ]
        operator = self._start("operator", command, self._identity("operator"))
        self._wait_for(operator, lambda: _answers(f"http://127.0.0.1:{port}/readyz"))

    def start_webhook(self) -> None:
        """Starts it behind a Service that leads to this machine, and waits until the API server can call it."""
        port, broker, health = _free_port(), _free_port(), _free_port()
        kubeconfig = self._cluster.kubeconfig_for(WEBHOOK_USER, ["system:serviceaccounts"])
        command: list[str | Path] = [
            PROGRAMS / "kmseal-webhook", "--kubeconfig", kubeconfig, "--listen", f"127.0.0.1:{port}",
            "--broker-listen", f"127.0.0.1:{broker}", "--health", f"127.0.0.1:{health}", "--agent-image", AGENT_IMAGE,
        ]  # fmt: skip
        # To the API server a Service of this type is an address that it can go to without a proxy.
        self._cluster.kubectl(
            "create", "service", "externalname", "kmseal-webhook", "-n", "kmseal-system",
            "--external-name", "localhost", f"--tcp={port}:{port}",
        )  # fmt: skip
        manifest = (REPOSITORY / "webhook" / "webhooks.yaml").read_text().replace("port: 443,", f"port: {port},")
        (self.folder / "webhooks.yaml").write_text(manifest)
        self._cluster.kubectl("apply", "-f", str(self.folder / "webhooks.yaml"))
        webhook = self._start("webhook", command, self._identity("operator"))
        self._wait_for(webhook, lambda: _answers(f"http://127.0.0.1:{health}/readyz"))
        self._broker = f"127.0.0.1:{broker}"

    def look_into_pod(self, namespace: str, name: str, container: str, path: str) -> dict[str, bytes]:
        """Starts a stored pod as a kubelet would; answers with what a container finds there. Raises StartError."""
        kubelet = Kubelet(
            self._cluster, self.folder / "kubelet", {AGENT_IMAGE: [sys.executable, "-m", "kmseal_agent"]},
            broker=f"https://{self._broker}",
        )  # fmt: skip

        async def look() -> dict[str, bytes]:
            answer = await kubelet.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
            pod = await kubelet.start(answer.body)
            try:
                return pod.containers[container].files(path)
            finally:
                await pod.stop()

        return asyncio.run(look())

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Runs a line of shell as the developer; standard output and error come together, in order."""
        return subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def kms_calls(self) -> list[dict[str, Any]]:
        """Every request that reached KMS so far, oldest first, as its audit trail tells them."""
        if not self.audit_file.exists():
            return []
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    def logs(self) -> dict[str, str]:
        """What KMS and the operator wrote so far, by name."""
        return {server.name: server.log.read_text(errors="replace") for server in self._servers}

    def log_tails(self) -> str:
        """The ends of the logs, for whoever has to find out what went wrong."""
        return "\n".join(f"{server.log.name} ends:\n{server.log_tail(15)}" for server in self._servers)

    def check_alive(self) -> None:
        """Raises ControlPlaneError when something that should run has ended."""
        self._cluster.check_alive()
        for server in self._servers:
            if (code := server.exit_code) is not None:
                raise ControlPlaneError(f"{server.name} ended with code {code}; its log ends:\n{server.log_tail()}")

    def _start_kms(self) -> str:
        """The URL of the fake's switches, once it serves."""
        command: list[str | Path] = [PROGRAMS / "kmseal", "dev", "kms", "--output", "json"]
        command += ["--folder", self.folder / "kms-tls", "--env-file", self.folder / "kms.env"]
        command += ["--audit", self.audit_file]
        kms = self._start("kms", command)
        # It prints one line, its summary, when clients may come.
        self._wait_for(kms, lambda: kms.log.read_text().endswith("}\n"))
        return str(json.loads(kms.log.read_text().splitlines()[-1])["admin"])

    def _identity(self, name: str) -> dict[str, str]:
        """The variables of an environment file of the fake."""
        lines = (self.folder / f"kms.env.{name}").read_text().splitlines()
        words = [shlex.split(line)[1] for line in lines]
        return dict(word.split("=", 1) for word in words)

    def _start(self, name: str, command: list[str | Path], environment: dict[str, str] | None = None) -> Server:
        if self._group is None:
            raise ControlPlaneError("the playground is not started: enter it with `with`")
        server = self._group.start(name, command, environment)
        self._servers.append(server)
        return server

    def _wait_for(self, server: Server, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{server.name} is not ready; its log ends:\n{server.log_tail()}")
            time.sleep(POLL_SECONDS)

    def _close(self) -> None:
        if self._group is not None:
            self._group.close()
        self._cluster.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return int(candidate.getsockname()[1])


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
