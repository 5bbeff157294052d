"""The way to a server: proxies, NO_PROXY, authorities, connections that stay open."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import Misconfigured, Unavailable
from kmseal.fakekms.server import FakeKms
from kmseal.kms.alibaba.transport import Target, Transport, find_proxy, trust

Server = Callable[..., Awaitable[Any]]


async def post(transport: Transport, target: Target) -> Any:
    return await transport.request(target, path="/?a=b%20c+d", headers={"host": target.host}, body=b"", seconds=5.0)


async def test_connections_are_reused_and_the_url_arrives_as_written(raw_server: Server) -> None:
    """Ten requests, one connection; the encoded query is not encoded again."""
    peers = set()

    async def reply(request: Any, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n{}")

    server = await raw_server(reply)
    transport = Transport(4)
    target = Target.of("KMS", server.endpoint, trust(None, "x"), "x")
    for _ in range(10):
        assert (await post(transport, target)).body == b"{}"
    await transport.close()
    assert len(peers) == 1
    assert {request.target for request in server.requests} == {"/?a=b%20c+d"}
    assert not any("cookie" in request.headers for request in server.requests)


async def test_the_proxy_of_the_environment_is_used_and_no_proxy_is_honoured(
    raw_server: Server, respond: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK ignores NO_PROXY: in a cluster with a proxy, endpoints inside the VPC would not be reached."""
    server, proxy = await raw_server(respond(200, b"{}")), await raw_server(respond(200, b'{"by": "proxy"}'))
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    transport = Transport(4)
    answer = await post(transport, Target.of("KMS", server.endpoint, trust(None, "x"), "x"))
    assert json.loads(answer.body) == {"by": "proxy"}
    assert proxy.requests[0].target.startswith(server.endpoint)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answer = await post(transport, Target.of("KMS", server.endpoint, trust(None, "x"), "x"))
    await transport.close()
    assert json.loads(answer.body) == {}
    assert len(server.requests) == len(proxy.requests) == 1


def test_no_proxy_takes_domains_and_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """As other programs read it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:canary@proxy.example:3128")
    assert find_proxy("https", "kms.cn-hangzhou.aliyuncs.com") == "http://user:canary@proxy.example:3128"
    for value in (".aliyuncs.com", "aliyuncs.com", "*", "x.example,kms-vpc.cn-hangzhou.aliyuncs.com"):
        monkeypatch.setenv("NO_PROXY", value)
        assert find_proxy("https", "kms-vpc.cn-hangzhou.aliyuncs.com") is None


@pytest.mark.parametrize("value", ["socks5://canary@h:1", "http://:80", "http://h:99999", "http://canary:p@h:no"])
def test_a_proxy_that_cannot_be_used_is_misconfigured_and_not_quoted(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies are often written with a password."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(Misconfigured) as caught:
        find_proxy("https", "kms.example")
    assert caught.value.field == "HTTPS_PROXY"
    assert "canary" not in str(caught.value)


async def test_a_proxy_that_is_down_is_named_as_such(
    raw_server: Server, respond: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy points to the proxy variables, and the proxy's URL is not shown."""
    server = await raw_server(respond(200, b"{}"))
    monkeypatch.setenv("http_proxy", "http://user:canary@127.0.0.1:9")
    transport = Transport(4)
    with pytest.raises(Unavailable, match="the proxy on the way to KMS") as caught:
        await post(transport, Target.of("KMS", server.endpoint, trust(None, "x"), "x"))
    await transport.close()
    assert "canary" not in str(caught.value)


async def test_an_own_authority_is_the_only_one_and_belongs_to_its_target(tmp_path: Path) -> None:
    """One session, two targets, two authorities: each trusts its own and not the other's."""
    async with FakeKms(("r1",), folder=tmp_path / "a") as first, FakeKms(("r1",), folder=tmp_path / "b") as second:
        transport = Transport(4)
        for server, authority, works in (
            (first, first, True),
            (second, second, True),
            (first, second, False),
            (second, first, False),
        ):
            target = Target.of("KMS", server.endpoint(), trust(authority.ca_file, "x"), "KMSEAL_KMS_CA_FILE")
            if works:
                assert (await post(transport, target)).status >= 400
            else:
                with pytest.raises(Misconfigured, match="not trusted"):
                    await post(transport, target)
        await transport.close()
    assert trust(first_ca(tmp_path), "x").cert_store_stats()["x509_ca"] == 1


def first_ca(folder: Path) -> Path:
    return next(
        path for path in (folder / "a").iterdir() if "ca" in path.name and path.read_bytes().count(b"CERT") == 2
    )


def test_the_sdk_keeps_no_handler_that_could_print(tmp_path: Path) -> None:
    """Its loggers come with handlers that print URLs and tokens; after our import they print nothing."""
    program = (
        "import logging; logging.basicConfig(level=logging.DEBUG); import kmseal.kms.alibaba.provider\n"
        "for name in ('darabonba-core', 'alibabacloud-tea', 'credentials'):\n"
        "    logging.getLogger(name).critical('canary')\n"
        "    logging.getLogger(name).warning('canary')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "canary" not in done.stdout + done.stderr
