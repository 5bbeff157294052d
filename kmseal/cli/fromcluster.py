"""Newer wrappings out of a cluster, where the operator left them beside the objects after a rotation.

Used by ``rewrap --from-cluster``. Which wrapping of the status counts, ``kmseal.rewrapped`` decides; here is only that
each namespace is listed once, however many objects of it are in files. No key service is asked.
"""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kmseal.cli.bulk import Treated
from kmseal.cli.cluster import Json, list_all
from kmseal.cli.report import Outcome
from kmseal.cli.rewrapping import treated
from kmseal.errors import KmsealError, Malformed
from kmseal.manifest import DataKey, EncryptedSecret, Wrapping
from kmseal.rewrapped import Rewrapped, brought_up_to_date, read_rewrapped
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

    def fits(self, data_keys: Sequence[DataKey]) -> bool:
        """Whether a file's data keys are those of the cluster, as they are or brought up to date already."""
        wanted = _contents(data_keys)
        updated = [brought_up_to_date(data_key, self.rewrapped) for data_key in self.data_keys]
        return wanted in (_contents(self.data_keys), _contents(updated))


def _contents(data_keys: Sequence[DataKey]) -> dict[str, frozenset[Wrapping]]:
    """What data keys say, whatever the order in which they say it."""
    return {data_key.id: frozenset(data_key.wrappings) for data_key in data_keys}


class FromCluster:
    """Treats objects with the newer wrappings that the operator left in their status."""

    needs_namespace = True

    def __init__(self, client: "KubeClient", *, dry_run: bool) -> None:
        self._client = client
        self._dry_run = dry_run
        self._listed: dict[str, asyncio.Task[dict[str, ClusterObject]]] = {}

    async def treat(self, encrypted: EncryptedSecret) -> Treated:
        """Asks for each namespace once. Raises KmsealError where it cannot be listed."""
        found = (await self._list(encrypted.namespace)).get(encrypted.name)
        if found is None:
            return Treated(Outcome.NOT_IN_CLUSTER)
        renewed = {
            data_key.id: brought_up_to_date(data_key, found.rewrapped).wrappings for data_key in encrypted.data_keys
        }
        # What was replaced is named by its digest, so that what fits is right even where the rest differs.
        unchanged = Outcome.CURRENT if found.fits(encrypted.data_keys) else Outcome.DIFFERS
        return treated(encrypted, renewed, write=not self._dry_run, unchanged=unchanged)

    async def _list(self, namespace: str) -> dict[str, ClusterObject]:
        task = self._listed.get(namespace)
        if task is None:
            task = self._listed[namespace] = asyncio.create_task(self._read(namespace))
        try:
            return await asyncio.shield(task)
        except KmsealError as error:
            raise copy.copy(error) from None

    async def _read(self, namespace: str) -> dict[str, ClusterObject]:
        from kmseal.kube import ENCRYPTED_SECRETS

        listed = list_all(self._client, ENCRYPTED_SECRETS, namespace)
        return {item["metadata"]["name"]: ClusterObject.read(item) async for item in listed}
