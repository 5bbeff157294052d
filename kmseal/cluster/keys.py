"""What a server knows of keys, and the rules about who may use them.

Filled by the feeds of KMSKeys and namespaces, and by the operator's keeper, who polls. Asked before every unwrap,
and by ``moves``, which knows where wrappings should go. It asks nobody and writes nothing. Where several KMSKeys speak
of one key, each of them must allow.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from kmseal.cluster.entry import NOT_FOUND, Entry
from kmseal.cluster.holdings import Holdings, KeyUse, resource_of
from kmseal.cluster.names import Key
from kmseal.cluster.reasons import Reason
from kmseal.errors import AccessDenied, KeyUnusable, KmsealError, Misconfigured
from kmseal.kms.provider import UNUSABLE_STATES, KeyDescription, KeyState
from kmseal.kmskey import OnUnavailable
from kmseal.manifest import EncryptedSecret, Wrapping
from kmseal.rewrapped import Rewrapped, openers

Json = dict[str, Any]
_SHUT_REASONS: Final[Mapping[str, str]] = {state.value: reason for reason, state in UNUSABLE_STATES.items()}
_log = logging.getLogger(__name__)


class Unresolved(AccessDenied):
    """Whether a limit is meant for a key is not known yet, so that it holds; but nobody has taken a right away."""


class Mode(StrEnum):
    """Which keys objects may be opened with."""

    OPEN = "open"
    """Any; a key that is met is registered as a KMSKey."""
    REGISTERED = "registered"
    """Those that a KMSKey names."""
    OFF = "off"
    """Any; KMSKeys are not read, so that nothing is limited and nothing re-wrapped."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Why an object may not be opened, and whether its target is to be removed for it."""

    error: KmsealError
    revokes: bool


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told of changes."""

    on_policy: Callable[[frozenset[str]], None]
    """Gets the keys whose rules or states changed: objects under them must be looked at again."""
    on_namespace: Callable[[str], None]
    """Gets a namespace whose labels changed, where a rule reads labels."""
    on_entry: Callable[[str], None]
    """Gets the name of a KMSKey that is new, changed or gone."""


class Keys:
    """All KMSKeys."""

    def __init__(self, mode: Mode, listeners: Listeners) -> None:
        self.mode = mode
        self._listeners = listeners
        self._entries: dict[str, Entry] = {}
        self._by_key: dict[str, list[Entry]] = {}
        self._by_resource: dict[str, Entry] = {}
        self._unresolved: list[Entry] = []
        self._labels: dict[str, Mapping[str, str]] = {}

    def observe(self, raw: Json) -> None:
        """Takes in a KMSKey from the feed."""
        name = raw["metadata"]["name"]
        before = self._entries.get(name)
        entry = Entry.read(raw)
        if entry is None:
            return
        if before and before.uid == entry.uid:
            if entry.version <= before.version:
                return
            if before.key.key_id == entry.key.key_id:
                entry.carry_over(before)
        if entry.invalid:
            _log.warning("a KMSKey cannot be read: %s", entry.invalid, extra={"object": name})
        self._entries[name] = entry
        self._index()
        if before is None or (before.uid, before.key, before.covered) != (entry.uid, entry.key, entry.covered):
            self._listeners.on_policy(entry.covered | (before.covered if before else frozenset()))
            self._listeners.on_entry(name)

    def vanish(self, key: Key, version: int = 0) -> None:
        """A KMSKey is gone, and its rules with it."""
        entry = self._entries.pop(key.name, None)
        if entry:
            self._index()
            self._listeners.on_policy(entry.covered)
            self._listeners.on_entry(key.name)

    def present(self) -> set[Key]:
        """All KMSKeys, as the feed names them."""
        return {Key("", name) for name in self._entries}

    def label(self, namespace: str, labels: Mapping[str, str] | None) -> None:
        """Takes in the labels of a namespace; None when it is gone."""
        before = self._labels.pop(namespace, None)
        if labels is not None:
            self._labels[namespace] = labels
        rules = [entry.key.allowed_namespaces for entry in self._entries.values()]
        if before != labels and any(rule and rule.selector is not None for rule in rules):
            self._listeners.on_namespace(namespace)

    def labelled(self) -> Iterable[str]:
        """The namespaces whose labels are known."""
        return self._labels.keys()

    def learn(
        self, entry: Entry, description: KeyDescription, at: float, heard: frozenset[KeyUse] = frozenset()
    ) -> None:
        """Takes in what KMS said of a key (see Entry.learn); ``at`` is on the monotonic clock."""
        covered, before = entry.covered, _standing(entry)
        entry.learn(description, at, heard)
        self._index()
        if before != _standing(entry):
            self._listeners.on_policy(covered | entry.covered)

    def learn_former(self, entry: Entry, key_id: str, state: KeyState) -> None:
        """Takes in the state of a key that is still in use though its alias has moved, or it is replaced."""
        if entry.learn_former(key_id, state):
            self._listeners.on_policy(frozenset({key_id}))

    def connect(self, entry: Entry) -> None:
        """Takes in that the key is reached now as its KMSKey says."""
        if not entry.connected:
            entry.connected = True
            self._listeners.on_policy(entry.covered)

    def get(self, name: str) -> Entry | None:
        """The KMSKey of that name."""
        return self._entries.get(name)

    def entries(self) -> list[Entry]:
        """All KMSKeys, those that people wrote first."""
        return sorted(self._entries.values(), key=lambda entry: (entry.automatic, entry.key.name))

    def covering(self, key_id: str) -> Sequence[Entry]:
        """The KMSKeys that speak of a key, those that people wrote first."""
        return self._by_key.get(key_id, ())

    def speaker(self, key_id: str) -> Entry | None:
        """The KMSKey that says how a key is reached, of several that speak of it: the first that people wrote."""
        return next((entry for entry in self.covering(key_id) if key_id not in entry.key.replaces), None)

    def refusal(self, key_id: str, namespace: str) -> KmsealError | None:
        """Why objects of a namespace may not be opened with a key; None if they may."""
        entries = self.covering(key_id)
        if not entries and self.mode is Mode.REGISTERED:
            return AccessDenied(
                f"{key_id} is not registered in this cluster",
                reason=Reason.KEY_NOT_REGISTERED,
                remedy="an administrator registers it with a KMSKey",
            )
        if not entries and (alibi := self._by_resource.get(resource_of(key_id))):
            # KMS opens by the ciphertext, whatever account and region the manifest claims: a false one must not get
            # around what is said of the true one.
            return AccessDenied(
                f"{key_id} names the key of the KMSKey {alibi.key.name} under another account or region",
                reason=Reason.KEY_NOT_REGISTERED,
                remedy="restore keyId from Git, as kmseal wrote it",
            )
        if unresolved := self._shadow(key_id, namespace):
            return Unresolved(
                f"{key_id} may be the key of the KMSKey {unresolved.key.name}, which does not allow "
                f"namespace {namespace}: its alias could not be resolved ({unresolved.failure or 'not tried yet'})",
                reason=Reason.NAMESPACE_NOT_ALLOWED,
                remedy="let the operator describe the key (kms:DescribeKey)",
            )
        for entry in entries:
            if entry.invalid:
                return Misconfigured(
                    f"the KMSKey {entry.key.name} cannot be read, so that nobody may use {key_id}: {entry.invalid}"
                )
            if not self._allows(entry, namespace):
                return AccessDenied(
                    f"the KMSKey {entry.key.name} does not allow namespace {namespace} to use {key_id}",
                    reason=Reason.NAMESPACE_NOT_ALLOWED,
                    remedy="an administrator adds it to spec.allowedNamespaces",
                )
        for entry in entries:
            if entry.shuts(key_id):
                return KeyUnusable(
                    f"{key_id} is {entry.state if key_id == entry.key_id else 'not enabled'}",
                    reason=_SHUT_REASONS.get(entry.state, ""),
                    remedy="enable it, cancel its deletion or import its material in KMS; then this heals by itself",
                )
        return None

    def usable(self, wrappings: Sequence[Wrapping], namespace: str) -> Sequence[Wrapping]:
        """Those wrappings that may be opened in a namespace now. Raises the first one's refusal where none may."""
        return _passing(wrappings, lambda key_id: self.refusal(key_id, namespace) or self._obstacle(key_id))

    def bar(self, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped]) -> Bar | None:
        """Why an object cannot be opened, as far as is known without asking KMS."""
        used = object_.used_data_keys
        for index, data_key in enumerate(object_.data_keys):
            if data_key not in used:
                continue
            wrappings = openers(data_key, rewrapped)
            try:
                _passing(wrappings, lambda key_id: self.refusal(key_id, object_.namespace))
            except KmsealError as error:
                error.field = f"spec.dataKeys[{index}]"
                return Bar(error, all(self.is_revoked(wrapping.key_id) for wrapping in wrappings))
        return None

    def is_suspect(self, holdings: Holdings, namespace: str) -> bool:
        """Whether any key that an object holds is refused to it: then it is worth a closer look."""
        return any(
            self.refusal(key_id, namespace) for held in holdings for key_id in {held.spec.key_id, held.newest.key_id}
        )

    def _shadow(self, key_id: str, namespace: str) -> Entry | None:
        """A KMSKey of an alias that was never resolved, and that could mean this key and forbid it.

        Whoever may decrypt but not describe would else get past every limit that is set on an alias.
        """
        if not self._unresolved or any(not entry.is_neutral for entry in self.covering(key_id)):
            return None  # People have said which KMSKey is this key's.
        # Of whatever account and region: those that a manifest claims may be false.
        return next((entry for entry in self._unresolved if not self._allows(entry, namespace)), None)

    def _allows(self, entry: Entry, namespace: str) -> bool:
        labels, rule = self._labels.get(namespace), entry.key.allowed_namespaces
        if labels is None:
            # Not seen yet: to have no labels would be enough for a selector that asks for the absence of one.
            return rule is None or namespace in rule.names
        return entry.key.allows(namespace, labels)

    def _obstacle(self, key_id: str) -> KmsealError | None:
        """Why a key that may be used cannot be reached. No reason to take back what is Ready, so that no bar has it."""
        entry = self.speaker(key_id)
        if entry and not entry.connected:
            return Misconfigured(
                f"{key_id} cannot be reached as the KMSKey {entry.key.name} says: {entry.failure or 'not tried yet'}"
            )
        for other in self.covering(key_id):
            if other.key_id == key_id and other.state == NOT_FOUND and other.confirmed:
                # Asked for once by its KMSKey, and not again for each object.
                return KeyUnusable(f"KMS does not know {key_id} ({other.failure})")
        return None

    def is_revoked(self, key_id: str) -> bool:
        """Whether somebody shut the key on purpose, this process has seen it, and every KMSKey of it says Remove.

        Every one: also those that could not be asked yet, for one that says Retain must not be too late to say it.
        """
        covering = [entry for entry in self.covering(key_id) if not entry.is_neutral]
        # Who merely replaces a key does not speak for it where it has a KMSKey of its own.
        speaking = [entry for entry in covering if entry.key_id == key_id] or covering
        seen_shut = any(entry.shuts(key_id) and entry.confirmed for entry in speaking)
        return seen_shut and all(entry.key.on_unavailable is OnUnavailable.REMOVE for entry in speaking)

    def _index(self) -> None:
        self._by_key, self._by_resource = {}, {}
        self._unresolved = [entry for entry in self.entries() if not entry.key_id]
        for entry in self.entries():
            for key_id in entry.covered:
                self._by_key.setdefault(key_id, []).append(entry)
                self._by_resource.setdefault(resource_of(key_id), entry)


def _passing(wrappings: Sequence[Wrapping], refusal: Callable[[str], KmsealError | None]) -> Sequence[Wrapping]:
    refusals = [refusal(wrapping.key_id) for wrapping in wrappings]
    passing = [wrapping for wrapping, refused in zip(wrappings, refusals, strict=True) if refused is None]
    if refusals and not passing:
        raise next(refused for refused in refusals if refused)
    return passing


def _standing(entry: Entry) -> tuple[object, ...]:
    """What objects depend on: also whether a state was seen, and not only read, for only then it takes targets away."""
    return entry.key_id, entry.state, entry.confirmed, entry.failure is None


class NamespaceSink:
    """What a feed of namespaces fills: the labels that selectors read."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def observe(self, raw: dict[str, Any]) -> None:
        """A namespace is there, new or changed."""
        metadata = raw["metadata"]
        self._keys.label(metadata["name"], metadata.get("labels") or {})

    def vanish(self, key: Key, version: int = 0) -> None:
        """A namespace is gone."""
        self._keys.label(key.name, None)

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return {Key("", name) for name in self._keys.labelled()}
