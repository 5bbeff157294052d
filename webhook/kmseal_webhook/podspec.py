"""What a pod says that decides how it is injected: which containers are meant, who they run as, what is in the way.

Called by ``injection`` with a pod as the API server sends it to admission. It reads and refuses; it changes nothing.
What is ours in a pod that was injected before is told apart here from what is the user's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmseal.envelope import shorten
from kmseal.errors import Malformed
from kmseal_webhook.annotations import CONTAINERS_MAX, INJECTED, PREFIX, annotation_field
from kmseal_webhook.forms import listed, nearest, overlap, refused

Json = dict[str, Any]

INIT: Final = "kmseal-init"
REFRESH: Final = "kmseal-refresh"
SECRETS_VOLUME: Final = "kmseal-secrets"
TOKEN_VOLUME: Final = "kmseal-token"  # noqa: S105  # The name of a volume.
RESERVED: Final = "kmseal-"
"""How the names of our containers and volumes begin; in a pod that is injected, no other name may."""
CONFIG_VARIABLE: Final = "KMSEAL_CONFIG"

ITEMS_MAX: Final = 10_000
"""Mounts and variables of all containers together."""

_ARGUMENTS: Final = {INIT: ["init"], REFRESH: ["refresh"]}
_VOLUMES: Final = {SECRETS_VOLUME: "emptyDir", TOKEN_VOLUME: "projected"}
_MIRROR: Final = "kubernetes.io/config.mirror"
_SERVICE: Final = ".svc"


@dataclass(frozen=True, slots=True)
class Container:
    """A container or init container of the user, and its path in the pod."""

    path: str
    body: Json

    @property
    def name(self) -> str:
        """Unique among all containers of the pod."""
        return str(self.body.get("name", ""))


def is_injected(pod: Json) -> bool:
    """Whether we have been here before, in this admission or in an earlier one."""
    return INJECTED in (pod["metadata"].get("annotations") or {})


def containers(pod: Json) -> Iterator[Container]:
    """All containers of the user: init containers first, in their order."""
    for kind in ("initContainers", "containers"):
        for index, body in enumerate(pod["spec"].get(kind) or ()):
            if body.get("name") not in _ARGUMENTS:
                yield Container(f"spec.{kind}[{index}]", body)


def chosen(pod: Json, names: tuple[str, ...] | None) -> list[Container]:
    """The containers that get the secrets; None chooses all but init containers. Raises Malformed."""
    everything = list(containers(pod))
    if names is None:
        return [container for container in everything if container.path.startswith("spec.containers")]
    known = {container.name: None for container in everything}
    for name in names:
        if name not in known:
            raise refused(
                annotation_field("containers"),
                f"{shorten(name)} is not a container of this pod",
                f"name one of {listed(tuple(known))}{nearest(name, tuple(known))}",
            )
    return [container for container in everything if container.name in names]


def require_possible(pod: Json) -> None:
    """Refuses pods that cannot be injected at all."""
    spec = pod["spec"]
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if system == "windows":
        raise refused(
            annotation_field("inject"), "is not possible in a Windows pod", "remove it, and use a native Secret there"
        )
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        raise refused(
            annotation_field("inject"),
            "is not possible in a static pod, which has no ServiceAccount",
            "remove it from the manifest on the node, or let a DaemonSet make the pod",
        )


def require_reasonable(pod: Json) -> None:
    """Refuses pods with so much in them that going through it would hold up the admission of all others.

    No node could run them; but whoever may create pods can send them, for admission comes before validation.
    """
    bodies = [body for kind in ("initContainers", "containers") for body in pod["spec"].get(kind) or ()]
    if len(bodies) > CONTAINERS_MAX:
        raise _too_many(f"{len(bodies)} containers", CONTAINERS_MAX)
    items = sum(len(body.get(kind) or ()) for body in bodies for kind in ("volumeMounts", "volumeDevices", "env"))
    if items > ITEMS_MAX:
        raise _too_many(f"{items} mounts and variables", ITEMS_MAX)


def _too_many(what: str, most: int) -> Malformed:
    return refused("spec", f"has {what}; at most {most} are possible in a pod that is injected", "split the pod")


def judge_dns(pod: Json, host: str) -> Iterator[str]:
    """Refuses a pod whose DNS cannot find the broker, for its first init container would fail until somebody looked.

    Yields a warning where that depends on what nobody here knows: the cluster's name server and its domain.
    """
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    on_host = bool(spec.get("hostNetwork"))
    if not (host.endswith(_SERVICE) or f"{_SERVICE}." in host):
        return
    # Kubernetes treats ClusterFirst as Default in pods on the host's network.
    if policy == "Default" or (policy == "ClusterFirst" and on_host):
        where = " on the host's network" if on_host else ""
        raise refused(
            "spec.dnsPolicy",
            f"{policy}{where} means the node's name server, which does not know {host}",
            f"write {'ClusterFirstWithHostNet' if on_host else 'ClusterFirst'}, or remove {PREFIX}inject",
        )
    if policy == "None":
        yield (
            f"spec.dnsPolicy: None: the pod finds {host} only if spec.dnsConfig names the cluster's name server, and "
            "the cluster's domain (cluster.local) in its searches"
        )


def require_ours(pod: Json) -> None:
    """Refuses what looks like a part of ours and is not: it would be mistaken for one, or clash with one."""
    before = is_injected(pod)
    for kind in ("initContainers", "containers"):
        for index, body in enumerate(pod["spec"].get(kind) or ()):
            path, name = f"spec.{kind}[{index}]", str(body.get("name", ""))
            if name.startswith(RESERVED) and not (before and kind == "initContainers" and _is_agent(body)):
                raise _reserved(f"{path}.name", name)
            if not before:
                _require_no_reference(path, body)
    for index, volume in enumerate(pod["spec"].get("volumes") or ()):
        name = str(volume.get("name", ""))
        if name.startswith(RESERVED) and not (before and _VOLUMES.get(name) in volume):
            raise _reserved(f"spec.volumes[{index}].name", name)


def _is_agent(body: Json) -> bool:
    variables = [variable.get("name") for variable in body.get("env") or ()]
    return body.get("args") == _ARGUMENTS.get(body["name"]) and CONFIG_VARIABLE in variables


def _reserved(path: str, name: str) -> Malformed:
    return refused(
        path,
        f"{shorten(name)} is not what kmseal injects, and names that begin with {RESERVED} are reserved for that",
        f"rename it, or remove {PREFIX}inject",
    )


def _require_no_reference(path: str, body: Json) -> None:
    for index, mount in enumerate(body.get("volumeMounts") or ()):
        if str(mount.get("name", "")).startswith(RESERVED):
            raise _reserved(f"{path}.volumeMounts[{index}].name", str(mount["name"]))
    for index, variable in enumerate(body.get("env") or ()):
        volume = volume_of(variable)
        if volume.startswith(RESERVED):
            raise _reserved(f"{path}.env[{index}].valueFrom.fileKeyRef.volumeName", volume)


def volume_of(variable: Json) -> str:
    """The volume that a variable is read from; empty where it is not read from a file."""
    source = (variable.get("valueFrom") or {}).get("fileKeyRef") or {}
    return str(source.get("volumeName", ""))


def effective(pod: Json, container: Container, field: str) -> Any:
    """A field of the security context, from the container or else from its pod; None where neither sets it."""
    own = (container.body.get("securityContext") or {}).get(field)
    return own if own is not None else (pod["spec"].get("securityContext") or {}).get(field)


def common(pod: Json, meant: Sequence[Container], field: str) -> int | None:
    """The one number that all these containers have in a field, as runAsUser; None where one differs or has none."""
    found = {effective(pod, container, field) for container in meant}
    return found.pop() if len(found) == 1 else None


def pod_group(pod: Json) -> int | None:
    """fsGroup: the group that files of volumes get, in which every container is."""
    group: int | None = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return group


def is_guaranteed(pod: Json) -> bool:
    """Whether Kubernetes would give the user's containers the quality of service Guaranteed."""
    return all(_is_guaranteed(container.body.get("resources") or {}) for container in containers(pod))


