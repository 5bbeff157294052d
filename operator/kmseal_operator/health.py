"""The HTTP side: /healthz, /readyz and /metrics.

Alive means that the event loop turns and that no feed has been silent for too long; an API server that is down does not
make the process unhealthy, because a restart would not help: silence is measured only while the feed thinks that it is
connected. Ready means that the caches are filled.
"""

from collections.abc import Callable, Sequence

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal_operator.feed import Feed
from kmseal_operator.metrics import CONTENT_TYPE, Metrics


class Health:
    """The routes; ``run`` serves them until cancelled."""

    def __init__(self, feeds: Sequence[Feed], metrics: Metrics, *, clock: Callable[[], float], silence: float) -> None:
        self._feeds = feeds
        self._metrics = metrics
        self._clock = clock
        self._silence = silence

    def is_ready(self) -> bool:
        """Whether all caches are filled."""
        return all(feed.synced.is_set() for feed in self._feeds)

    def is_alive(self) -> bool:
        """Whether every connected feed has been heard of lately."""
        now = self._clock()
        return all(not feed.connected or now - feed.heard_at < self._silence for feed in self._feeds)

    async def start(self, listen: str) -> web.AppRunner:
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
                field="--listen",
                remedy="give a free address as host:port",
            ) from None
        return runner

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.is_alive() else web.Response(status=503, text="a feed is silent\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self.is_ready() else web.Response(status=503, text="filling caches\n")

    async def _scrape(self, request: web.Request) -> web.Response:
        self._metrics.ready.set(self.is_ready())
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
