"""What makes a process ready, and what makes it count as dead."""

import asyncio
from dataclasses import dataclass, field
from typing import cast

from kmseal.cluster.feed import Feed
from kmseal.cluster.health import Health


@dataclass
class Watched:
    """What Health sees of a feed."""

    connected: bool = False
    heard_at: float = 0.0
    synced: asyncio.Event = field(default_factory=asyncio.Event)


def health(needed: Watched, reporting: Watched, now: float = 0.0) -> Health:
    return Health(
        [cast(Feed, needed)], lambda ready: b"", clock=lambda: now, silence=300.0, reporting=[cast(Feed, reporting)]
    )


def test_a_feed_that_only_reports_is_not_waited_for() -> None:
    """What is needed has to be filled; a right that is missing for a report stops nothing."""
    needed, reporting = Watched(), Watched()
    assert not health(needed, reporting).is_ready()
    needed.synced.set()
    assert health(needed, reporting).is_ready()


def test_a_connected_feed_that_is_silent_makes_the_process_dead() -> None:
    """Whichever it is: a new process may hear. One that is not connected says nothing about us."""
    for silent in (0, 1):
        feeds = [Watched(heard_at=400.0), Watched(heard_at=400.0)]
        feeds[silent].heard_at = 100.0
        assert health(*feeds, now=500.0).is_alive()
        feeds[silent].connected = True
        assert not health(*feeds, now=500.0).is_alive()
