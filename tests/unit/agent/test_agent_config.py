"""KMSEAL_CONFIG: what is accepted, and that each mistake is refused with its member's path."""

import json
from typing import Any

import pytest

from kmseal_agent.config import Address, Post, Signal, Wanted, read_config
from kmseal_agent.errors import Misconfigured

SECRET: dict[str, Any] = {"name": "db", "files": True, "env": False, "mode": "0400"}
MEMBERS: dict[str, Any] = {
    "broker": "https://kmseal-webhook.kmseal-system.svc:8443",
    "serverName": "kmseal-webhook.kmseal-system.svc",
    "token": "/var/run/kmseal/token",
    "ca": "/var/run/kmseal/ca.crt",
    "root": "/kmseal",
    "deadlineSeconds": 120,
    "refreshSeconds": 300,
    "reload": "http://127.0.0.1:8080/reload?all",
    "secrets": [SECRET, {"name": "cache.v1", "files": False, "env": True, "mode": "0640", "names": {"u": "URL"}}],
}


def test_everything() -> None:
    """All members arrive as they are meant."""
    config = read_config(json.dumps(MEMBERS))
    assert config.address == Address(
        "kmseal-webhook.kmseal-system.svc", 8443, "kmseal-webhook.kmseal-system.svc"
    )  # fmt: skip
    assert (config.token, config.ca, config.root) == ("/var/run/kmseal/token", "/var/run/kmseal/ca.crt", "/kmseal")
    assert (config.deadline, config.refresh) == (120.0, 300.0)
    assert config.reload == Post("127.0.0.1", 8080, "/reload?all")
    assert config.secrets == (
        Wanted("db", True, False, 0o400, None),
        Wanted("cache.v1", False, True, 0o640, {"u": "URL"}),
    )


def test_what_may_be_left_out() -> None:
    """Without ca, refreshSeconds and reload, and with the port of HTTPS by default."""
    members = {name: value for name, value in MEMBERS.items() if name not in {"ca", "refreshSeconds", "reload"}}
    config = read_config(json.dumps({**members, "broker": "https://broker/"}))
    assert (config.ca, config.refresh, config.reload, config.address.port) == (None, None, None, 443)


@pytest.mark.parametrize(
    ("text", "reload"),
    [
        ("signal:HUP:nginx", Signal("HUP", "nginx")),
        ("signal:SIGUSR1:app-1.2", Signal("USR1", "app-1.2")),
        ("http://localhost", Post("localhost", 80, "/")),
        ("http://localhost:81/-/reload", Post("localhost", 81, "/-/reload")),
    ],
)
def test_reload(text: str, reload: Post | Signal) -> None:
    """A signal to a process, or a POST to the loopback."""
    assert read_config(json.dumps({**MEMBERS, "reload": text})).reload == reload


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("broker", "http://broker"),
        ("broker", "https://broker/path"),
        ("broker", "https://user@broker"),
        ("broker", "https://broker:99999"),
        ("broker", "https://"),
        ("broker", 7),
        ("serverName", ""),
        ("serverName", "a b"),
        ("token", "token"),
        ("token", "/a/../b"),
        ("ca", None),
        ("ca", ""),
        ("root", "/"),
        ("root", "/kmseal/."),
        ("deadlineSeconds", 0),
        ("deadlineSeconds", 3601),
        ("deadlineSeconds", True),
        ("deadlineSeconds", 1.5),
        ("refreshSeconds", 0),
        ("refreshSeconds", 86_401),
        ("reload", "http://10.0.0.1/"),
        ("reload", "http://localhost.evil/"),
        ("reload", "http://localhost@evil/"),
        ("reload", "http://localhost:x/"),
        ("reload", "http://localhost/a b"),
        ("reload", "http://localhost/\r\nX: y"),
        ("reload", "https://localhost/"),
        ("reload", "signal:hup:nginx"),
        ("reload", "signal:HUP:a/b"),
        ("reload", "signal:HUP:"),
        ("secrets", []),
        ("secrets", [SECRET] * 17),
        ("secrets", [SECRET] * 2),
        ("secrets", {}),
        ("more", 1),
    ],
)
def test_mistakes(member: str, value: object) -> None:
    """Each wrong member is refused with its name and exit code 6."""
    with pytest.raises(Misconfigured) as caught:
        read_config(json.dumps({**MEMBERS, member: value}))
    assert caught.value.field == f"KMSEAL_CONFIG.{member}"
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "../up"}, ".name"),
        ({"name": "UPPER"}, ".name"),
        ({"name": "a" * 63 + ("." + "a" * 63) * 4}, ".name"),
        ({"files": "yes"}, ".files"),
        ({"files": False}, ""),
        ({"mode": "400"}, ".mode"),
        ({"mode": "0300"}, ".mode"),
        ({"mode": "04400"}, ".mode"),
        ({"mode": "0402"}, ".mode"),
        ({"mode": 256}, ".mode"),
        ({"names": {}}, ".names"),
        ({"names": {"a": 1}}, ".names"),
        ({"names": {"a": "X", "b": "X"}}, ".names"),
        ({"later": 1}, ".later"),
    ],
)
def test_mistakes_of_a_secret(change: dict[str, object], path: str) -> None:
    """Each wrong member of a secret is refused with its path."""
    with pytest.raises(Misconfigured) as caught:
        read_config(json.dumps({**MEMBERS, "secrets": [{**SECRET, **change}]}))
    assert caught.value.field == f"KMSEAL_CONFIG.secrets[0]{path}"


@pytest.mark.parametrize("member", ["broker", "serverName", "token", "root", "deadlineSeconds", "secrets"])
def test_missing(member: str) -> None:
    """A member that is not there is named."""
    with pytest.raises(Misconfigured, match=f"KMSEAL_CONFIG.{member}: is missing"):
        read_config(json.dumps({name: value for name, value in MEMBERS.items() if name != member}))


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"root": "/a", "root": "/b"}', "[" * 100_000])
def test_no_configuration(text: str | None) -> None:
    """Nothing, no JSON, no object and a member given twice are refused."""
    with pytest.raises(Misconfigured, match=r"^KMSEAL_CONFIG: "):
        read_config(text)