def _is_guaranteed(resources: Json) -> bool:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return all(name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))


def require_free_path(container: Container, path: str, secret: str, field: str) -> None:
    """Refuses to mount at, under or above what the container mounts already.

    What is at the same path would be hidden, and mounting inside a read-only volume, or one that is empty at first,
    fails when the container starts.

    :param field: the path of the annotation that decides the directory
    """
    for kind, member in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        for index, mount in enumerate(container.body.get(kind) or ()):
            if mount.get("name") == SECRETS_VOLUME:
                continue
            other = str(mount.get(member, ""))
            if overlap(path, other):
                raise refused(
                    f"{container.path}.{kind}[{index}].{member}",
                    f"{shorten(other)} of the container {shorten(container.name)} and {path}, the files of the secret "
                    f"{secret}, get into each other's way",
                    f"choose another directory: {field.removeprefix('metadata.annotations[').removesuffix(']')}",
                )


def require_free_names(container: Container, variables: Mapping[str, str]) -> None:
    """Refuses variables that the container defines itself.

    Those of its ``envFrom`` are not looked at: Kubernetes prefers ours to them.

    :param variables: the secret behind each
    """
    for index, variable in enumerate(container.body.get("env") or ()):
        name = variable.get("name")
        if name in variables and volume_of(variable) != SECRETS_VOLUME:
            secret = variables[name]
            raise refused(
                f"{container.path}.env[{index}].name",
                f"{shorten(name)} is also a variable that the secret {secret} gives to the container "
                f"{shorten(container.name)}",
                f"remove it here, or give the value another name with {PREFIX}names.{secret}",
                reason="Variable",
            )
