"""Names that a message suggests or lists: helpful where they are few, and cheap where somebody sends very many."""

import time

from kmseal_webhook.forms import COMPARED_CHARS_MAX, LISTED_MAX, listed, nearest


def test_a_name_that_is_nearly_known_is_suggested() -> None:
    """And none where nothing is like it."""
    assert nearest("pasword", ["user", "password"]) == '; did you mean "password"?'
    assert nearest("zzz", ["user", "password"]) == ""


def test_among_many_the_one_of_the_same_length_is_found() -> None:
    """Only a bounded number is compared: those of about the same length."""
    assert nearest("datbaase", [*("x" * 50 for _ in range(1000)), "database"]) == '; did you mean "database"?'


def test_long_names_are_not_compared() -> None:
    """On neither side."""
    long = "a" * (COMPARED_CHARS_MAX + 1)
    assert nearest(long, [long[:-1]]) == ""
    assert nearest(long[:-1], [long]) == ""
    assert nearest(long[:-1], [long[:-2]]) != ""


def test_a_pod_full_of_names_costs_little() -> None:
    """Comparing the names of all containers of a pod of 3 MiB would hold up the loop for seconds."""
    known = [f"{number:06d}{'abcdefgh' * 7}" for number in range(20_000)]
    started = time.process_time()
    nearest("hgfedcba" * 7, known)
    assert time.process_time() - started < 0.5


def test_of_many_names_the_first_are_listed() -> None:
    """The message stays one that somebody reads."""
    assert listed(["a", "b"]) == '"a", "b"'
    text = listed([str(number) for number in range(LISTED_MAX + 5)])
    assert text.endswith(f'"{LISTED_MAX - 1}" and 5 more')
