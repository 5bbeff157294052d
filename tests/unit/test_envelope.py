"""The format of values: what is sealed opens in its place, and nowhere and never else."""

import base64
import string
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kmseal.envelope import (
    DATA_KEY_BYTES,
    VALUES_BYTES_MAX,
    DataKeyId,
    EncryptedValue,
    Place,
    Scope,
    decode_base64,
    decrypt_value,
    encode_base64,
    encrypt_value,
    length_prefixed,
    new_data_key_id,
    require_data_key,
    require_data_key_id,
    require_namespace,
    require_object_name,
    require_total_size,
    require_value_name,
    shorten,
)
from kmseal.errors import KmsealError, Malformed, Unauthentic, WrongBinding
from kmseal.redacted import Redacted

T = TypeVar("T")

KEY = Redacted(bytes(range(32)))
KEY_ID = DataKeyId("k4q7x2mz")
PLACE = Place.of(Scope.STRICT, "prod", "db")

scopes = st.sampled_from(Scope)
namespaces = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
object_names = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?){0,3}", fullmatch=True
)
places = st.builds(Place.of, scopes, namespaces, object_names)
value_names = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=253).filter(
    lambda name: name != "." and not name.startswith("..")
)
values = st.binary(max_size=200)
data_keys = st.binary(min_size=DATA_KEY_BYTES, max_size=DATA_KEY_BYTES).map(Redacted)
data_key_ids = st.from_regex(r"[a-z0-9]{4,16}", fullmatch=True).map(DataKeyId)


def seal(value: bytes = b"value", name: str = "password", place: Place = PLACE, key: Redacted = KEY) -> EncryptedValue:
    return encrypt_value(key, KEY_ID, place, name, Redacted(value))


def attempt(read: Callable[[], T]) -> T | KmsealError:
    """What it gives, or how it refuses; any other exception fails the test."""
    try:
        return read()
    except KmsealError as error:
        return error


@given(data_keys, data_key_ids, places, value_names, values)
def test_any_value_opens_where_it_was_sealed(
    key: Redacted, key_id: DataKeyId, place: Place, name: str, value: bytes
) -> None:
    """Through its line and back, for any value, scope, place, name and data key."""
    line = encrypt_value(key, key_id, place, name, Redacted(value)).line()
    encrypted = EncryptedValue.parse(line)
    assert encrypted.line() == line
    assert (encrypted.data_key_id, encrypted.size) == (key_id, len(value))
    encrypted.require_name(place, name)
    assert decrypt_value(key, place, name, encrypted).reveal() == value


@given(places, places, value_names, value_names)
def test_no_other_place_or_name_opens_it(sealed_in: Place, opened_in: Place, sealed_as: str, opened_as: str) -> None:
    """Any difference in scope, namespace, name or value name is refused as ValueMoved, with and without the key."""
    assume((sealed_in, sealed_as) != (opened_in, opened_as))
    encrypted = seal(name=sealed_as, place=sealed_in)
    for refuse in (
        lambda: decrypt_value(KEY, opened_in, opened_as, encrypted),
        lambda: encrypted.require_name(opened_in, opened_as),
    ):
        with pytest.raises(WrongBinding) as caught:
            refuse()
        assert caught.value.reason == "ValueMoved"


@given(st.data(), values)
def test_a_flipped_bit_of_the_payload_never_opens(data: st.DataObject, value: bytes) -> None:
    """Any bit of check, nonce, ciphertext or tag: it does not authenticate, whatever the other parts say."""
    head, _, payload = seal(value).line().rpartition(".")
    raw = bytearray(decode_base64(payload))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    altered = EncryptedValue.parse(f"{head}.{encode_base64(bytes(raw))}")
    with pytest.raises(Unauthentic) as caught:
        decrypt_value(KEY, PLACE, "password", altered)
    assert caught.value.reason == "ValueAltered"
    if bit < 32:
        with pytest.raises(WrongBinding, match="another value name"):
            altered.require_name(PLACE, "password")
    else:
        altered.require_name(PLACE, "password")


@given(st.data(), values)
def test_a_flipped_bit_of_the_text_says_which_part_it_hit(data: st.DataObject, value: bytes) -> None:
    """A bit of the label, the id or the payload is refused under the rule of that part."""
    line = seal(value).line()
    position = data.draw(st.integers(0, len(line) - 1))
    changed = chr(ord(line[position]) ^ 1 << data.draw(st.integers(0, 7)))
    altered = line[:position] + changed + line[position + 1 :]
    if not changed.isascii() or "." in (changed, line[position]):
        expected = {"LineParts"}
    elif position < 2:
        expected = {"UnknownFormat"}
    elif position < line.rindex("."):
        # Another valid id is refused by the object, which has no such data key (test_manifest).
        expected = {"DataKeyId", "opened"}
    else:
        # The first six digits hold the check, and a part of the nonce with it.
        expected = {"Base64", "ValueAltered"} | ({"ValueMoved"} if position < line.rindex(".") + 7 else set())
    outcome = attempt(lambda: decrypt_value(KEY, PLACE, "password", EncryptedValue.parse(altered)))
    assert (outcome.reason if isinstance(outcome, KmsealError) else "opened") in expected


