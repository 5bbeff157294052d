"""A kubelet's share in injection, for control planes that have none: runs the agent of a stored pod as a process.

The integration tests and the demo give it pods as the API server has stored them. It does what a kubelet does with the
parts that the webhook writes: a folder for each volume, a token by the TokenRequest API that it renews, the
ClusterTrustBundles of a signer, containers in their order, mounts by ``subPath``, variables by ``fileKeyRef``. Images
it does not have: some stand for a program of this machine, and of all others it shows what they would find.

It knows nothing of kmseal but one thing. There are no mount namespaces and no cluster DNS here, so that paths and the
address in KMSEAL_CONFIG are rewritten to where they really are; nothing else of a pod is changed.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.envfile import EnvFileError, find_variable
from kmseal_dev.errors import ControlPlaneError

Json = dict[str, Any]
CONFIG: Final = "KMSEAL_CONFIG"
_PATHS: Final = ("root", "token", "ca")
_REFERENCE: Final = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")


class StartError(ControlPlaneError):
    """A container cannot start, or an init container has failed: its exit code, if there is one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Kubelet:
    """One node.

    :param folder: an empty folder for the volumes of all pods
    :param images: the program behind an image, as arguments
    :param broker: where the Service of the webhook is, as ``https://127.0.0.1:<port>``
    :param look_seconds: between two looks at trust bundles; a real one looks about once a minute
    :param token_seconds: the age at which a token is exchanged; a real one does so after 80 % of its life
    """

    control_plane: ControlPlane
    folder: Path
    images: Mapping[str, Sequence[str]]
    broker: str
    look_seconds: float = 0.2
    token_seconds: float = 2.0

    async def start(self, pod: Json) -> "RunningPod":
        """Runs a stored pod until its containers have started.

        Raises StartError where they cannot; then nothing of the pod runs.
        """
        running = RunningPod(self, pod)
        try:
            await running.start()
        except BaseException:
            await running.stop()
            raise
        return running

    async def request(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self.control_plane.request, method, path, body)


