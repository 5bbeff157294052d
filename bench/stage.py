"""What the load programs share: an API server, a fake KMS, objects to work on, and the operator as a process."""

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_dev.controlplane import ControlPlane

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CLIENTS = 32
PORT = 18099
KEY = "acs:kms:cn-hangzhou:1000000000000001:alias/bench"


@dataclass(frozen=True)
class Stage:
    """All that runs."""

    control_plane: ControlPlane
    folder: Path
    kms: dict[str, dict[str, str]]
    """The environment of each identity, with no budget in the way."""
    switches: str
    """Where the fake KMS takes orders."""

    def admin(self, *arguments: str) -> str:
        """Runs ``kmseal dev key`` as the administrator of the fake KMS."""
        done = subprocess.run(
            [BIN / "kmseal", "dev", "key", *arguments],
            env={**self.kms["operator"], "KMSEAL_DEV_ADMIN": self.switches}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout


@contextmanager
def set_up() -> Iterator[Stage]:
    """Starts the API server with the CRDs, and the fake KMS with one key; stops them at the end."""
    with tempfile.TemporaryDirectory() as text, ControlPlane(audited=False) as control_plane:
        folder = Path(text)
        control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
        with (folder / "kms.json").open("wb") as summary:
            kms = subprocess.Popen(
                [BIN / "kmseal", "dev", "kms", "--alias", "bench", "--env-file", folder / "env", "-o", "json"],
                stdout=summary,
            )  # fmt: skip
        try:
            while not (folder / "env.operator").exists():
                time.sleep(0.1)
            environments = {role: read_environment(folder / f"env.{role}") for role in ("developer", "operator")}
            switches = json.loads((folder / "kms.json").read_text().splitlines()[-1])["admin"]
            yield Stage(control_plane, folder, environments, switches)
        finally:
            kms.terminate()
            kms.wait(30)


def describe_machine() -> str:
    """One line above a table."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}; the API server and the fake KMS share the cores."
    )


async def create_objects(stage: Stage, namespace: str, count: int, *, name: str = "o") -> None:
    """Seals and creates N objects of one value each, with a data key of their own."""
    environment = stage.kms["developer"]
    async with (
        KubeClient(load_kubeconfig(stage.control_plane.kubeconfig), user_agent="bench") as kube,
        Keyring(KmsSettings.from_environment(environment), environment) as keyring,
    ):

        async def create(index: int) -> None:
            place, id_ = Place.of(Scope.STRICT, namespace, f"{name}{index}"), new_data_key_id()
            fresh = await keyring.generate(KEY, place.encryption_context())
            line = encrypt_value(fresh.data_key, id_, place, "password", Redacted(b"correct horse")).line()
            body = {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": f"{name}{index}", "namespace": namespace},
                "spec": {
                    "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [fresh.wrapping.to_dict()]}],
                    "encryptedData": {"password": line},
                },
            }
            await kube.create(ENCRYPTED_SECRETS, namespace, body, manager="bench")

        await in_parallel(create, count)


async def in_parallel(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Runs work(0) … work(count - 1), 32 at a time."""
    indexes = iter(range(count))

    async def worker() -> None:
        for index in indexes:
            await work(index)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(worker())


class Measured:
    """A process, with what it has used of the machine."""

    _process: "subprocess.Popen[Any]"

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mebibytes(self) -> float:
        """The most memory that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


class OperatorProcess(Measured):
    """kmseal-operator as a process, with what it has used of the machine."""

    def __init__(self, stage: Stage, *arguments: str, kms: dict[str, str] | None = None) -> None:
        """:param arguments: further flags; ``kms``: variables in place of those of the stage"""
        self.started = time.perf_counter()
        self._log = (stage.folder / "operator.log").open("ab")
        self._process = subprocess.Popen(
            [BIN / "kmseal-operator", "--kubeconfig", stage.control_plane.kubeconfig,
             "--listen", f"127.0.0.1:{PORT}", *arguments],
            env={**stage.kms["operator"], **(kms or {})}, stderr=self._log,
        )  # fmt: skip

    def wait_for(self, path: str, wanted: str) -> float:
        """Seconds from the start until ``path`` answers with ``wanted``."""
        while self._process.poll() is None:
            if wanted in self.read(path):
                return time.perf_counter() - self.started
            time.sleep(0.05)
        raise SystemExit(f"the operator has ended; see {self._log.name}")

    def read(self, path: str) -> str:
        """What a path answers now; nothing where there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


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
