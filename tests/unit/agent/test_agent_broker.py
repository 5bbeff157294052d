"""One request to a real HTTPS server: whom the agent trusts, what it sends, and every fault on the way."""

import base64
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from kmseal_agent import broker as broker_module
from kmseal_agent.broker import LONGEST_ANSWER, Broker
from kmseal_agent.errors import AgentError, Denied, Retryable, Terminal

GRANT = {"db": {"password": b"secret"}}


def ask(pod: Any, seconds: float = 5.0) -> Any:
    return Broker(pod.config, None).ask(["db"], seconds)


def fault(pod: Any, seconds: float = 5.0) -> AgentError:
    with pytest.raises(AgentError) as caught:
        ask(pod, seconds)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_a_grant(pod: Any, acting: Any) -> None:
    """A grant arrives with its values and its lifetime."""
    acting.play(acting.grant(GRANT, lifetime=77))
    grant = ask(pod)
    assert (grant.secrets, grant.lifetime) == (GRANT, 77.0)


def test_a_large_grant(pod: Any, acting: Any) -> None:
    """Some megabytes arrive whole."""
    large = {"db": {"file": bytes(range(256)) * 16_384}}
    acting.play(acting.grant(large))
    assert ask(pod).secrets == large


def test_a_chunked_grant(pod: Any, acting: Any) -> None:
    """An answer in chunks is read as one with a length; one whose last chunk is missing is a fault."""
    body = b'{"expiresInSeconds": 1, "secrets": {"db": {"values": {}}}}'
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)
    acting.play(acting.raw(chunks + b"0\r\n\r\n"), acting.raw(chunks))
    assert ask(pod).secrets == {"db": {}}
    assert fault(pod).reason == "BrokerUnreachable"


def test_a_renewed_token(pod: Any, acting: Any) -> None:
    """The token is read anew for each request."""
    acting.play(acting.grant(GRANT))
    ask(pod)
    pod.token.write_text("renewed\n")
    ask(pod)
    assert acting.tokens == ["Bearer token-canary-9f2c", "Bearer renewed"]


def test_a_renewed_ca(pod: Any, acting: Any, new_authority: Any) -> None:
    """The CA is read anew for each request: a certificate of the new one is refused until it is in the file."""
    acting.play(acting.grant(GRANT))
    ask(pod)
    acting.context = new_authority.serving()
    assert fault(pod).reason == "CertificateRefused"
    # The bundle of an overlap: both authorities.
    pod.ca.write_text(pod.ca.read_text() + new_authority.pem)
    assert ask(pod).secrets == GRANT
    assert len(acting.tokens) == 2  # No token for a server that could not show a certificate.


def test_the_ca_of_the_variable(pod: Any, acting: Any, authority: Any) -> None:
    """Without a file the CA comes from KMSEAL_CA."""
    del pod.members["ca"]
    acting.play(acting.grant(GRANT))
    assert Broker(pod.config, authority.pem).ask(["db"], 5).secrets == GRANT
    assert fault(pod).reason == "CaUnreadable"


@pytest.mark.parametrize(("name", "days"), [("kmseal-webhook.kmseal-system.svc", -1), ("kmseal-webhook.other.svc", 1)])
def test_a_certificate_that_does_not_hold(pod: Any, acting: Any, authority: Any, name: str, days: int) -> None:
    """An expired certificate and one for another name are refused, with the reason and before the token is sent."""
    acting.context = authority.serving(name, days=days)
    error = fault(pod)
    assert error.reason == "CertificateRefused"
    assert "expired" in str(error) or "Hostname mismatch" in str(error)
    assert acting.tokens == []


