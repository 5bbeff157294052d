"""The webhook's settings. How KMS is reached is in ``kmseal.kms.settings``; both are read once at start."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kmseal.errors import Misconfigured
from kmseal_webhook.gate import FOR_AGENTS, Patience
from kmseal_webhook.limits import BrokerLimits
from kmseal_webhook.rollover import Terms

_QUANTITY: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi)?", re.ASCII)
_RESOURCES: Final = ("cpu", "memory")
BROKER_SERVICE_PORT: Final = 8444
"""The port of the Service that agents ask; with API servers the configurations settle it (443)."""
MOUNT: Final = Path("/var/run/kmseal-webhook/tls")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What ``kmseal-webhook`` can be told: a flag of the same name and a variable KMSEAL_<NAME> each, but for the last
    five, which are for tests."""

    listen: str = ":8443"
    """Address of the port for API servers, with TLS: /mutate and /validate. Without a host, all addresses of IPv4 and
    IPv6."""

    broker_listen: str = ":8444"
    """Address of the port for agents, with TLS: /v1/decrypt. A port of its own, so that pods cannot fill that of the
    API servers, and a NetworkPolicy can keep them away from it."""

    admission_client_ca: Path | None = None
    """Authorities of the API servers' client certificates, PEM: then nobody else may ask for reviews. Read at the
    start."""

    health: str = ":8081"
    """Address of /healthz, /readyz and /metrics, without TLS; nothing secret is served there."""

    namespace_of_service: str = "kmseal-system"
    """The namespace of the Service, and so of this process: its Secrets, and those with access keys that KMSKeys name,
    are read there and nowhere else."""

    service: str = "kmseal-webhook"
    """The name of the Service, which the certificate is for; both webhook configurations are called so, too."""

    certificates: str = "own"
    """Where certificates come from: ``own`` (an authority of our own, in a Secret), ``cert-manager`` (files that it
    renews; it also keeps caBundle), or ``files`` (files that you renew)."""

    tls_secret: str = "kmseal-webhook-tls"  # noqa: S105  # The name of a Secret.
    """The Secret of ``own``. To have a new authority at once, delete it."""

    tls_cert: Path = MOUNT / "tls.crt"
    """The serving certificate with its intermediate ones, PEM, for ``cert-manager`` and ``files``."""

    tls_key: Path = MOUNT / "tls.key"
    """Its private key, PEM."""

    tls_ca: Path = MOUNT / "ca.crt"
    """The authorities by which the API server and pods check it, PEM."""

    agent_image: str = ""
    """The image of the injected containers. Empty: /mutate refuses every pod, saying so."""

    agent_requests: str = "cpu=10m,memory=24Mi"
    """What the injected containers request, as ``resource=quantity``, separated by commas."""

    agent_limits: str = "memory=64Mi"
    """What they may use. Values of a pod's secrets are held in memory while they are written: at most 16 MiB. No limit
    on the processor: the agent needs it for a tenth of a second, for which the pod waits, and a limit of 200m would
    make half a second of that."""

    keys: str = "open"
    """Which keys may open objects, as for the operator: ``open``, ``registered`` or ``off``. Both must say the same."""

    missed: str = "report"
    """What happens to annotated pods that were not injected: ``report`` (metric and event), ``evict`` (as well), or
    ``off``."""

    dry_run_unwrap: bool = False
    """Whether /validate opens each new EncryptedSecret to see that it can be: one KMS call for each."""

    drain_seconds: float = 10.0
    """How long the end may take: half of it new connections are still taken, then what is under way is answered.
    The pod's terminationGracePeriodSeconds must be longer."""

    silence: float = 300.0
    """Seconds without any word of the API server on a feed before /healthz fails. It sends a bookmark about once a
    minute; less than two minutes restarts a healthy process."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; default: the pod's ServiceAccount, else ``KUBECONFIG``, else ``~/.kube/config``."""

    log_level: str = "info"
    """debug, info, warning or error. The audit lines of the broker are always written."""

    terms: Terms = field(default_factory=Terms)
    """How long certificates of our own live."""

    look_seconds: float = 30.0
    """Seconds between two looks at certificates: a new one is served so much later at the most."""

    patience: Patience = field(default_factory=Patience)
    """What a client may take of the port for API servers."""

    broker_patience: Patience = FOR_AGENTS
    """What a client may take of the port for agents."""

    limits: BrokerLimits = field(default_factory=BrokerLimits)
    """How often the broker may be asked."""

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names of the Service."""
        short = f"{self.service}.{self.namespace_of_service}"
        return f"{short}.svc", f"{short}.svc.cluster.local", short


def read_resources(text: str, flag: str) -> Mapping[str, str]:
    """Reads ``cpu=10m,memory=24Mi``; either may be left out. Raises Misconfigured."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, quantity = part.strip().partition("=")
        if name not in _RESOURCES or name in found or not _QUANTITY.fullmatch(quantity):
            raise Misconfigured(
                f'"{part.strip()}" is not a resource and its quantity', field=flag, remedy="write cpu=10m,memory=24Mi"
            )
        found[name] = quantity
    return found
