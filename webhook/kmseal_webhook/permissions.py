"""Who the agent runs as in a pod, and whether the pod's containers can then read their files and get its signals.

Called by ``injection``. The agent is never root, so that namespaces under the restricted pod security standard admit
it; where all that read run as one user it is that user, and nobody else may read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmseal.envelope import shorten
from kmseal_webhook.annotations import PREFIX, Injection, deciding
from kmseal_webhook.forms import refused
from kmseal_webhook.podspec import Container, common, effective, pod_group

Json = dict[str, Any]

AGENT_USER: Final = 65_532
"""Also the user of the agent's image."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """The agent's user and group, and the permissions of the files of each secret."""

    user: int
    group: int
    modes: Mapping[str, int]

    @classmethod
    def find(cls, pod: Json, injection: Injection, chosen: Sequence[Container]) -> "Permissions":
        """As tight as what the pod says of its users allows, unless an annotation says otherwise."""
        user, group = common(pod, chosen, "runAsUser"), common(pod, chosen, "runAsGroup")
        if user:
            default = 0o400
        elif pod_group(pod) is not None:
            default = 0o440
        else:
            default = 0o444
        modes = {secret.name: default if secret.mode is None else secret.mode for secret in injection.secrets}
        return cls(user or AGENT_USER, AGENT_USER if group is None else group, modes)


def judge_modes(
    pod: Json, injection: Injection, chosen: Sequence[Container], permissions: Permissions
) -> Iterator[str]:
    """Refuses files that a container surely cannot read; yields a warning for those that it perhaps cannot."""
    for secret in injection.secrets:
        mode = permissions.modes[secret.name]
        if not secret.files or mode & 0o004:
            continue
        for container in chosen:
            user = effective(pod, container, "runAsUser")
            if user == permissions.user or (mode & 0o040 and _shares_group(pod, container, permissions)):
                continue
            where = deciding(pod["metadata"]["annotations"], "mode", secret.name)
            remedy = 'write "0444", or "0440" with fsGroup in the pod\'s securityContext'
            if user:
                raise refused(
                    where,
                    f'"{mode:04o}" lets the user {permissions.user} read, and the container '
                    f"{shorten(container.name)} runs as {user}",
                    f"{remedy}, or let all chosen containers run as one user",
                )
            yield f"{where}: {shorten(container.name)} may be unable to read {secret.name}; set runAsUser, or {remedy}"


def _shares_group(pod: Json, container: Container, permissions: Permissions) -> bool:
    context = pod["spec"].get("securityContext") or {}
    return (
        pod_group(pod) is not None
        or effective(pod, container, "runAsGroup") == permissions.group
        or permissions.group in (context.get("supplementalGroups") or ())
    )


def judge_signal(pod: Json, injection: Injection, chosen: Sequence[Container]) -> Iterator[str]:
    """Refuses a signal that the kernel would; yields a warning where it perhaps would."""
    if not injection.signals:
        return
    where, text = deciding(pod["metadata"]["annotations"], "reload"), shorten(injection.reload or "")
    if not pod["spec"].get("shareProcessNamespace"):
        raise refused(
            where,
            f"{text} cannot reach a process of another container",
            "set spec.shareProcessNamespace: true, or let the process listen: http://127.0.0.1:<port>/<path>",
        )
    users = {effective(pod, container, "runAsUser") for container in chosen}
    if len(users) > 1 or 0 in users:
        raise refused(
            where,
            f"{text} cannot be sent to the chosen containers: they run as root or as several users, and only the "
            "user of a process may",
            f"let them run as one user that is not root, or choose one of them with {PREFIX}containers",
        )
    if None in users:
        yield f"{where}: set runAsUser; unless the process runs as {AGENT_USER}, {text} will not reach it"
