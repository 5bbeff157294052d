"""The key store by itself: ids out of the given randomness, changes announced, one region unseen by another."""

from itertools import count

import pytest

from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.states import KeyState


class Changes:
    """Counts how often the store said that it has changed."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self) -> None:
        self.seen += 1


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def store(changes: Changes) -> KeyStore:
    numbers = count(1)
    return KeyStore("1", lambda: 1000.0, lambda size: next(numbers).to_bytes(size), changes)


def test_ids_and_material_come_from_the_given_randomness(store: KeyStore) -> None:
    """With the same randomness the store makes the same key: nothing is drawn elsewhere."""
    key = store.create("r", "admin")
    assert key.key_id == "00000000-0000-4000-8000-000000000001"
    assert key.primary.version_id == "00000000-0000-4000-8000-000000000002"
    assert key.primary.material == (3).to_bytes(32)


def test_every_change_is_announced(store: KeyStore, changes: Changes) -> None:
    """Creating, rotating, moving and deleting are each announced once; looking is not."""
    key, other = store.create("r", "admin"), store.create("r", "admin")
    key = store.rotate(key)
    alias = store.create_alias(key, "alias/a")
    alias = store.move_alias(alias, other)
    store.delete_alias(alias)
    key = store.set_state(key, KeyState.DISABLED)
    assert changes.seen == 7
    store.resolve("r", key.key_id)
    store.keys_of("r")
    assert changes.seen == 7


def test_a_region_does_not_see_another(store: KeyStore) -> None:
    """Keys, aliases and versions are found in their own region only."""
    key = store.create("here", "admin")
    store.create_alias(key, "alias/a")
    assert store.by_version("here", key.primary.version_id) == key
    with pytest.raises(Refusal, match=r"Forbidden\.KeyNotFound"):
        store.by_version("there", key.primary.version_id)
    with pytest.raises(Refusal, match=r"Forbidden\.KeyNotFound"):
        store.resolve("there", key.key_id)
    with pytest.raises(Refusal, match=r"Forbidden\.AliasNotFound"):
        store.resolve("there", "alias/a", alias_allowed=True)
    assert (store.keys_of("there"), store.aliases("there")) == ([], [])


def test_values_do_not_change(store: KeyStore) -> None:
    """A key that somebody holds is not changed by what happens in the store."""
    key = store.create("r", "admin")
    rotated = store.rotate(key)
    assert (len(key.versions), len(rotated.versions)) == (1, 2)
    assert rotated.versions[0] == key.primary
    assert rotated.primary != key.primary
