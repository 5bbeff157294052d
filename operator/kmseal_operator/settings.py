"""The operator's settings. How KMS is reached is in ``kmseal.kms.settings``; both are read once at start."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """What ``kmseal-operator`` can be told; each field is a flag of the same name and a variable KMSEAL_<NAME>."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; default: the pod's ServiceAccount, else ``KUBECONFIG``, else ``~/.kube/config``."""

    namespaces: tuple[str, ...] = ()
    """The namespaces to serve; none means all, which needs a ClusterRole on Secrets."""

    workers: int = 32
    """Objects worked on at once. More than KMS concurrency only queue there; fewer cap objects per second at
    workers / (time of one unwrap and two writes)."""

    retry_base: float = 1.0
    """Seconds before the first retry of an object; doubles with each failure in a row."""

    retry_cap: float = 300.0
    """The longest wait between retries in seconds; faults of KMS and the API server are tried every 30 at the most."""

    listen: str = "0.0.0.0:8080"
    """Address of /healthz, /readyz and /metrics; nothing secret is served there."""

    silence: float = 300.0
    """Seconds without any word of the API server on a feed before /healthz fails. It sends a bookmark about once a
    minute; less than two minutes restarts a healthy process."""

    keys: str = "open"
    """Which keys may open objects: ``open`` (any; those that are met get a KMSKey), ``registered`` (those that a KMSKey
    names) or ``off`` (any; KMSKeys are not read: nothing is limited and nothing re-wrapped)."""

    rewrap_workers: int = 16
    """Objects re-wrapped at once. They use only what the KMS budget has left over; fewer than budget per second times
    the seconds of one call leave some of it unused."""

    status_pause: float = 5.0
    """Seconds between two writes of one KMSKey's status while objects move; progress is this old at the most."""

    own_namespace: str = "kmseal-system"
    """Where Secrets with access keys that KMSKeys name are read from, and no other; the operator's own."""

    log_level: str = "info"
    """debug, info, warning or error."""
