"""Plays the kubelet for the injected containers of a pod: there is none beside a bare control plane.

Used by the demo. It takes a pod as the API server stored it, makes what a kubelet would mount (an empty volume, a token
of the pod, the trust bundle), and runs the agent with the container's own environment. All that it changes in that are
paths, which are in a folder of its own, and the broker's address, since nothing resolves the names of Services here.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

AUDIENCE: Final = "kmseal.dev/broker"
TRUST_BUNDLE: Final = "kmseal.dev:broker:ca"
SECONDS: Final = 60.0


class PlayedPod:
    """One pod.

    :param kubectl: runs kubectl as an administrator and returns what it prints
    :param folder: where volumes are made
    :param broker: the address of the webhook, as ``127.0.0.1:8443``
    """

    def __init__(self, kubectl: Callable[..., str], namespace: str, name: str, *, folder: Path, broker: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._name = name
        self._broker = broker
        self.volume = folder / name / "kmseal-secrets"
        self._projected = folder / name / "kmseal-token"
        self._pod: dict[str, Any] = json.loads(kubectl("get", "pod", name, "-n", namespace, "-o", "json"))

    def run_init(self) -> "subprocess.CompletedProcess[str]":
        """Runs the init container to its end; its log is in ``stderr``."""
        environment = self._prepare("kmseal-init")
        return subprocess.run(
            [sys.executable, "-m", "kmseal_agent", "init"],
            env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    def read(self, container: str, path: str) -> str:
        """What a file is in a container, by its mounts."""
        found = next(item for item in self._pod["spec"]["containers"] if item["name"] == container)
        for mount in found["volumeMounts"]:
            if mount["name"] == "kmseal-secrets" and path.startswith(mount["mountPath"] + "/"):
                inside = path.removeprefix(mount["mountPath"]).lstrip("/")
                return Path(self.volume, mount["subPath"], inside).read_text()
        raise FileNotFoundError(path)

    def _prepare(self, container: str) -> dict[str, str]:
        self.volume.mkdir(parents=True, exist_ok=True)
        self._projected.mkdir(exist_ok=True)
        account = self._pod["spec"].get("serviceAccountName") or "default"
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", self._name)
        uid = ("--bound-object-uid", self._pod["metadata"]["uid"], "--audience", AUDIENCE)
        token = self._kubectl("create", "token", account, "-n", self._namespace, *bound, *uid)
        (self._projected / "token").write_text(token.strip())
        bundle = self._kubectl("get", "clustertrustbundle", TRUST_BUNDLE, "-o", "jsonpath={.spec.trustBundle}")
        (self._projected / "ca.crt").write_text(bundle)
        injected = next(item for item in self._pod["spec"]["initContainers"] if item["name"] == container)
        environment = {item["name"]: item["value"] for item in injected["env"]}
        config = json.loads(environment["KMSEAL_CONFIG"])
        config |= {
            "broker": f"https://{self._broker}",
            "root": str(self.volume),
            "token": str(self._projected / "token"),
            "ca": str(self._projected / "ca.crt"),
        }
        return {**environment, "KMSEAL_CONFIG": json.dumps(config), "PATH": ""}