def test_the_stores_of_the_image_do_not_count(
    pod: Any, acting: Any, new_authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA that the environment offers to OpenSSL is not trusted, and no key log is written."""
    store, keys = tmp_path / "store.pem", tmp_path / "keys.log"
    store.write_text(new_authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    acting.play(acting.grant(GRANT))
    ask(pod)
    assert not keys.exists()
    acting.context = new_authority.serving()
    assert fault(pod).reason == "CertificateRefused"


def test_old_protocols(pod: Any, acting: Any) -> None:
    """A server that speaks TLS 1.2 at most is talked to; one that stops at TLS 1.1 is not."""
    acting.play(acting.grant(GRANT))
    acting.context.maximum_version = ssl.TLSVersion.TLSv1_2
    ask(pod)
    assert acting.versions == ["TLSv1.2"]
    acting.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        acting.context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        acting.context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert isinstance(fault(pod), Retryable)
    assert len(acting.tokens) == 1


def test_no_proxy_and_no_redirect(pod: Any, acting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are not used, and a redirect is a fault and not followed."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    acting.play(acting.answer(307, b"{}", {"Location": f"https://127.0.0.1:{acting.port}/"}), acting.grant(GRANT))
    assert fault(pod).reason == "UnexpectedAnswer"
    assert len(acting.tokens) == 1


def test_retry_after(pod: Any, acting: Any) -> None:
    """The broker's Retry-After arrives with its reason."""
    acting.play(acting.refuse(429, "Throttled", retry=True, after="7"))
    error = fault(pod)
    assert isinstance(error, Retryable)
    assert (error.reason, error.retry_after) == ("Throttled", 7.0)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no http\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 500 No\r\n\r\n" + b"x" * 1_000_000,
        b"HTTP/1.1 502 No\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_broken_answers(pod: Any, acting: Any, message: bytes) -> None:
    """What is no HTTP, cut, or no answer of the broker's is a fault like any other."""
    acting.play(acting.raw(message))
    assert isinstance(fault(pod), Retryable)


def test_a_reset(pod: Any, acting: Any) -> None:
    """A reset connection is a fault that names the broker."""
    acting.play(acting.reset)
    assert str(fault(pod)).startswith("no answer from 127.0.0.1: ")


def test_nobody_listens(pod: Any, deaf_port: int) -> None:
    """A port where nobody listens, and a name that nobody knows, are faults."""
    pod.members["broker"] = f"https://127.0.0.1:{deaf_port}"
    assert "ConnectionRefusedError 111" in str(fault(pod))
    pod.members["broker"] = "https://kmseal.invalid"
    assert "gaierror" in str(fault(pod))


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_answer(pod: Any, acting: Any, declared: bool) -> None:
    """A grant of more than 8 MiB is refused with the remedy, announced or not, and is not retried."""
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: %d\r\n\r\n" % (LONGEST_ANSWER + 1) if declared else b"\r\n")
    acting.play(acting.raw(head + b" " * (LONGEST_ANSWER + 1)))
    error = fault(pod, 20)
    assert isinstance(error, Terminal)
    assert (error.reason, error.remedy) == ("AnswerTooLong", "inject fewer or smaller secrets into one pod")


@pytest.mark.parametrize("act", ["silence", "drip"])
def test_slow_answers(pod: Any, acting: Any, act: str) -> None:
    """Silence and drips end with the time of the whole request."""
    acting.play(getattr(acting, act))
    begun = time.monotonic()
    assert fault(pod, 0.3).reason == "BrokerSlow"
    assert time.monotonic() - begun < 2


def test_the_limit_of_a_request(pod: Any, acting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all the time in the world a request still ends at its own limit."""
    monkeypatch.setattr(broker_module, "REQUEST_SECONDS", 0.2)
    acting.play(acting.drip)
    assert fault(pod, float("inf")).reason == "BrokerSlow"


def test_a_server_without_tls(pod: Any) -> None:
    """A server that accepts and says nothing holds up the handshake for no longer than the request may take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pod.members["broker"] = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert fault(pod, 0.2).reason == "BrokerSlow"


@pytest.mark.parametrize("content", [None, "", "  \n", "two words", "line\r\nX-Evil: 1", "tökén"])
def test_no_token(pod: Any, acting: Any, content: str | None) -> None:
    """Without a token, or with something that is none, nothing is sent and nothing of it is shown."""
    if content is None:
        pod.token.unlink()
    else:
        pod.token.write_text(content)
    error = fault(pod)
    assert (error.reason, isinstance(error, Retryable)) == ("TokenUnreadable", True)
    assert acting.tokens == []


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_no_ca(pod: Any, content: str | None) -> None:
    """A CA that is not there yet, or is none, is a fault: the kubelet may bring it in a moment."""
    if content is None:
        pod.ca.unlink()
    else:
        pod.ca.write_text(content)
    error = fault(pod)
    assert (error.reason, isinstance(error, Retryable)) == ("CaUnreadable", True)


def jwt(**claims: object) -> str:
    """A token with these claims, as the kubelet puts it into the volume."""
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.c2ln"


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("claims", "wipes"),
    [
        ({"exp": NOW + 1}, True),
        ({"exp": NOW}, False),
        ({"exp": NOW - 3600, "sub": "\xff\xfe>>>???"}, False),
        ({"sub": "no end"}, True),
        ({"exp": "soon"}, True),
    ],
    ids=["valid", "just expired", "long expired", "no end", "odd end"],
)
def test_a_refused_token_wipes_only_while_it_says_that_it_is_valid(
    pod: Any, acting: Any, claims: dict[str, object], wipes: bool
) -> None:
    """After an outage of the API server all tokens are out of date at once: that takes no right away."""
    pod.token.write_text(jwt(**claims))
    acting.play(acting.refuse(401, "BadToken", wipe=True))
    with pytest.raises(AgentError) as caught:
        Broker(pod.config, None, now=lambda: NOW).ask(["db"], 5)
    error = caught.value
    assert (error.reason, isinstance(error, Denied) and error.wipe) == (
        ("BadToken", True) if wipes else ("TokenExpired", False)
    )
    assert isinstance(error, Retryable) is not wipes


def test_another_refusal_wipes_whatever_the_token_says(pod: Any, acting: Any) -> None:
    """The broker has accepted the token then: what it says of the right counts."""
    pod.token.write_text(jwt(exp=NOW - 3600))
    acting.play(acting.refuse(403, "Forbidden", wipe=True))
    with pytest.raises(Denied) as caught:
        Broker(pod.config, None, now=lambda: NOW).ask(["db"], 5)
    assert caught.value.wipe


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "e30.W10.c2ln", "e30." + "W" * 60_000 + ".x"])
def test_a_token_without_claims_is_the_brokers_to_judge(pod: Any, acting: Any, token: str) -> None:
    """Nothing in it says that it has merely expired."""
    pod.token.write_text(token)
    acting.play(acting.refuse(401, "BadToken", wipe=True))
    with pytest.raises(Denied) as caught:
        Broker(pod.config, None, now=lambda: NOW).ask(["db"], 5)
    assert caught.value.wipe
