"""Versions on demand and rotation on schedule, on a clock that can be moved."""

from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException

from kmseal.fakekms import FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]
DAY = 86400


def outcome(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("Code", "Success")


def test_versions_are_listed_and_described(fake: FakeKms, call: Call) -> None:
    """All versions are listed, the newest first; the primary one is the newest."""
    arn = fake.create_key()
    old = fake.key(arn).primary.version_id
    new = fake.rotate(arn)
    listed = call("ListKeyVersions", KeyId=arn)[1]
    assert [version["KeyVersionId"] for version in listed["KeyVersions"]["KeyVersion"]] == [new, old]
    assert call("DescribeKeyVersion", KeyId=arn, KeyVersionId=old)[1]["KeyVersion"]["KeyVersionId"] == old
    assert call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]["PrimaryKeyVersion"] == new
    answer = call("DescribeKeyVersion", KeyId=arn, KeyVersionId="other")
    assert outcome(answer) == (404, "Forbidden.KeyVersionNotFound")


def test_versions_of_symmetric_keys_are_not_made_on_demand(fake: FakeKms, call: Call) -> None:
    """CreateKeyVersion is refused as on the shared gateway, unless the fake plays a software instance."""
    arn = fake.create_key()
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == (400, "Rejected.UnsupportedOperation")
    assert len(fake.key(arn).versions) == 1
    fake.service.allow_symmetric_versions = True
    version = call("CreateKeyVersion", KeyId=arn)[1]["KeyVersion"]["KeyVersionId"]
    assert fake.key(arn).primary.version_id == version


def test_a_key_rotates_by_itself(fake: FakeKms, call: Call, clock: Any) -> None:
    """Automatic rotation makes a new primary version when its date comes, and says when the next one is."""
    key = call("CreateKey", EnableAutomaticRotation="True", RotationInterval="7d")[1]["KeyMetadata"]
    assert (key["AutomaticRotation"], key["RotationInterval"]) == ("Enabled", "604800s")
    assert key["NextRotationDate"] == "2026-12-01T05:32:41Z"
    blob = call("GenerateDataKey", KeyId=key["KeyId"])[1]
    clock.now += 7 * DAY
    metadata = call("DescribeKey", KeyId=key["KeyId"])[1]["KeyMetadata"]
    assert metadata["PrimaryKeyVersion"] != key["PrimaryKeyVersion"]
    assert metadata["LastRotationDate"] == "2026-12-01T05:32:41Z"
    opened = call("Decrypt", CiphertextBlob=blob["CiphertextBlob"])[1]
    assert opened["KeyVersionId"] == key["PrimaryKeyVersion"]


def test_a_policy_that_is_overdue_rotates_at_once(fake: FakeKms, call: Call, clock: Any) -> None:
    """A rotation policy is switched on and off; one whose date has passed rotates at once."""
    arn = fake.create_key()
    before = fake.key(arn).primary.version_id
    clock.now += 8 * DAY
    call("UpdateRotationPolicy", KeyId=arn, EnableAutomaticRotation="true", RotationInterval="30d")
    assert fake.key(arn).primary.version_id == before
    call("UpdateRotationPolicy", KeyId=arn, EnableAutomaticRotation="true", RotationInterval="7d")
    after = fake.key(arn).primary.version_id
    assert after != before
    call("UpdateRotationPolicy", KeyId=arn, EnableAutomaticRotation="False")
    clock.now += 800 * DAY
    assert fake.key(arn).primary.version_id == after


def test_a_disabled_key_does_not_rotate(fake: FakeKms, call: Call, clock: Any) -> None:
    """Rotation is suspended while a key is not enabled."""
    key = call("CreateKey", EnableAutomaticRotation="True", RotationInterval="7d")[1]["KeyMetadata"]
    fake.disable(key["Arn"])
    clock.now += 30 * DAY
    metadata = call("DescribeKey", KeyId=key["KeyId"])[1]["KeyMetadata"]
    assert (metadata["AutomaticRotation"], metadata["PrimaryKeyVersion"]) == ("Suspended", key["PrimaryKeyVersion"])


