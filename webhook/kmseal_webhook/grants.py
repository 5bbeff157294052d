"""One grant: from names that a pod may have to their values, which live in the answer and nowhere else.

Called by ``broker`` once it is known who asks. First everything that needs no key is looked at, for all objects; then
those that can be are opened, one KMS call for each data key, also beside one that cannot: what that one has wrong must
not hide that the key of another was shut. All are given or none. It keeps nothing, and whatever it raises names
fields, never values.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from kmseal.cluster.opening import Opened, Opener, open_object
from kmseal.cluster.templates import TEMPLATES_CHARACTERS_MAX
from kmseal.errors import KmsealError, Malformed, TemplateFailed
from kmseal.kube import ENCRYPTED_SECRETS, KubeClient
from kmseal.manifest import EncryptedSecret
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, live, read_rewrapped
from kmseal_webhook.annotations import DEFAULT_PATH, INJECT, InjectedSecret, annotation_field, parse
from kmseal_webhook.refusals import Reason, Refusal, gravest, refusal_of_api, refusal_of_opening
from kmseal_webhook.witness import Witness, Witnessed

Values = Mapping[str, Redacted]

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of the encoded values of one answer with their names: what the agent takes (docs/injection-protocol.md)."""
_MEMBER_BYTES: Final = 64
"""What JSON adds to a name or a value, amply: the whole answer stays below what the agent reads."""


class _Read(NamedTuple):
    """An object that may be opened."""

    listed: InjectedSecret
    object: EncryptedSecret
    rewrapped: tuple[Rewrapped, ...]


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


def as_it_is(name: str) -> InjectedSecret:
    """A secret of which no annotation says anything."""
    return InjectedSecret(name, files=True, env=False, path=DEFAULT_PATH)


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
        outcomes = await asyncio.gather(*(self._read(namespace, item) for item in wanted))
        refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        if any(refusal.wipe for refusal in refusals):
            raise gravest(refusals)  # Nothing that KMS could say is graver.
        read = [outcome for outcome in outcomes if not isinstance(outcome, Refusal)]
        if sum(len(text) for one in read for text in one.object.target.data.values()) > TEMPLATES_CHARACTERS_MAX:
            refusals.append(_too_many_templates())
            read = [one._replace(object=_with_templates(one.object, {})) for one in read]
        keyring = Witnessed(self._keyring, witness)
        opened = await asyncio.gather(*(self._open(one, keyring) for one in read))
        refusals += [one for one in opened if isinstance(one, Refusal)]
        if refusals:
            raise gravest(refusals)
        granted = {
            one.object.name: values for one, values in zip(read, opened, strict=True) if not isinstance(values, Refusal)
        }
        require_size(granted)
        return granted

    async def _read(self, namespace: str, listed: InjectedSecret) -> _Read | Refusal:
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
            object_ = _with_templates(object_, {listed.file: listed.template})
        return _Read(listed, object_, live(object_, read_rewrapped(raw.get("status"))))

    async def _open(self, read: _Read, keyring: Opener) -> Values | Refusal:
        listed, object_, rewrapped = read
        opened = await open_object(object_, rewrapped, keyring, clock=self._clock, on_unwrap=self._on_unwrap)
        if isinstance(opened, Opened):
            return opened.data
        if isinstance(opened, TemplateFailed) and listed.template is not None:
            opened.field = annotation_field(f"template.{listed.name}")
        return _about(object_.name, refusal_of_opening(opened))


def require_size(granted: Mapping[str, Values]) -> None:
    """Refuses more than an agent takes, before anything is encoded. Raises Refusal: GrantTooLarge."""
    size = sum(
        _MEMBER_BYTES + len(name) + 4 * ((len(secret) + 2) // 3)
        for values in granted.values()
        for name, secret in values.items()
    ) + sum(_MEMBER_BYTES + len(name) for name in granted)
    if size > ANSWER_BYTES_MAX:
        raise Refusal(
            Reason.GRANT_TOO_LARGE,
            f"all values together are {size} bytes in base64, and an answer holds at most {ANSWER_BYTES_MAX}; "
            "inject fewer or smaller secrets into one pod",
        )


def _with_templates(object_: EncryptedSecret, templates: Mapping[str, str]) -> EncryptedSecret:
    return replace(object_, target=replace(object_.target, data=templates))


def _too_many_templates() -> Refusal:
    return Refusal(
        Reason.TEMPLATE_FAILED,
        f"the templates of the pod and of its secrets have more than {TEMPLATES_CHARACTERS_MAX} characters together; "
        "shorten them, or ask for fewer secrets in one pod",
    )


def _about(name: str, refusal: Refusal) -> Refusal:
    refusal.message = f"EncryptedSecret {name}: {refusal.message}"
    return refusal
