"""From a pod and what it asks for to the pod as it should be. Pure: it reads nothing and changes no argument.

Called by ``mutation`` at admission, perhaps twice for one pod (reinvocation) and with pods that were injected long ago
(restored from a backup). It must never see a value: only names of values pass through here. ``docs/injection.md`` says
what users are promised.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from kmseal.envelope import shorten
from kmseal.errors import Unavailable
from kmseal_webhook.agentspec import AgentSettings, make_agents, make_volumes
from kmseal_webhook.annotations import (
    INJECTED,
    PREFIX,
    InjectedSecret,
    Injection,
    annotation_field,
    asked,
    deciding,
)
from kmseal_webhook.forms import VARIABLE, nearest, refused
from kmseal_webhook.permissions import Permissions, judge_modes, judge_signal
from kmseal_webhook.placement import place, place_agents
from kmseal_webhook.podspec import (
    RESERVED,
    SECRETS_VOLUME,
    chosen,
    judge_dns,
    require_free_names,
    require_free_path,
    require_ours,
    require_possible,
    require_reasonable,
    volume_of,
)

Json = dict[str, Any]

ENV_FILES_SINCE: Final = (1, 35)
SIDECARS_SINCE: Final = (1, 29)


@dataclass(frozen=True, slots=True)
class Injected:
    """The pod as it should be, and what its author should know all the same."""

    pod: Json
    warnings: tuple[str, ...] = ()


def inject(
    pod: Json, injection: Injection, value_names: Mapping[str, Sequence[str]], settings: AgentSettings
) -> Injected:
    """The injected pod.

    :param pod: as admission sends it
    :param value_names: the names of the values of each secret whose ``needs_value_names``
    :raises Malformed: with the field of the annotation or of the pod that has to be corrected
    :raises Unavailable: where it takes more than is known of the nodes
    """
    annotations = pod["metadata"]["annotations"]
    require_reasonable(pod)
    require_possible(pod)
    require_ours(pod)
    of_dns = tuple(judge_dns(pod, urlsplit(settings.broker).hostname or ""))
    _require_version(annotations, injection, settings)
    meant = chosen(pod, injection.containers)
    variables = _find_variables(injection, value_names)
    for container in meant:
        require_free_names(container, variables)
        for secret in injection.secrets:
            if secret.files:
                require_free_path(container, secret.path, secret.name, deciding(annotations, "path", secret.name))
    permissions = Permissions.find(pod, injection, meant)
    warnings = (*of_dns, *judge_modes(pod, injection, meant, permissions), *judge_signal(pod, injection, meant))

    request = _digest(annotations, settings)
    result = copy.deepcopy(pod)
    result["metadata"]["annotations"][INJECTED] = request
    spec = result["spec"]
    if not spec.get("serviceAccountName"):
        # Set already wherever the admission plugin for ServiceAccounts is on. Without one, no token may be projected.
        spec["serviceAccountName"] = "default"
    place(spec, "volumes", make_volumes(settings), "name", lambda item: str(item.get("name")).startswith(RESERVED))
    names = {container.name for container in meant}
    for kind in ("initContainers", "containers"):
        for body in spec.get(kind) or ():
            if not body["name"].startswith(RESERVED):
                is_meant = body["name"] in names
                _deliver(body, injection.secrets if is_meant else (), variables if is_meant else {})
    agents = make_agents(pod, injection, permissions, settings)
    place_agents(spec, agents, names, same=annotations.get(INJECTED) == request)
    return Injected(result, warnings)


def _require_version(annotations: Mapping[str, str], injection: Injection, settings: AgentSettings) -> None:
    for secret in injection.secrets:
        if not secret.env:
            continue
        where = deciding(annotations, "as", secret.name)
        if older := _older(settings, ENV_FILES_SINCE):
            raise refused(
                where,
                f"variables need Kubernetes 1.35 or newer, and {older}",
                f"take files: {PREFIX}as.{secret.name}: files",
            )
        if settings.oldest_kubelet is None:
            # A kubelet that does not know the field ignores it: the container would start without its variables.
            raise Unavailable(
                "variables need Kubernetes 1.35 or newer on every node, and the nodes' versions are not known",
                field=where,
                reason="NodesUnknown",
                remedy=f"try again, or take files: {PREFIX}as.{secret.name}: files; "
                "if it stays so, an administrator lets kmseal-webhook list nodes",
            )
    # Not refused where the nodes are not known: with a kubelet that is too old the pod waits, and does not go without.
    if injection.refresh_seconds is not None and (older := _older(settings, SIDECARS_SINCE)):
        raise refused(
            annotation_field("refresh"),
            f"a refresh needs Kubernetes 1.29 or newer, and {older}",
            'write "off", and restart the pods when a secret changes',
        )


def _older(settings: AgentSettings, since: tuple[int, int]) -> str:
    """What in the cluster is older than this version, as the end of a message; empty where nothing is."""
    if settings.server_version < since:
        return "this is {}.{}".format(*settings.server_version)
    oldest = settings.oldest_kubelet
    if oldest is None or oldest >= since:
        return ""
    return "the oldest node has {}.{}".format(*oldest) if oldest[0] else "one node does not tell its version"


def _find_variables(injection: Injection, value_names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The secret behind each environment variable."""
    variables: dict[str, str] = {}
    for secret in injection.secrets:
        if not secret.needs_value_names:
            continue
        known = value_names[secret.name]
        _require_values(secret, known)
        if not secret.env:
            continue
        for name in secret.names.values() if secret.names else known:
            if not VARIABLE.fullmatch(name):
                raise refused(
                    annotation_field("inject"),
                    f"the value {shorten(name)} of the EncryptedSecret {secret.name} cannot be an environment variable",
                    f"give it another name with {PREFIX}names.{secret.name}: {name}=NAME (values that are not listed "
                    f"there are left out), or take files: {PREFIX}as.{secret.name}: files",
                    reason="Variable",
                )
            if name in variables:
                raise refused(
                    annotation_field("inject"),
                    f"the secrets {variables[name]} and {secret.name} both give the variable {shorten(name)}",
                    f"give one of them another name with {PREFIX}names.{secret.name}",
                    reason="Variable",
                )
            variables[name] = secret.name
    return variables


