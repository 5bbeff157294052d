"""A FakeKms on an event loop of its own, in a thread: for callers that are not asynchronous themselves.

Used by tests of the command line and by the demo, which start other programs and wait for them. Reading counters and
the trail, and calling the methods of FakeKms that are not coroutines, is safe from the outside while requests run only
as far as a test needs it: nothing here is locked, so do not change keys while they are being used.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kmseal.fakekms.server import FakeKms


@contextmanager
def in_background(kms: FakeKms) -> Iterator[FakeKms]:
    """Runs the fake until the block ends. What its start raises is raised here."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    failure: list[BaseException] = []

    async def live() -> None:
        try:
            async with kms:
                ready.set()
                await stop.wait()
        except BaseException as error:  # noqa: BLE001  (it is raised again in the thread that waits)
            failure.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), name="fakekms", daemon=True)
    thread.start()
    ready.wait()
    try:
        if failure:
            raise failure[0]
        yield kms
    finally:
        if not failure:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
