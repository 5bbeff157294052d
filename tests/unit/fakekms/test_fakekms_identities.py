"""Access keys: their form, their names, their rights changed while in use."""

from collections.abc import Callable
from typing import Any

from kmseal.fakekms import OPERATOR_ACTIONS, FakeKms


def test_access_keys_are_fresh_and_hidden(fake: FakeKms) -> None:
    """Every access key is new, has the real ones' form, and shows its secrets in no repr."""
    one, two, session = fake.add_identity("one"), fake.add_identity("two"), fake.add_temporary_identity("three", 900)
    assert len({item.access_key_id for item in (one, two, session)}) == 3
    assert len({item.access_key_secret for item in (one, two, session)}) == 3
    assert (len(one.access_key_id), len(one.access_key_secret), one.access_key_id[:6]) == (24, 30, "LTAI5t")
    shown = repr([one, two, session])
    for secret in (one.access_key_secret, session.access_key_secret, session.security_token):
        assert secret not in shown


def test_rights_change_at_once(fake: FakeKms, call: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    """Rights can be taken away and given back while an access key is in use."""
    operator, arn = fake.add_identity("operator", OPERATOR_ACTIONS), fake.create_key()
    statuses = []
    for actions in (OPERATOR_ACTIONS, (), OPERATOR_ACTIONS):
        fake.set_policy(operator, actions)
        statuses.append(call("DescribeKey", KeyId=arn, by=operator)[0])
    assert statuses == [200, 403, 200]


def test_access_keys_are_removed(fake: FakeKms, call: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    """An access key that was removed is unknown; removing it twice is no error."""
    operator = fake.add_identity("operator")
    fake.identities.remove(operator.access_key_id)
    fake.identities.remove(operator.access_key_id)
    assert call("ListKeys", by=operator)[1]["Code"] == "InvalidAccessKeyId.NotFound"
    assert fake.identities.named("operator") is None