def test_keys_that_cannot_have_a_rotation_policy(fake: FakeKms, call: Call) -> None:
    """Imported material and HSM protection exclude automatic rotation, each with its own code."""
    external = fake.create_key(origin="EXTERNAL")
    fake.import_material(external, bytes(32))
    hsm = call("CreateKey", ProtectionLevel="HSM")[1]["KeyMetadata"]["KeyId"]
    for key, code in ((external, "Unsupported.Origin"), (hsm, "Unsupported.ProtectionLevel")):
        answer = call("UpdateRotationPolicy", KeyId=key, EnableAutomaticRotation="true", RotationInterval="7d")
        assert outcome(answer) == (400, code)


def test_versions_of_asymmetric_keys_are_a_week_apart(fake: FakeKms, call: Call) -> None:
    """CreateKeyVersion works for an asymmetric key, from seven days after the one before on."""
    arn = fake.create_key("alias/offline", spec="RSA_2048")
    first = fake.key(arn).primary.version_id
    too_soon = (400, "Rejected.UnsupportedOperation")
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == too_soon
    fake.clock.advance(7 * DAY - 1)
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == too_soon
    fake.clock.advance(1)
    version = call("CreateKeyVersion", KeyId="alias/offline")[1]["KeyVersion"]
    assert version["CreationDate"] == "2026-12-01T05:32:41Z"
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == too_soon
    listed = call("ListKeyVersions", KeyId=arn)[1]["KeyVersions"]["KeyVersion"]
    assert [item["KeyVersionId"] for item in listed] == [version["KeyVersionId"], first]


async def test_the_sdk_makes_a_version(running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """CreateKeyVersion over TLS: refused for a fresh asymmetric key and for a symmetric one, answered a week later."""
    client = sdk(running, running.add_identity("admin"))
    offline, symmetric = running.create_key(spec="RSA_2048"), running.create_key()
    for arn in (offline, symmetric):
        with pytest.raises(ClientException) as caught:
            await ask(client, "CreateKeyVersion", key_id=arn)
        assert (caught.value.code, caught.value.status_code) == ("Rejected.UnsupportedOperation", 400)
    running.clock.advance(7 * DAY)
    made = (await ask(client, "CreateKeyVersion", key_id=offline)).key_version
    assert made.key_version_id == running.key(offline).primary.version_id
    listed = await ask(client, "ListKeyVersions", key_id=offline)
    assert (listed.total_count, listed.key_versions.key_version[0].key_version_id) == (2, made.key_version_id)


def test_a_key_has_at_most_fifty_versions(fake: FakeKms, call: Call) -> None:
    """The fifty-first version on demand is refused."""
    arn = fake.create_key()
    for _ in range(49):
        fake.rotate(arn)
    fake.service.allow_symmetric_versions = True
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == (400, "Rejected.LimitExceeded")
    assert len(fake.key(arn).versions) == 50


def test_a_suspended_rotation_is_made_up_for(fake: FakeKms, call: Call, clock: Any) -> None:
    """While a key is disabled its dates pass without a rotation; enabled again it rotates once, then and there."""
    arn = fake.create_key(rotate_every=7 * DAY)
    fake.disable(arn)
    fake.clock.advance(30 * DAY)
    metadata = call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]
    assert (metadata["AutomaticRotation"], metadata["NextRotationDate"]) == ("Suspended", "2026-12-01T05:32:41Z")
    call("EnableKey", KeyId=arn)
    metadata = call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]
    assert (metadata["AutomaticRotation"], metadata["LastRotationDate"]) == ("Enabled", "2026-12-24T05:32:41Z")
    assert len(fake.key(arn).versions) == 2


def test_asymmetric_keys_do_not_rotate_by_themselves(fake: FakeKms, call: Call) -> None:
    """A rotation policy is refused for them."""
    arn = fake.create_key(spec="RSA_2048")
    answer = call("UpdateRotationPolicy", KeyId=arn, EnableAutomaticRotation="true", RotationInterval="7d")
    assert outcome(answer) == (400, "UnsupportedOperation")


def test_a_schedule_is_set_without_a_client(fake: FakeKms) -> None:
    """Tests switch a schedule on and off; an overdue key rotates at once."""
    arn = fake.create_key()
    fake.clock.advance(8 * DAY)
    fake.rotate_every(arn, 7 * DAY)
    assert len(fake.key(arn).versions) == 2
    fake.rotate_every(arn, None)
    fake.clock.advance(800 * DAY)
    assert len(fake.key(arn).versions) == 2