@given(data_keys, data_keys)
def test_another_data_key_does_not_open_it(sealed_with: Redacted, opened_with: Redacted) -> None:
    """It is refused as altered: from here the two look the same."""
    assume(sealed_with != opened_with)
    with pytest.raises(Unauthentic) as caught:
        decrypt_value(opened_with, PLACE, "password", seal(key=sealed_with))
    assert caught.value.reason == "ValueAltered"


def test_the_right_tag_does_not_excuse_a_wrong_check() -> None:
    """V6: a line whose check is wrong is refused even where the rest authenticates."""
    encrypted = seal()
    wrong = EncryptedValue(KEY_ID, b"\0\0\0\0", encrypted.nonce, encrypted.sealed)
    with pytest.raises(Unauthentic):
        decrypt_value(KEY, PLACE, "password", wrong)


def test_each_sealing_has_its_own_nonce() -> None:
    """The same value twice gives two lines that share no nonce."""
    lines = {seal().line() for _ in range(200)}
    assert len({EncryptedValue.parse(line).nonce for line in lines}) == 200


def test_the_largest_value_fits_and_one_byte_more_does_not() -> None:
    """Both limits, of writing and of reading."""
    largest = seal(bytes(VALUES_BYTES_MAX))
    assert decrypt_value(KEY, PLACE, "password", EncryptedValue.parse(largest.line())) == Redacted(
        bytes(VALUES_BYTES_MAX)
    )
    with pytest.raises(Malformed) as caught:
        seal(bytes(VALUES_BYTES_MAX + 1))
    assert caught.value.reason == "ValueTooLarge"
    require_total_size({"a": largest})
    with pytest.raises(Malformed) as caught:
        require_total_size({"a": largest, "b": seal(b"x")})
    assert caught.value.reason == "ValueTooLarge"


@given(st.lists(st.text(max_size=8), max_size=4), st.lists(st.text(max_size=8), max_size=4))
def test_length_prefixes_are_unambiguous(some: list[str], others: list[str]) -> None:
    """Two different sequences of texts never give the same bytes, wherever one text ends and the next begins."""
    assert (length_prefixed(*some) == length_prefixed(*others)) == (some == others)


def test_associated_data_is_that_of_the_document() -> None:
    """B2, written out byte by byte."""
    expected = b"\0\0\0\x0fkmseal/v1/value\0\0\0\x06Strict\0\0\0\x04prod\0\0\0\x02db\0\0\0\x08password"
    assert PLACE.associated_data("password") == expected
    encrypted = seal(b"value")
    assert AESGCM(KEY.reveal()).decrypt(encrypted.nonce, encrypted.sealed, expected) == b"value"


@pytest.mark.parametrize(
    ("scope", "context", "sealed_for"),
    [
        (Scope.STRICT, {"kmseal.dev/name": "db", "kmseal.dev/namespace": "prod"}, "prod/db"),
        (Scope.NAMESPACE, {"kmseal.dev/namespace": "prod"}, "prod/*"),
        (Scope.CLUSTER, {}, "*/*"),
    ],
)
def test_the_encryption_context_binds_what_the_scope_says(
    scope: Scope, context: dict[str, str], sealed_for: str
) -> None:
    """B3 and B4: exactly these members, in sorted order."""
    place = Place.of(scope, "prod", "db")
    expected = {"kmseal.dev/format": "v1", "kmseal.dev/scope": scope.value} | context
    assert list(place.encryption_context().items()) == sorted(expected.items())
    assert place.sealed_for == sealed_for


@given(places)
def test_sealed_for_can_be_read_back(place: Place) -> None:
    """It names the place without loss."""
    assert Place.parse_sealed_for(place.sealed_for) == place


@given(st.text(max_size=20) | st.from_regex(r"[a-z*/.-]{0,8}", fullmatch=True))
@example("*/*")
@example("prod/db\n")
def test_sealed_for_has_one_spelling(text: str) -> None:
    """What is accepted is spelt the one way in which we write it; all else is refused as SealedFor."""
    outcome = attempt(lambda: Place.parse_sealed_for(text))
    if isinstance(outcome, KmsealError):
        assert (type(outcome), outcome.reason) == (Malformed, "SealedFor")
    else:
        assert outcome.sealed_for == text


