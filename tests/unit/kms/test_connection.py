"""Connections as values: compared and hashed by a keyring, and shown in messages by mistake."""

from dataclasses import replace

import pytest

from kmseal.kms.connection import OWN, AccessKey, AssumedRole, Connection
from kmseal.redacted import Redacted

KEY = AccessKey("LTAI5t", Redacted(b"secret-canary-77A1"), Redacted(b"token-canary-77A1"))
FULL = Connection("kms.example.com:8443", "-----BEGIN CERTIFICATE-----", KEY)


def test_equal_ones_are_one_entry_of_a_dictionary() -> None:
    """Secrets included, although each was read anew."""
    again = AccessKey("LTAI5t", Redacted(b"secret-canary-77A1"), Redacted(b"token-canary-77A1"))
    assert {FULL: 1}[replace(FULL, credentials=again)] == 1
    assert Connection() == OWN


@pytest.mark.parametrize(
    "other",
    [
        OWN,
        replace(FULL, endpoint="kms.example.com"),
        replace(FULL, ca_pem=""),
        replace(FULL, credentials=None),
        replace(FULL, credentials=AssumedRole("acs:ram::1:role/a")),
        replace(FULL, credentials=replace(KEY, access_key_id="LTAI5u")),
        replace(FULL, credentials=replace(KEY, access_key_secret=Redacted(b"another"))),
        replace(FULL, credentials=replace(KEY, security_token=Redacted(b"another"))),
        replace(FULL, credentials=replace(KEY, security_token=None)),
    ],
    ids=range(9),
)
def test_a_difference_in_any_field_is_another_connection(other: Connection) -> None:
    """A secret that was replaced is, too."""
    assert other != FULL
    assert other not in {FULL: 1}


def test_no_secret_is_in_the_text_of_a_connection_or_in_its_hash() -> None:
    """The hash is that of the parts that are not secret, so it tells nothing about the others."""
    assert "canary" not in f"{FULL} {FULL!r}"
    other = replace(KEY, access_key_secret=Redacted(b"x"), security_token=Redacted(b"y"))
    assert hash(other) == hash(KEY)