class RunningPod:
    """A pod on its node; made by :meth:`Kubelet.start`."""

    def __init__(self, kubelet: Kubelet, pod: Json) -> None:
        self._kubelet = kubelet
        self.pod = pod
        self.folder = kubelet.folder / str(pod["metadata"]["uid"])
        self.containers: dict[str, Container] = {}
        """What each container that runs no program here has found when it started."""
        self.logs: dict[str, bytes] = {}
        """What each program has said, on both streams."""
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._listeners: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Volumes, then init containers one after the other, then containers."""
        spec = self.pod["spec"]
        for volume in spec.get("volumes") or ():
            self.volume(volume["name"]).mkdir(parents=True)
            for source in volume.get("projected", {}).get("sources", ()):
                await self._project(volume["name"], source)
        for container in spec.get("initContainers") or ():
            is_sidecar = container.get("restartPolicy") == "Always"
            if container["image"] not in self._kubelet.images:
                self._show(container)
            elif is_sidecar:
                await self._run(container)
            else:
                process = await self._run(container)
                await self._ended(container["name"])
                if process.returncode != 0:
                    said = self.logs[container["name"]].decode(errors="replace")
                    raise StartError(f"{container['name']} ended with {process.returncode}: {said}", process.returncode)
        for container in spec["containers"]:
            self._show(container)

    async def stop(self) -> None:
        """As at the end of a pod: SIGTERM to what runs, then the volumes go."""
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        for name in list(self._processes):
            await self._ended(name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for container in self.containers.values():
            container.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_refreshed(self) -> bool:
        """Whether a native sidecar runs."""
        return any(process.returncode is None for process in self._processes.values())

    def exit_code(self, name: str) -> int | None:
        """How a program has ended; None while it runs."""
        return self._processes[name].returncode

    def volume(self, name: str) -> Path:
        """The folder of a volume."""
        return self.folder / name

    def restart(self, name: str) -> "Container":
        """A container starts again: it sees the volumes and variables as they are now.

        Raises StartError where it cannot.
        """
        container = next(item for item in self.pod["spec"]["containers"] if item["name"] == name)
        before = self.containers[name]
        after = self._show(container)
        before.close()
        return after

    # -- programs

    async def _run(self, container: Json) -> asyncio.subprocess.Process:
        program = [*self._kubelet.images[container["image"]], *container.get("args", ())]
        environment = {**self._environment(container)}
        if CONFIG in environment:
            environment[CONFIG] = self._localize(container, environment[CONFIG])
        process = await asyncio.create_subprocess_exec(
            *program, env=environment, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        name = container["name"]
        self._processes[name], self.logs[name] = process, b""
        self._listeners[name] = asyncio.create_task(self._listen(name, process))
        return process

    async def _listen(self, name: str, process: asyncio.subprocess.Process) -> None:
        while process.stdout and (content := await process.stdout.read(65536)):
            self.logs[name] += content

    async def _ended(self, name: str) -> None:
        await self._processes[name].wait()
        await self._listeners[name]  # What it said last may still be on its way.

    def _localize(self, container: Json, text: str) -> str:
        config = json.loads(text)
        for member in _PATHS:
            if member in config:
                config[member] = str(self._find(container, config[member]))
        return json.dumps({**config, "broker": self._kubelet.broker})

    def _find(self, container: Json, path: str) -> Path:
        for mount in container.get("volumeMounts") or ():
            if Path(path).is_relative_to(mount["mountPath"]):
                return self.volume(mount["name"]) / Path(path).relative_to(mount["mountPath"])
        raise StartError(f"{container['name']} has nothing mounted at {path}")

    # -- what a container finds

    def _show(self, container: Json) -> "Container":
        found = Container(self._environment(container))
        self.containers[container["name"]] = found
        for mount in container.get("volumeMounts") or ():
            if self.volume(mount["name"]).is_dir():
                found.mount(mount["mountPath"], self.volume(mount["name"]) / mount.get("subPath", ""))
        return found

    def _environment(self, container: Json) -> dict[str, str]:
        variables: dict[str, str] = {}
        for entry in container.get("env") or ():
            reference = entry.get("valueFrom", {}).get("fileKeyRef")
            if reference is None:
                text = _REFERENCE.sub(lambda match: _expand(match, variables), entry.get("value", ""))
            else:
                path = self.volume(reference["volumeName"]) / reference["path"]
                try:
                    text = find_variable(path.read_bytes(), reference["key"])
                except (OSError, EnvFileError) as error:
                    raise StartError(f"CreateContainerConfigError: {container['name']}: {error}") from None
            variables[entry["name"]] = text
        return variables

    # -- projected volumes

    async def _project(self, volume: str, source: Json) -> None:
        """Fills it, and keeps it up to date for as long as the pod is there."""
        if token := source.get("serviceAccountToken"):
            await self._write_token(volume, token)
            self._keep(self._kubelet.token_seconds, lambda: self._write_token(volume, token))
        elif bundle := source.get("clusterTrustBundle"):
            await self._write_bundle(volume, bundle)
            self._keep(self._kubelet.look_seconds, lambda: self._write_bundle(volume, bundle))

    def _keep(self, seconds: float, write: Any) -> None:
        async def again() -> None:
            while True:
                await asyncio.sleep(seconds)
                # A pod that was deleted gets no more tokens, and an API server that is away is asked again.
                with suppress(StartError, OSError):
                    await write()

        self._tasks.append(asyncio.create_task(again()))

    async def _write_token(self, volume: str, source: Json) -> None:
        metadata, account = self.pod["metadata"], self.pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {
            "audiences": [source["audience"]],
            "expirationSeconds": source["expirationSeconds"],
            "boundObjectRef": reference,
        }
        answer = await self._kubelet.request("POST", path, {"spec": spec})
        if answer.status != 201:
            raise StartError(f"no token for {account}: {answer.body}")
        _replace(self.volume(volume) / source["path"], answer.body["status"]["token"])

    async def _write_bundle(self, volume: str, source: Json) -> None:
        answer = await self._kubelet.request("GET", "/apis/certificates.k8s.io/v1/clustertrustbundles")
        if answer.status != 200:
            raise StartError(f"no trust bundles: {answer.body}")
        specs = [item["spec"] for item in answer.body["items"]]
        bundles = [spec["trustBundle"] for spec in specs if spec.get("signerName") == source["signerName"]]
        if not bundles:
            raise StartError(f"there is no trust bundle of {source['signerName']}")
        _replace(self.volume(volume) / source["path"], "".join(bundles))


@dataclass
class Container:
    """What the program of a container would find.

    A mount stays what it was when the container started, whatever is put in the place of its folder later: hence the
    open folders.
    """

    env: Mapping[str, str]
    _mounts: dict[str, int] = field(default_factory=dict)

    def mount(self, at: str, folder: Path) -> None:
        """Mounts a folder, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._mounts[at] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def close(self) -> None:
        """Ends all mounts."""
        for descriptor in self._mounts.values():
            os.close(descriptor)
        self._mounts.clear()

    @property
    def mounts(self) -> set[str]:
        """All paths at which something is mounted."""
        return set(self._mounts)

    def files(self, path: str) -> dict[str, bytes]:
        """The files that a program sees in a mounted folder, by name; without what is gone when it reads it."""
        found = {}
        for name in os.listdir(self._mounts[path]):
            if not name.startswith(".."):
                with suppress(FileNotFoundError):
                    found[name] = self._read(path, name)
        return found

    def snapshot(self, path: str) -> dict[str, bytes]:
        """The files of one moment, by the link that all of them lead through."""
        generation = os.open("..data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._mounts[path])
        try:
            found = {}
            for name in os.listdir(generation):
                with open(os.open(name, os.O_RDONLY, dir_fd=generation), "rb") as file:
                    found[name] = file.read()
            return found
        finally:
            os.close(generation)

    def mode(self, path: str, name: str) -> int:
        """The permissions of a file."""
        return os.stat(name, dir_fd=self._mounts[path]).st_mode & 0o7777

    def _read(self, path: str, name: str) -> bytes:
        with open(os.open(name, os.O_RDONLY, dir_fd=self._mounts[path]), "rb") as file:
            return file.read()


def _expand(match: "re.Match[str]", variables: Mapping[str, str]) -> str:
    if match[1] == "$":
        return "$"
    return variables.get(match[2], match[0])


def _replace(path: Path, text: str) -> None:
    """At once, as all files of a projected volume are exchanged."""
    fresh = path.with_name(f"..{path.name}")
    fresh.write_text(text)
    fresh.rename(path)