@given(places, places)
def test_a_place_says_what_differs(here: Place, there: Place) -> None:
    """Scope first, then namespace, then name; the same place is accepted."""
    if here == there:
        here.require(there)
        return
    with pytest.raises(WrongBinding) as caught:
        here.require(there)
    if here.scope is not there.scope:
        expected = "ScopeMismatch"
    elif here.namespace != there.namespace:
        expected = "NamespaceMismatch"
    else:
        expected = "NameMismatch"
    assert caught.value.reason == expected


@pytest.mark.parametrize("scope", [Scope.STRICT, Scope.NAMESPACE])
@pytest.mark.parametrize("name", ["", "*", "a/b", "A", "-a", "a_b", "a\n", "ä", "a..b", "\ud800"])
def test_a_place_has_names_that_kubernetes_accepts(scope: Scope, name: str) -> None:
    """An empty name would bind to less than the scope says; others could be mistaken for another place."""
    for namespace, object_name in ((name, "db"), ("prod", name)):
        if scope is Scope.NAMESPACE and object_name == name:
            continue
        with pytest.raises(Malformed) as caught:
            Place.of(scope, namespace, object_name)
        assert caught.value.reason == "ObjectName"
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("require", "good", "bad"),
    [
        (require_namespace, ["a", "a-b", "0", "a" * 63], ["a.b", "a" * 64]),
        (require_object_name, ["a", "a.b", "a-b.c", "a" * 253], ["a.", ".a", "a.-b", "a" * 254, "a" * 100_000 + "_"]),
        (require_value_name, ["a", "_", "A.b", "-", ".a", "a..", "a" * 253], ["", ".", "..", "..a", "a b", "a" * 254]),
        (require_data_key_id, ["abcd", "0000", "a" * 16], ["abc", "a" * 17, "Abcd", "ab.d", "abcd\n", "ａｂｃｄ"]),
    ],
)
def test_forms_of_names(require: object, good: list[str], bad: list[str]) -> None:
    """The limits of every kind of name, from both sides."""
    assert callable(require)
    for name in good:
        assert require(name) == name
    for name in bad:
        with pytest.raises(Malformed) as caught:
            require(name)
        assert caught.value.remedy
        assert len(str(caught.value)) < 300


@given(st.binary(max_size=64))
def test_base64_is_read_back(raw: bytes) -> None:
    """What we write, we read."""
    assert decode_base64(encode_base64(raw)) == raw


@given(
    st.text(max_size=12)
    | st.from_regex(r"[A-Za-z0-9+/]{0,9}={0,3}", fullmatch=True)
    | st.binary(max_size=6).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
@example("AB==")
@example("AAB=")
@example("AA=A")
@example("AAAA\n")
@example("=")
@example("Ａ")
def test_only_canonical_base64_is_accepted(text: str) -> None:
    """What is accepted is exactly what an encoder writes; there are no two texts for the same bytes."""
    outcome = attempt(lambda: decode_base64(text))
    if isinstance(outcome, KmsealError):
        assert (type(outcome), outcome.reason) == (Malformed, "Base64")
    else:
        assert base64.b64encode(outcome).decode() == text


@given(st.text(max_size=60))
def test_a_line_is_parsed_or_malformed(text: str) -> None:
    """No text makes the parser raise anything else."""
    for line in (text, f"v1.{text}", f"v1.{KEY_ID}.{text}", f"v1.{text}.{'A' * 44}"):
        outcome = attempt(partial(EncryptedValue.parse, line))
        if isinstance(outcome, KmsealError):
            assert type(outcome) is Malformed
            assert outcome.reason in ("LineParts", "UnknownFormat", "DataKeyId", "Base64", "PayloadLength")
        else:
            assert outcome.line() == line


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_data_key_of_another_length_is_refused(size: int) -> None:
    """K8: AES itself would take 16 bytes without a word."""
    key = Redacted(bytes(size))
    for refuse in (
        lambda: require_data_key(key),
        lambda: seal(key=key),
        lambda: decrypt_value(key, PLACE, "password", seal()),
    ):
        with pytest.raises(Malformed) as caught:
            refuse()
        assert caught.value.reason == "DataKeyLength"


def test_new_data_key_ids_are_valid_and_differ() -> None:
    """Two branches that add a data key do not collide."""
    ids = {new_data_key_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(require_data_key_id(data_key_id) == data_key_id for data_key_id in ids)


@given(st.text(max_size=300))
def test_a_quoted_name_is_printable_and_short(text: str) -> None:
    """Whatever was typed, it cannot break, reorder or colour the line that quotes it."""
    shown = shorten(text)
    assert shown.isprintable()
    assert shown.encode()
    assert shown[1:-1].count('"') == shown[1:-1].count('\\"')
    if len(text) <= 60 and text.isalnum():
        assert shown == f'"{text}"'
