"""Templates that admission reads to see whether they could ever be rendered: in threads, few at a time.

Asked by ``mutation`` and ``validation``. Reading a hostile template takes a second or more, in which the loop has other
pods to admit; and a thread cannot be stopped. So a place is held until its thread has ended, also where nobody waits
for the answer any more, and whoever gets no place in time is told so.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from kmseal.cluster.templates import require_possible
from kmseal.errors import Unavailable

AT_ONCE: Final = 2
SECONDS: Final = 2.0
"""For one object or pod, waiting included; well below the timeout of the webhook configurations."""


class TemplateChecks:
    """Reads the templates of one object or pod after the other.

    :param at_once: how many threads read at one time
    :param check: what they do: raises TemplateFailed
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        seconds: float = SECONDS,
        check: Callable[[Mapping[str, str]], None] = require_possible,
    ) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._seconds = seconds
        self._check = check

    async def require_possible(self, templates: Mapping[str, str]) -> None:
        """Raises TemplateFailed for templates that no values could make render, Unavailable where time is up."""
        if not templates:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
                reading = asyncio.create_task(asyncio.to_thread(self._check, templates))
                reading.add_done_callback(self._free)
                await asyncio.shield(reading)
        except TimeoutError:
            raise Unavailable(
                f"the templates were not read within {self._seconds:g} s", reason="Busy", remedy="try again"
            ) from None

    def _free(self, reading: asyncio.Task[None]) -> None:
        self._places.release()
        if not reading.cancelled():
            # What is wrong is of no interest once nobody waits; unasked, asyncio would complain of it.
            reading.exception()
