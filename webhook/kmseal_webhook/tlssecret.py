"""The Secret that holds our chain: reads it strictly, writes it only over what was read.

Type kubernetes.io/tls, so that other tools know tls.crt and tls.key; beside them ca.crt (all that is to be trusted:
signer, successor, former), ca.key and ca-next.key. Every write has a precondition, so that of several replicas that see
the same need one wins, and the others read again.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kmseal.cluster.names import FIELD_MANAGER
from kmseal.errors import Malformed
from kmseal.kube import SECRETS, KubeClient
from kmseal.redacted import Redacted
from kmseal_webhook.authority import read_authority, read_certificates, read_pair
from kmseal_webhook.rollover import Chain

Json = dict[str, Any]
FORMER_UNTIL: Final = "kmseal.dev/former-until"
"""The annotation that says how long former authorities are trusted (RFC 3339)."""
_TYPE: Final = "kubernetes.io/tls"
_ABSENT: Final = "1"
"""The resource version that server-side apply creates by, and never updates (see KubeClient.apply)."""
_LABELS: Final = {"app.kubernetes.io/managed-by": "kmseal-webhook", "app.kubernetes.io/name": "kmseal"}


@dataclass(frozen=True, slots=True)
class Found:
    """The Secret as it is. ``chain`` is None where its content is of no use; ``problem`` says why."""

    version: str
    type: str
    """It cannot be changed; one of another type than ours is good as well."""
    chain: Chain | None
    problem: Malformed | None = None


class TlsSecret:
    """The Secret of that namespace and name."""

    def __init__(self, kube: KubeClient, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name

    async def read(self) -> Found | None:
        """What is there; None where there is no Secret. Raises what the API server answers."""
        raw = await self._kube.get(SECRETS, self._namespace, self._name)
        if raw is None:
            return None
        version, kind = str(raw["metadata"]["resourceVersion"]), str(raw.get("type", _TYPE))
        try:
            return Found(version, kind, read_chain(raw))
        except Malformed as error:
            return Found(version, kind, None, error)

    async def write(self, chain: Chain, found: Found | None) -> None:
        """Creates the Secret, or replaces what was found. Raises Conflict where somebody else came first.

        By server-side apply for both, for which RBAC can limit the right to create to one name.
        """
        annotations = {FORMER_UNTIL: chain.former_until.isoformat()} if chain.former_until else {}
        body: Json = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self._name,
                "labels": _LABELS,
                "annotations": annotations,
                "resourceVersion": found.version if found else _ABSENT,
            },
            "type": found.type if found else _TYPE,
            "data": {name: base64.b64encode(content).decode() for name, content in render_chain(chain).items()},
        }
        await self._kube.apply(SECRETS, self._namespace, self._name, body, manager=FIELD_MANAGER, force=True)


def render_chain(chain: Chain) -> dict[str, bytes]:
    """The data of the Secret."""
    return {
        "tls.crt": chain.leaf.certificate.pem,
        "tls.key": chain.leaf.key.reveal(),
        "ca.crt": chain.bundle,
        "ca.key": chain.signer.key.reveal(),
        "ca-next.key": chain.successor.key.reveal(),
    }


def read_chain(raw: Json) -> Chain:
    """The chain in a Secret. Raises Malformed where a part is missing or does not fit another."""
    encoded = raw.get("data") or {}
    data: dict[str, Redacted] = {}
    for name in ("tls.crt", "tls.key", "ca.crt", "ca.key", "ca-next.key"):
        try:
            data[name] = Redacted(base64.b64decode(encoded.get(name) or "", validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise Malformed("is not base64", field=f"data[{name}]") from None
    trusted = read_certificates(data["ca.crt"].reveal(), "data[ca.crt]")
    if len(trusted) < 2:
        raise Malformed("holds no successor", field="data[ca.crt]")
    signer, successor, *former = trusted
    until = (raw["metadata"].get("annotations") or {}).get(FORMER_UNTIL)
    try:
        former_until = datetime.fromisoformat(until) if until else None
    except ValueError:
        former_until = None
    if former_until and former_until.tzinfo is None:
        former_until = None
    return Chain(
        leaf=read_pair(data["tls.crt"].reveal(), data["tls.key"].reveal(), "data[tls.crt]"),
        signer=read_authority(signer.pem, data["ca.key"].reveal(), "data[ca.key]"),
        successor=read_authority(successor.pem, data["ca-next.key"].reveal(), "data[ca-next.key]"),
        former=tuple(former),
        former_until=former_until,
    )
