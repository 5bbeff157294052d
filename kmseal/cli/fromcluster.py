"""Newer wrappings out of a cluster, where the operator left them beside the objects after a rotation.

Used by ``rewrap --from-cluster``. Which wrapping of the status counts, ``kmseal.rewrapped`` decides; which key may take
another's place in Git, the cluster's KMSKeys say, for a status is written by whoever has the right to write it. Each
namespace is listed once, however many objects of it are in files. No key service is asked.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kmseal.cli.bulk import Treated
from kmseal.cli.cluster import Json, list_all
from kmseal.cli.inflight import shared
from kmseal.cli.keyrows import KeyRow, KeyRows
from kmseal.cli.report import Outcome
from kmseal.cli.rewrapping import treated
from kmseal.envelope import DataKeyId
from kmseal.errors import KmsealError, Malformed, Refused
from kmseal.holdings import KeyUse
from kmseal.manifest import DataKey, EncryptedSecret, Wrapping
from kmseal.rewrapped import Rewrapped, brought_up_to_date, digest, read_rewrapped
from kmseal.structure import Fields

if TYPE_CHECKING:
    from kmseal.kube import KubeClient


@dataclass(frozen=True, slots=True)
class ClusterObject:
    """What one object in the cluster has of a file's."""

    data_keys: tuple[DataKey, ...]
    rewrapped: tuple[Rewrapped, ...]

    @classmethod
    def read(cls, raw: Json) -> "ClusterObject":
        """Reads an API object. Data keys that cannot be read count as not there: then the object differs."""
        spec = raw.get("spec")
        try:
            items = Fields(spec, "spec").items("dataKeys") if isinstance(spec, dict) else []
            data_keys = tuple(DataKey.parse(item, path) for path, item in items)
        except Malformed:
            data_keys = ()
        return cls(data_keys, read_rewrapped(raw.get("status")))

    def compare(self, data_keys: Sequence[DataKey]) -> Outcome:
        """How a file's data keys stand to those of the cluster, where nothing of the status fits them."""
        updated = [brought_up_to_date(data_key, self.rewrapped) for data_key in self.data_keys]
        if _contents(data_keys) in (_contents(self.data_keys), _contents(updated)):
            return Outcome.CURRENT
        ours, theirs = _uses(data_keys), _uses(updated)
        # Where only one side has more, as a key that was just added or removed, it is not an older wrapping.
        if any(ours[id_] - theirs[id_] and theirs[id_] - ours[id_] for id_ in ours.keys() & theirs.keys()):
            return Outcome.BEHIND
        return Outcome.CURRENT if ours == theirs else Outcome.DIFFERS


class FromCluster:
    """Treats objects with the newer wrappings that the operator left in their status."""

    needs_namespace = True

    def __init__(self, client: "KubeClient", allowed: Collection[str] = (), *, dry_run: bool) -> None:
        """:param allowed: keys that may take any other's place, whatever KMSKeys say"""
        self._client = client
        self._allowed = frozenset(allowed)
        self._dry_run = dry_run
        self._listed: dict[str, asyncio.Task[dict[str, ClusterObject]]] = {}
        self._keys: asyncio.Task[KeyRows] | None = None

    async def treat(self, encrypted: EncryptedSecret) -> Treated:
        """Asks for each namespace once, and for KMSKeys where a key changes.

        Raises KmsealError where they cannot be listed, and Refused for a key that nobody has put in another's place.
        """
        found = (await self._list(encrypted.namespace)).get(encrypted.name)
        if found is None:
            return Treated(Outcome.NOT_IN_CLUSTER)
        for old, new in _moves(encrypted.data_keys, found.rewrapped):
            await self._require_successor(old, new)
        renewed = {
            data_key.id: brought_up_to_date(data_key, found.rewrapped).wrappings for data_key in encrypted.data_keys
        }
        # What was replaced is named by its digest, so that what fits is right even where the rest differs.
        return treated(encrypted, renewed, write=not self._dry_run, unchanged=found.compare(encrypted.data_keys))

    async def _require_successor(self, old: str, new: str) -> None:
        """Refuses a key that a status brings in: what is sealed afterwards would be sealed to it."""
        if new in self._allowed:
            return
        if self._keys is None:
            self._keys = asyncio.create_task(self._read_keys())
        try:
            keys = await shared(self._keys)
        except KmsealError as error:
            error.remedy += f"; or pass --allow-key {new} where you know that it takes over"
            raise
        if not keys.may_replace(old, new):
            raise Refused(
                f"has a wrapping under {new}, and no KMSKey says that this key takes over from {old}",
                field="status.rewrapped",
                reason="UnexpectedKey",
                remedy="find out who wrote it; pass --allow-key where you know that this key takes over",
            )

    async def _list(self, namespace: str) -> dict[str, ClusterObject]:
        task = self._listed.get(namespace)
        if task is None:
            task = self._listed[namespace] = asyncio.create_task(self._read(namespace))
        return await shared(task)

    async def _read(self, namespace: str) -> dict[str, ClusterObject]:
        from kmseal.kube import ENCRYPTED_SECRETS

        listed = list_all(self._client, ENCRYPTED_SECRETS, namespace)
        return {item["metadata"]["name"]: ClusterObject.read(item) async for item in listed}

    async def _read_keys(self) -> KeyRows:
        from kmseal.kube import KMS_KEYS

        return KeyRows([KeyRow.read(item) async for item in list_all(self._client, KMS_KEYS)])


def _moves(data_keys: Sequence[DataKey], rewrapped: Sequence[Rewrapped]) -> Iterator[tuple[str, str]]:
    """The keys that a status would replace by others, each with the other one."""
    newer = {(item.data_key_id, item.digest): item.wrapping for item in rewrapped}
    for data_key in data_keys:
        for wrapping in data_key.wrappings:
            stand_in = newer.get((data_key.id, digest(wrapping))) if newer else None
            if stand_in and stand_in.key_id != wrapping.key_id:
                yield wrapping.key_id, stand_in.key_id


def _contents(data_keys: Sequence[DataKey]) -> dict[str, frozenset[Wrapping]]:
    """What data keys say, whatever the order in which they say it."""
    return {data_key.id: frozenset(data_key.wrappings) for data_key in data_keys}


def _uses(data_keys: Sequence[DataKey]) -> dict[DataKeyId, frozenset[KeyUse]]:
    """Under which versions of which keys data keys are wrapped."""
    return {data_key.id: frozenset(map(KeyUse.of, data_key.wrappings)) for data_key in data_keys}
