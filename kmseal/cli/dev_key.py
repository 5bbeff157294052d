"""``kmseal dev key``: the keys of a running fake, by the switches that it opens on loopback.

The switches belong to the fake alone; a real KMS is administered with Alibaba Cloud's own tools.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from kmseal.cli.lazy import SETTINGS, Command, LazyGroup, verbose_option
from kmseal.cli.output import note, result
from kmseal.errors import Misconfigured, Refused, Unavailable

_TIMEOUT: Final = 10.0

admin_option = click.option(
    "--admin",
    metavar="URL",
    envvar="KMSEAL_DEV_ADMIN",
    required=True,
    help="The switches, as kmseal dev kms prints them; also by KMSEAL_DEV_ADMIN.",
)


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@verbose_option
def command() -> None:
    """Create, list and switch the keys of a running fake."""


@command.command(cls=Command)
@click.option("--alias", metavar="ALIAS", help="Alias of the key.")
@click.option("--region", metavar="REGION", help="Region of the key.  [default: the fake's first one]")
@click.option(
    "--spec",
    type=click.Choice(["Aliyun_AES_256", "RSA_2048", "RSA_3072", "RSA_4096"]),
    help="Kind of the key.  [default: Aliyun_AES_256]",
)
@click.option("--external", is_flag=True, help="Its material is to be imported.")
@admin_option
@verbose_option
def create(*, alias: str | None, region: str | None, spec: str | None, external: bool, admin: str) -> None:
    """Create a key and print its ARN."""
    wanted = {"alias": alias, "region": region, "spec": spec, "origin": "EXTERNAL" if external else None}
    made = _ask(admin, "/keys", {name: text for name, text in wanted.items() if text})
    result(f"{made['key']}\n")


@command.command(cls=Command, name="list")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the list.")
@admin_option
@verbose_option
def list_keys(*, output: str, admin: str) -> None:
    """List the keys with state, primary version and aliases."""
    keys = _ask(admin, "/keys")
    if output == "json":
        result(json.dumps(keys) + "\n")
        return
    for key in keys:
        result(f"{key['key']}  {key['state']}  {key['primaryVersion']}  {' '.join(key['aliases'])}".rstrip() + "\n")


@command.command(cls=Command)
@click.argument("key")
@admin_option
@verbose_option
def rotate(*, key: str, admin: str) -> None:
    """Give a key a new version now and print its id."""
    result(f"{_ask(admin, '/rotate', {'key': key})['keyVersionId']}\n")


@command.command(cls=Command)
@click.argument("key")
@click.argument("interval")
@admin_option
@verbose_option
def schedule(*, key: str, interval: str, admin: str) -> None:
    """Rotate a key every INTERVAL (30d, 12h, 90s), or no more (off)."""
    _ask(admin, "/schedule", {"key": key, "every": None if interval == "off" else interval})
    note(f"{key}: not rotated any more" if interval == "off" else f"{key}: rotated every {interval}")


@command.command(cls=Command)
@click.argument("duration")
@admin_option
@verbose_option
def advance(*, duration: str, admin: str) -> None:
    """Let time (30d, 12h, 90s) pass for all keys, and print the time that they see.

    What is due happens at once: rotations, ends of deletion windows and of imported material. Clients, their signatures
    and credentials stay in real time.
    """
    result(f"{_ask(admin, '/clock', {'advance': duration})['now']}\n")


def _switch(name: str, purpose: str) -> Callable[..., None]:
    def switch(*, key: str, admin: str) -> None:
        _ask(admin, f"/{name}", {"key": key})
        note(f"{key}: {name}d")

    switch.__doc__ = purpose
    return switch


for _name, _purpose in (("enable", "Enable a key again."), ("disable", "Disable a key: it wraps and opens nothing.")):
    command.command(_name, cls=Command)(click.argument("key")(admin_option(verbose_option(_switch(_name, _purpose)))))


def _ask(admin: str, path: str, body: Mapping[str, str | None] | None = None) -> Any:
    """The JSON answer of a switch; a POST where there is a body."""
    if not admin.startswith("http://"):
        raise Misconfigured("is not an http:// URL", field="--admin", remedy="take what kmseal dev kms prints")
    request = urllib.request.Request(  # noqa: S310  # The scheme was checked above.
        admin.rstrip("/") + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # The fake is on this machine: a proxy that the environment names must not be asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(_explanation(error), field="--admin", remedy=_remedy(path)) from None
    except (OSError, ValueError):
        raise Unavailable(
            "does not answer", field="--admin", remedy="check that kmseal dev kms runs, and its admin URL"
        ) from None


def _remedy(path: str) -> str:
    """Only where a key was named can it be the wrong one."""
    if path in ("/keys", "/clock"):
        return "correct what was given; --help of the command describes it"
    return "list the keys: kmseal dev key list"


def _explanation(error: urllib.error.HTTPError) -> str:
    try:
        return f"the fake refuses: {json.load(error)['error'].rstrip('.')}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"the fake refuses with HTTP status {error.code}"
