"""Where wrappings should move: to a newer version of their key, or to the key that has taken its place.

Asked by the re-wrapper for its work and by the reports for what is stale. The rules are in ``kmseal.moves``, which the
command line goes by as well; here they are asked of all that is known. It follows from ``keys`` and asks nobody.
"""

from kmseal import moves
from kmseal.cluster.entry import Entry
from kmseal.cluster.holdings import Holdings, KeyUse
from kmseal.cluster.keys import Keys
from kmseal.kms.provider import KeyDescription
from kmseal.kmskey import Rewrap


class Moves:
    """The rules of moving."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def is_stale(self, entry: Entry, use: KeyUse) -> bool:
        """Whether a KMSKey says that a wrapping should be wrapped anew."""
        if use.key_id != entry.key_id:
            return self.leaves(entry, use.key_id)
        return entry.is_outdated(use)

    def destination(self, use: KeyUse, namespace: str, *, asked: bool | None = None) -> KeyDescription | None:
        """Where a wrapping should move now; None where it is current, or nobody asked, or its new key is not usable.

        A move to another key goes before a newer version of the same one, and is followed to its end.

        :param namespace: whose object it is: nothing moves to a key that it may not use
        :param asked: what the object's annotation says: True also where the KMSKey says Manual, False never
        """
        final = self.final(use.key_id)
        if asked is False or final is None or not (use.key_id != final.key_id or final.is_outdated(use)):
            return None
        if final.description is None or self._keys.refusal(final.key_id, namespace):
            return None
        return final.description if asked or final.key.rewrap is Rewrap.AUTO else None

    def final(self, key_id: str) -> Entry | None:
        """The KMSKey under whose key a wrapping should end; None for a circle of replacements, which moves nothing."""
        return moves.final(key_id, self._keys.covering)

    def age(self, holdings: Holdings) -> int:
        """For the order of work: lower is older. A version that was never seen as primary is older than all others."""
        return min((self._rank(held.newest) for held in holdings), default=0)

    def leaves(self, entry: Entry, key_id: str) -> bool:
        """Whether a KMSKey takes wrappings away from a key (see kmseal.moves)."""
        return moves.leaves(entry, key_id, self._keys.covering(key_id))

    def _rank(self, use: KeyUse) -> int:
        ranks = [entry.versions.index(use) for entry in self._keys.covering(use.key_id) if use in entry.versions]
        return min(ranks, default=-1)
