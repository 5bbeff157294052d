"""The HTTP side: /healthz, /readyz and /metrics.

Alive means that the event loop turns and that no feed has been silent for too long; an API server that is down does not
make the process unhealthy, because a restart would not help: silence is measured only while the feed thinks that it is
connected. Ready means that the caches are filled, and whatever else the process says.
"""

from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from kmseal.cluster.feed import Feed
from kmseal.errors import Misconfigured

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """The routes.

    :param scrape: gives the exposition text of the metrics; is told whether the process is ready
    :param silence: seconds without a word on a connected feed after which the process counts as dead
    :param reporting: more feeds, which only reports need: the process is ready without them
    :param is_serving: what besides filled caches makes the process ready
    """

    def __init__(
        self, feeds: Sequence[Feed], scrape: Callable[[bool], bytes], *, clock: Callable[[], float], silence: float,
        is_serving: Callable[[], bool] = lambda: True, reporting: Sequence[Feed] = (),
    ) -> None:  # fmt: skip
        self._feeds = feeds
        self._reporting = reporting
        self._render = scrape
        self._clock = clock
        self._silence = silence
        self._is_serving = is_serving

    def is_ready(self) -> bool:
        """Whether all caches that are needed are filled, and requests welcome."""
        return all(feed.synced.is_set() for feed in self._feeds) and self._is_serving()

    def is_alive(self) -> bool:
        """Whether every connected feed has been heard of lately."""
        now = self._clock()
        return all(
            not feed.connected or now - feed.heard_at < self._silence for feed in (*self._feeds, *self._reporting)
        )

    async def start(self, listen: str, flag: str = "--listen") -> web.AppRunner:
        """Binds the address ``host:port`` and serves; the caller cleans the runner up. Raises Misconfigured."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, _, port = listen.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except (OSError, ValueError, OverflowError):
            await runner.cleanup()
            raise Misconfigured(
                "health and metrics cannot be served at this address",
                field=flag,
                remedy="give a free address as host:port",
            ) from None
        return runner

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.is_alive() else web.Response(status=503, text="a feed is silent\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.is_ready() else web.Response(status=503, text="not ready\n")

    async def _scrape(self, request: web.Request) -> web.Response:
        return web.Response(body=self._render(self.is_ready()), headers={"Content-Type": CONTENT_TYPE})
