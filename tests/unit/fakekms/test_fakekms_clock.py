"""The clock of keys: it moves forward, makes due things happen, and leaves clients and credentials in real time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmseal.fakekms import FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]
DAY = 86400


def test_moving_the_clock_rotates_what_is_due(fake: FakeKms, clock: Any) -> None:
    """Nobody has to look: the moment the clock passes a date, the version is there, dated as it should be."""
    started = clock.now
    arn, still = fake.create_key(rotate_every=7 * DAY), fake.create_key()
    fake.clock.advance(7 * DAY - 1)
    assert len(_stored(fake, arn).versions) == 1
    fake.clock.advance(1 + 15 * DAY)
    versions = _stored(fake, arn).versions
    assert [version.created - started for version in versions] == [0, 7 * DAY, 14 * DAY, 21 * DAY]
    assert _stored(fake, arn).last_rotation == versions[-1].created
    assert len(_stored(fake, still).versions) == 1


def test_a_thousand_rotations_are_not_made_up_for(fake: FakeKms, clock: Any) -> None:
    """A key on a very short schedule gets the latest of its many versions, and goes on from there."""
    started = clock.now
    arn = fake.create_key(rotate_every=60)
    fake.clock.advance(365 * DAY)
    versions = _stored(fake, arn).versions
    assert (len(versions), versions[-1].created) == (202, started + 365 * DAY)
    fake.clock.advance(60)
    assert len(_stored(fake, arn).versions) == 203


def test_moving_the_clock_ends_windows_and_material(fake: FakeKms, clock: Any) -> None:
    """A window of deletion and imported material end on the clock of keys."""
    gone, external = fake.create_key(), fake.create_key(origin="EXTERNAL")
    fake.schedule_deletion(gone, clock.now + 7 * DAY)
    fake.import_material(external, bytes(32), expires=clock.now + DAY)
    fake.clock.advance(DAY)
    assert _stored(fake, external).state.value == "PendingImport"
    fake.clock.advance(6 * DAY)
    assert [key.arn for key in fake.store.stored()] == [external]


def test_clients_stay_in_real_time(fake: FakeKms, call: Call, clock: Any) -> None:
    """After a year for the keys, signatures of today are good, sessions go on, and the trail has today's dates."""
    session = fake.add_temporary_identity("session", 900)
    fake.clock.advance(365 * DAY)
    metadata = call("CreateKey", by=session)[1]["KeyMetadata"]
    assert metadata["CreationDate"] == "2027-11-24T05:32:41Z"
    assert fake.audit[-1].time == clock.now
    clock.now += 900
    assert call("ListKeys", by=session)[1]["Code"] == "InvalidSecurityToken.Expired"


async def test_the_sdk_works_after_the_clock_was_moved(
    running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """Over TLS with the real time: a client is not disturbed, and sees the new version."""
    client = sdk(running, running.add_identity("admin"))
    arn = running.create_key()
    fresh = await ask(client, "GenerateDataKey", key_id=arn)
    await ask(client, "UpdateRotationPolicy", key_id=arn, enable_automatic_rotation=True, rotation_interval="30d")
    running.clock.advance(31 * DAY)
    metadata = (await ask(client, "DescribeKey", key_id=arn)).key_metadata
    assert metadata.primary_key_version != fresh.key_version_id
    assert (metadata.automatic_rotation, metadata.rotation_interval) == ("Enabled", "2592000s")
    assert metadata.last_rotation_date < metadata.next_rotation_date
    assert (await ask(client, "Decrypt", ciphertext_blob=fresh.ciphertext_blob)).plaintext == fresh.plaintext


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_it_never_goes_back(fake: FakeKms, seconds: float) -> None:
    """Time that goes back, or nowhere, is refused and changes nothing."""
    with pytest.raises(ValueError, match="forward"):
        fake.clock.advance(seconds)
    assert fake.clock.offset == 0


def test_it_is_kept_on_disk(tmp_path: Path, clock: Any) -> None:
    """After a restart the clock is as far ahead as it was."""
    first = FakeKms(clock=clock, state_path=tmp_path)
    first.clock.advance(3 * DAY)
    assert FakeKms(clock=clock, state_path=tmp_path).clock() == clock.now + 3 * DAY


def _stored(fake: FakeKms, arn: str) -> Any:
    """The key as it is kept, without being looked at, which would make happen what is due."""
    return next(key for key in fake.store.stored() if key.arn == arn)
