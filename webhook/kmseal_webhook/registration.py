"""Says to the cluster whom to trust: ``caBundle`` of both webhook configurations, and a ClusterTrustBundle for pods.

Called by ``certificates`` at each turn, before it serves anything new. By server-side apply, so that whoever else owns
the configurations (Helm, Argo CD) keeps the rest; only where something differs, so that a turn costs no write. It never
creates a configuration: one that is not there yet is met at a later turn.
"""

import base64
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from kmseal.cluster.names import FIELD_MANAGER
from kmseal.errors import AccessDenied, Conflict
from kmseal.kube import KubeClient, Resource

Json = dict[str, Any]
MUTATING: Final = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"
)
VALIDATING: Final = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
)
TRUST_BUNDLES: Final = Resource("certificates.k8s.io", "v1", "clustertrustbundles", "ClusterTrustBundle")
SIGNER: Final = "kmseal.dev/broker"
TRUST_BUNDLE: Final = "kmseal.dev:broker:ca"
"""The API demands the signer's name, with a colon for its slash, at the beginning."""
_AGAIN_SECONDS: Final = 300.0
"""Between two questions for trust bundles that could not be kept: clusters are upgraded, and rights are given."""
_log = logging.getLogger(__name__)


class Registration:
    """What the cluster knows of us.

    :param configuration: the name of both webhook configurations
    :param patches_configurations: False where somebody else (cert-manager) sees to ``caBundle``
    :param clock: monotonic seconds
    """

    def __init__(
        self, kube: KubeClient, configuration: str, *, patches_configurations: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._kube = kube
        self._configuration = configuration
        self._patches_configurations = patches_configurations
        self._clock = clock
        self._without_until: float | None = None
        self._said = ""
        self._missing: set[str] = set()
        self.serves_trust_bundle = False
        """Whether pods can be given the bundle as a projected ClusterTrustBundle."""

    async def publish(self, bundle: bytes) -> bool:
        """Has the cluster trust exactly this bundle (PEM); answers whether it did not already.

        Raises what the API server answers; then nothing new may be served.
        """
        changed = False
        if self._patches_configurations:
            for resource in (MUTATING, VALIDATING):
                changed |= await self._patch(resource, base64.b64encode(bundle).decode())
        return await self._apply_trust_bundle(bundle.decode("ascii")) or changed

    async def _patch(self, resource: Resource, bundle: str) -> bool:
        raw = await self._kube.get(resource, None, self._configuration)
        if raw is None:
            self._note_missing(resource)
            return False
        self._missing.discard(resource.kind)
        webhooks = raw.get("webhooks") or []
        if all((webhook.get("clientConfig") or {}).get("caBundle") == bundle for webhook in webhooks):
            return False
        body: Json = {
            "apiVersion": f"{resource.group}/{resource.version}",
            "kind": resource.kind,
            # With the uid it cannot create what somebody has deleted meanwhile.
            "metadata": {"name": self._configuration, "uid": raw["metadata"]["uid"]},
            "webhooks": [{"name": webhook["name"], "clientConfig": {"caBundle": bundle}} for webhook in webhooks],
        }
        await self._kube.apply(resource, None, self._configuration, body, manager=FIELD_MANAGER, force=True)
        _log.info("the bundle of the %s is up to date", resource.kind, extra={"object": self._configuration})
        return True

    async def _apply_trust_bundle(self, bundle: str) -> bool:
        if self._without_until is not None and self._clock() < self._without_until:
            return False
        if not self.serves_trust_bundle and not await self._kube.serves(TRUST_BUNDLES):
            self._go_without("the API server serves none")
            return False
        try:
            raw = await self._kube.get(TRUST_BUNDLES, None, TRUST_BUNDLE)
            if raw is not None and (raw.get("spec") or {}).get("trustBundle") == bundle:
                self.serves_trust_bundle = True
                return False
            body: Json = {
                "apiVersion": f"{TRUST_BUNDLES.group}/{TRUST_BUNDLES.version}",
                "kind": TRUST_BUNDLES.kind,
                "metadata": {"name": TRUST_BUNDLE},
                "spec": {"signerName": SIGNER, "trustBundle": bundle},
            }
            await self._kube.apply(TRUST_BUNDLES, None, TRUST_BUNDLE, body, manager=FIELD_MANAGER, force=True)
        except (AccessDenied, Conflict) as error:
            if self.serves_trust_bundle or isinstance(error, Conflict):
                raise  # Pods rely on it, or it will pass: not a thing to go on without.
            self._go_without(str(error))
            return False
        self.serves_trust_bundle = True
        _log.info("the ClusterTrustBundle is up to date", extra={"object": TRUST_BUNDLE})
        return True

    def _note_missing(self, resource: Resource) -> None:
        if resource.kind not in self._missing:
            self._missing.add(resource.kind)
            _log.warning(
                "there is no %s of this name: nothing is admitted by us", resource.kind,
                extra={"object": self._configuration},
            )  # fmt: skip

    def _go_without(self, why: str) -> None:
        self._without_until = self._clock() + _AGAIN_SECONDS
        if why != self._said:
            self._said = why
            _log.warning("pods get the CA as a variable, for there can be no ClusterTrustBundle: %s", why)
