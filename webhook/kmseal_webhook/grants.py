"""One grant: from names that a pod may have to their values, which live in the answer and nowhere else.

Called by ``broker`` once it is known who asks. First everything that needs no key is looked at, for all objects; only
then is anything unwrapped, one KMS call for each data key. All are given or none. It keeps nothing, and whatever it
raises names fields, never values.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.opening import Opened, Opener, open_object
from kmseal.errors import KmsealError, Malformed, TemplateFailed
from kmseal.kms.provider import Context, Unwrapped
from kmseal.kube import ENCRYPTED_SECRETS, KubeClient
from kmseal.manifest import EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, live, read_rewrapped
from kmseal_webhook.annotations import INJECT, InjectedSecret, annotation_field, parse
from kmseal_webhook.refusals import Reason, Refusal, refusal_of_api, refusal_of_opening

Values = Mapping[str, Redacted]
_T = TypeVar("_T")


@dataclass(slots=True)
class Witness:
    """What a grant has asked of KMS, also if it fails in the end: for the audit."""

    keys: dict[KeyUse, None] = field(default_factory=dict)
    request_ids: list[str] = field(default_factory=list)

    def saw(self, request_id: str) -> None:
        """A request that KMS has answered, or refused."""
        if request_id:
            self.request_ids.append(request_id)


class Witnessed:
    """A keyring that is watched."""

    def __init__(self, keyring: Opener, witness: Witness) -> None:
        self._keyring = keyring
        self._witness = witness

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        try:
            unwrapped = await self._keyring.unwrap(wrappings, context, namespace)
        except KmsealError as error:
            self._witness.saw(error.request_id)
            raise
        self._witness.saw(unwrapped.request_id)
        self._witness.keys[KeyUse(unwrapped.key_id, unwrapped.key_version_id)] = None
        return unwrapped


def require_listed(annotations: Mapping[str, str], names: Sequence[str]) -> Sequence[InjectedSecret]:
    """What the pod's annotations say of each name. Raises Refusal unless they list every one.

    They are the pod's as it is now. Whoever may patch the pod may change them, so that they limit what a pod asks for
    and give no right: that is the ServiceAccount's alone.
    """
    if INJECT not in annotations:
        raise Refusal(Reason.NOT_LISTED, f"the pod has no annotation {INJECT}")
    try:
        injection = parse(annotations)
    except Malformed as error:
        raise Refusal(Reason.INVALID, str(error)) from None
    listed = {secret.name: secret for secret in injection.secrets} if injection else {}
    for name in names:
        if name not in listed:
            raise Refusal(Reason.NOT_LISTED, f"the pod's annotation {INJECT} does not list {name}")
    return [listed[name] for name in names]


class Grants:
    """Reads and opens objects.

    :param clock: monotonic seconds
    :param on_unwrap: is told the seconds of each unwrap, for metrics
    """

    def __init__(
        self,
        kube: KubeClient,
        keyring: Opener,
        *,
        clock: Callable[[], float],
        on_unwrap: Callable[[float], None],
    ) -> None:
        self._kube = kube
        self._keyring = keyring
        self._clock = clock
        self._on_unwrap = on_unwrap

    async def open(self, namespace: str, wanted: Sequence[InjectedSecret], witness: Witness) -> dict[str, Values]:
        """The values of all objects by name. Raises Refusal, the gravest where several fail."""
        read = _all(await asyncio.gather(*(self._read(namespace, item) for item in wanted)))
        keyring = Witnessed(self._keyring, witness)
        opened = _all(await asyncio.gather(*(self._open(*one, keyring) for one in read)))
        return {item.name: values for item, values in zip(wanted, opened, strict=True)}

    async def _read(
        self, namespace: str, listed: InjectedSecret
    ) -> tuple[InjectedSecret, EncryptedSecret, tuple[Rewrapped, ...]] | Refusal:
        try:
            raw = await self._kube.get(ENCRYPTED_SECRETS, namespace, listed.name)
        except KmsealError as error:
            return refusal_of_api(error)
        if raw is None:
            return Refusal(Reason.NOT_FOUND, f"there is no EncryptedSecret {listed.name}")
        try:
            object_ = EncryptedSecret.parse(raw)
            object_.require_place()
        except KmsealError as error:
            return _about(listed.name, refusal_of_opening(error))
        if listed.template is not None:
            # In the place of the object's own: it is over the same values, by the same rules.
            object_ = replace(object_, target=replace(object_.target, data={listed.file: listed.template}))
        return listed, object_, live(object_, read_rewrapped(raw.get("status")))

    async def _open(
        self, listed: InjectedSecret, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped], keyring: Opener
    ) -> Values | Refusal:
        opened = await open_object(object_, rewrapped, keyring, clock=self._clock, on_unwrap=self._on_unwrap)
        if isinstance(opened, Opened):
            return opened.data
        if isinstance(opened, TemplateFailed) and listed.template is not None:
            opened.field = annotation_field(f"template.{listed.name}")
        return _about(object_.name, refusal_of_opening(opened))


def _all(outcomes: Sequence[_T | Refusal]) -> list[_T]:
    """All outcomes, or raises the gravest refusal among them: the first of those in the order of the request."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    if refusals:
        raise max(refusals, key=lambda refusal: refusal.gravity)
    return [outcome for outcome in outcomes if not isinstance(outcome, Refusal)]


def _about(name: str, refusal: Refusal) -> Refusal:
    refusal.message = f"EncryptedSecret {name}: {refusal.message}"
    return refusal
