"""A trust bundle that could not be kept is asked for again: clusters are upgraded, and rights are given."""

from typing import Any, cast

import pytest

from kmseal.errors import AccessDenied
from kmseal.kube import KubeClient, Resource
from kmseal_webhook.registration import TRUST_BUNDLES, Registration

Json = dict[str, Any]
MINUTES = 60.0


class Api:
    """An API server that serves trust bundles, and lets us keep one, when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.serves_them = True
        self.allows = True
        self.asked = 0
        self.bundle: Json | None = None
        self.registration = Registration(
            cast(KubeClient, self), "kmseal-webhook", patches_configurations=False, clock=lambda: self.now
        )

    async def serves(self, resource: Resource) -> bool:
        assert resource is TRUST_BUNDLES
        self.asked += 1
        return self.serves_them

    async def get(self, resource: Resource, namespace: None, name: str) -> Json | None:
        if not self.allows:
            raise AccessDenied("forbidden")
        return self.bundle

    async def apply(self, resource: Resource, namespace: None, name: str, body: Json, **options: object) -> None:
        self.bundle = body


@pytest.mark.parametrize("obstacle", ["serves_them", "allows"])
async def test_pods_get_the_trust_bundle_once_it_can_be_kept(obstacle: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not for the life of the process, and not at each turn: every few minutes; it is said once."""
    api = Api()
    setattr(api, obstacle, False)
    for _ in range(60):
        assert not await api.registration.publish(b"one")
        api.now += 0.5 * MINUTES
    assert not api.registration.serves_trust_bundle
    assert 4 <= api.asked <= 10
    assert caplog.text.count("as a variable") == 1
    setattr(api, obstacle, True)
    turns = 0
    while not await api.registration.publish(b"one"):
        api.now += 0.5 * MINUTES
        turns += 1
        assert turns < 20
    assert api.registration.serves_trust_bundle
    assert api.bundle
    assert api.bundle["spec"]["trustBundle"] == "one"


async def test_what_pods_rely_on_is_not_gone_without() -> None:
    """A right that is taken away later is a fault: nothing new may be served that pods would not trust."""
    api = Api()
    assert await api.registration.publish(b"one")
    api.allows = False
    for _ in range(2):
        with pytest.raises(AccessDenied):
            await api.registration.publish(b"two")
    assert api.registration.serves_trust_bundle