def _require_values(secret: InjectedSecret, known: Sequence[str]) -> None:
    for value in secret.names or ():
        if value not in known:
            raise refused(
                annotation_field(f"names.{secret.name}"),
                f"the EncryptedSecret {secret.name} has no value {shorten(value)}",
                f"correct the name, or add the value first{nearest(value, known)}",
            )


def _digest(annotations: Mapping[str, str], settings: AgentSettings) -> str:
    """What was asked for, and under which settings: the same for as long as all that changes is what others add."""
    request = [
        asked(annotations),
        [settings.image, settings.broker, settings.server_name, settings.ca],
        [dict(settings.requests), dict(settings.limits), settings.deadline_seconds],
    ]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def _deliver(body: Json, secrets: Sequence[InjectedSecret], variables: Mapping[str, str]) -> None:
    """Gives a container its mounts and variables; takes what an earlier request gave it and this one does not."""
    mounts = [
        {"name": SECRETS_VOLUME, "mountPath": secret.path, "subPath": f"files/{secret.name}", "readOnly": True}
        for secret in secrets
        if secret.files
    ]
    place(body, "volumeMounts", mounts, "mountPath", lambda item: item.get("name") == SECRETS_VOLUME)
    environment = [
        {"name": name, "valueFrom": {"fileKeyRef": _reference(secret, name)}} for name, secret in variables.items()
    ]
    # First, so that variables of the user can refer to them: postgres://app:$(PASSWORD)@db.
    place(body, "env", environment, "name", lambda item: volume_of(item) == SECRETS_VOLUME, first=True)


def _reference(secret: str, name: str) -> Json:
    return {"volumeName": SECRETS_VOLUME, "path": f"env/{secret}.env", "key": name}
