"""kmseal dev: what a developer needs to seal without a cloud. The fake itself is run in test_end_to_end."""

import asyncio
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kmseal.fakekms import FakeKms
from kmseal.fakekms.admin import AdminApi
from kmseal.fakekms.background import in_background


def test_a_key_file_is_made_for_its_owner_only(run: Any) -> None:
    """With the key local:dev where nothing else is said."""
    done = run("dev", "local-key", "keys")
    assert done.stdout == "local:dev\n"
    assert stat.S_IMODE(Path("keys").stat().st_mode) == 0o600
    sealed = run("create", "a", "-n", "b", "--key", "local:dev", "--from-literal", "x=y", "--local-key-file", "keys")
    assert run("decrypt", "-", "x", "--local-key-file", "keys", stdin=sealed.stdout).stdout == "y"


def test_a_key_file_is_never_overwritten(run: Any) -> None:
    """What was sealed with it would be lost."""
    run("dev", "local-key", "keys")
    before = Path("keys").read_bytes()
    assert "keys" in run("dev", "local-key", "keys", fails=6).stderr
    assert Path("keys").read_bytes() == before


def test_a_rotated_key_opens_what_it_sealed_before(run: Any) -> None:
    """And wraps with its new version from now on."""
    arguments = ("create", "a", "-n", "b", "--key", "local:dev", "--from-literal", "x=y", "--local-key-file", "keys")
    run("dev", "local-key", "keys")
    old = run(*arguments).stdout
    assert "version 2 is primary" in run("dev", "local-key", "keys", "--rotate").stderr
    new = run(*arguments).stdout
    assert 'keyVersionId: "1"' in old
    assert 'keyVersionId: "2"' in new
    for sealed in (old, new):
        assert run("decrypt", "-", "x", "--local-key-file", "keys", stdin=sealed).stdout == "y"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("local-key", "keys", "--name", "A B"), 3, "local:"),
        (("local-key", "missing/keys"), 6, "missing/keys"),
        (("local-key", "missing", "--rotate"), 6, "missing"),
        (("kms", "--tls-ca", "ca.pem"), 6, "a certificate of one's own needs three files"),
        (("kms", "--state", "missing/folder/state"), 6, "--state: the state file missing/folder/state"),
        (("kms", "--instance", "kst-one=mars"), 6, "--instance: there cannot be an instance kst-one in region mars"),
        (("key", "list", "--admin", "file:///etc/passwd"), 6, "--admin: is not an http:// URL"),
        (("key", "list", "--admin", "http://127.0.0.1:1"), 5, "--admin: does not answer"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Any, arguments: tuple[str, ...], code: int, line: str) -> None:
    """With the documented exit code."""
    assert line in run("dev", *arguments, fails=code).stderr


@pytest.fixture
def switches() -> Iterator[tuple[FakeKms, str]]:
    """A fake with its switches open, and their URL."""
    with in_background(FakeKms(tls=False)) as kms:
        loop, ready, url = asyncio.new_event_loop(), threading.Event(), []

        async def live() -> None:
            runner = web.AppRunner(AdminApi(kms).application(), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url.append("http://{}:{}".format(*runner.addresses[0][:2]))
            stop = asyncio.Event()
            stops.append(stop)
            ready.set()
            await stop.wait()
            await runner.cleanup()

        stops: list[asyncio.Event] = []
        thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
        thread.start()
        ready.wait()
        yield kms, url[0]
        loop.call_soon_threadsafe(stops[0].set)
        thread.join()
        loop.close()


def test_keys_of_a_running_fake(run: Any, switches: tuple[FakeKms, str]) -> None:
    """Keys of every kind are made, put on a schedule, and rotated by time that is let pass."""
    kms, url = switches
    offline = run("dev", "key", "create", "--spec", "RSA_2048", "--admin", url).stdout.strip()
    assert kms.key(offline).asymmetric
    external = run("dev", "key", "create", "--external", "--admin", url).stdout.strip()
    assert kms.key(external).state.value == "PendingImport"
    arn = run("dev", "key", "create", "--alias", "app", "--admin", url).stdout.strip()
    assert "rotated every 30d" in run("dev", "key", "schedule", arn, "30d", "--admin", url).stderr
    now = run("dev", "key", "advance", "31d", "--admin", url).stdout.strip()
    assert now.endswith("Z")
    assert kms.clock.offset == 31 * 86400
    assert len(kms.key(arn).versions) == 2
    run("dev", "key", "schedule", arn, "off", "--admin", url)
    run("dev", "key", "advance", "365d", "--admin", url)
    assert len(kms.key(arn).versions) == 2
    assert "not rotated automatically" in run("dev", "key", "schedule", offline, "7d", "--admin", url, fails=3).stderr
    refused = run("dev", "key", "create", "--region", "mars", "--admin", url, fails=3).stderr
    assert "region: not one of" in refused
    assert "kmseal dev key list" not in refused
    assert "advance: neither" in run("dev", "key", "advance", "soon", "--admin", url, fails=3).stderr
