"""The parts of a pod that are wholly ours: two volumes, and the agent's containers with their configuration.

Called by ``injection``. What the agent is told is a contract with ``kmseal_agent.config``, described in
``docs/injection-protocol.md``. Everything here passes the restricted pod security standard.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kmseal_webhook.annotations import InjectedSecret, Injection
from kmseal_webhook.identity import AUDIENCE
from kmseal_webhook.permissions import Permissions
from kmseal_webhook.podspec import CONFIG_VARIABLE, INIT, REFRESH, SECRETS_VOLUME, TOKEN_VOLUME, is_guaranteed
from kmseal_webhook.registration import SIGNER

Json = dict[str, Any]

TOKEN_SECONDS: Final = 600
"""The shortest that the API server issues."""
MEMORY_LIMIT: Final = "32Mi"
_ROOT: Final = "/kmseal"
_ACCESS: Final = "/var/run/kmseal"
_CA_VARIABLE: Final = "KMSEAL_CA"
_GUARANTEED_LIMITS: Final = {"cpu": "200m", "memory": "64Mi"}
"""For pods of the quality of service Guaranteed, which demands limits of both: where the settings have none."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the webhook's own configuration decides in a pod.

    :param broker: ``https://<host>:<port>``
    :param server_name: the name in the broker's certificate
    :param ca: the authorities (PEM) that the broker is trusted by; None where the cluster serves a trust bundle
    :param server_version: of the API server, as (1, 37)
    :param oldest_kubelet: of all nodes; None where it is not known
    """

    image: str
    broker: str
    server_name: str
    ca: str | None
    server_version: tuple[int, int]
    oldest_kubelet: tuple[int, int] | None
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "10m", "memory": "24Mi"})
    limits: Mapping[str, str] = field(default_factory=lambda: {"memory": "64Mi"})
    deadline_seconds: int = 120


def make_volumes(settings: AgentSettings) -> list[Json]:
    """Memory for the secrets, and what it takes to ask the broker: a token, and whom to trust."""
    sources: list[Json] = [
        {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}}
    ]
    if settings.ca is None:
        # An empty selector means all bundles of the signer; none at all would mean no bundle.
        sources.append({"clusterTrustBundle": {"signerName": SIGNER, "labelSelector": {}, "path": "ca.crt"}})
    return [
        {"name": SECRETS_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": MEMORY_LIMIT}},
        {"name": TOKEN_VOLUME, "projected": {"sources": sources}},
    ]


def make_agents(pod: Json, injection: Injection, permissions: Permissions, settings: AgentSettings) -> list[Json]:
    """The init container and, with refresh, the native sidecar that follows it."""
    agents = [_make(INIT, ["init"], pod, injection, permissions, settings)]
    if injection.refresh_seconds is not None:
        # Kubernetes ends a native sidecar after the containers, so that Jobs complete.
        sidecar = _make(REFRESH, ["refresh"], pod, injection, permissions, settings)
        agents.append({**sidecar, "restartPolicy": "Always"})
    return agents


def _make(
    name: str, arguments: list[str], pod: Json, injection: Injection, permissions: Permissions, settings: AgentSettings
) -> Json:
    config = json.dumps(_config(injection, permissions, settings), separators=(",", ":"))
    environment = [{"name": CONFIG_VARIABLE, "value": _literal(config)}]
    if settings.ca is not None:
        environment.append({"name": _CA_VARIABLE, "value": _literal(settings.ca)})
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "env": environment,
        "volumeMounts": [
            {"name": SECRETS_VOLUME, "mountPath": _ROOT},
            {"name": TOKEN_VOLUME, "mountPath": _ACCESS, "readOnly": True},
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": permissions.user,
            "runAsGroup": permissions.group,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # What it says last stands in the pod's status: nobody has to find the logs of an init container.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_resources(pod, settings),
    }


def _literal(text: str) -> str:
    """The value of a variable that comes out as this text: Kubernetes expands $(NAME), and makes one $ of two."""
    return text.replace("$", "$$")


def _resources(pod: Json, settings: AgentSettings) -> Json:
    """None of its own where the pod has a budget; requests like the limits where less would cost the pod Guaranteed."""
    if pod["spec"].get("resources"):
        return {}
    if is_guaranteed(pod):
        both = {**_GUARANTEED_LIMITS, **settings.limits}
        return {"resources": {"requests": both, "limits": dict(both)}}
    return {"resources": {"requests": dict(settings.requests), "limits": dict(settings.limits)}}


def _config(injection: Injection, permissions: Permissions, settings: AgentSettings) -> Json:
    config: Json = {
        "broker": settings.broker,
        "serverName": settings.server_name,
        "token": f"{_ACCESS}/token",
        "root": _ROOT,
        "deadlineSeconds": settings.deadline_seconds,
        "secrets": [_wanted(secret, permissions.modes[secret.name]) for secret in injection.secrets],
    }
    if settings.ca is None:
        config["ca"] = f"{_ACCESS}/ca.crt"
    if injection.refresh_seconds is not None:
        config["refreshSeconds"] = injection.refresh_seconds
    if injection.reload is not None:
        config["reload"] = injection.reload
    return config


def _wanted(secret: InjectedSecret, mode: int) -> Json:
    wanted: Json = {"name": secret.name, "files": secret.files, "env": secret.env, "mode": f"{mode:04o}"}
    if secret.names is not None:
        wanted["names"] = dict(secret.names)
    return wanted
