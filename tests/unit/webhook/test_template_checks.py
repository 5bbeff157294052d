"""Reading templates in threads: never more at one time than there are places, and nobody waits for ever."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

from kmseal.errors import TemplateFailed, Unavailable
from kmseal_webhook.parsing import TemplateChecks


class Slow:
    """A check that takes until it is let go, and counts who is in it."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = 0
        self._lock = threading.Lock()

    def __call__(self, templates: Mapping[str, str]) -> None:
        with self._lock:
            self.entered += 1
        self.release.wait()
        raise TemplateFailed("wrong")


async def test_what_cannot_be_rendered_is_refused() -> None:
    """By the rules of templates; what can be, and nothing at all, passes."""
    checks = TemplateChecks()
    await checks.require_possible({})
    await checks.require_possible({"a": "{{ values.a }}"})
    with pytest.raises(TemplateFailed):
        await checks.require_possible({"a": "{{ values.a"})


async def test_a_thread_that_nobody_waits_for_keeps_its_place() -> None:
    """Else impatient requests would start thread after thread, and fill the pool that everything shares."""
    slow = Slow()
    checks = TemplateChecks(at_once=2, seconds=0.05, check=slow)
    try:
        outcomes = await asyncio.gather(
            *(checks.require_possible({"a": "x"}) for _ in range(6)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 6
        with pytest.raises(Unavailable):
            await checks.require_possible({"a": "x"})
        assert slow.entered == 2
    finally:
        slow.release.set()


async def test_a_place_is_free_when_its_thread_has_ended() -> None:
    """Also one whose answer came too late for anybody."""
    slow = Slow()
    checks = TemplateChecks(at_once=1, seconds=0.05, check=slow)
    with pytest.raises(Unavailable):
        await checks.require_possible({"a": "x"})
    slow.release.set()
    for _ in range(20):
        try:
            await checks.require_possible({"a": "x"})
        except Unavailable:
            continue
        except TemplateFailed:
            return
    pytest.fail("the place was not given back")
