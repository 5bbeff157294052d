"""By which keys a new data key is to be wrapped: keys of a key service, public halves in files, or both.

Used by the commands that seal. With public halves alone, sealing needs neither network nor credentials: the data key
is drawn from the operating system's random number generator, and no key service is even made.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import click

from kmseal.cli import files
from kmseal.cli.documents import Stream
from kmseal.cli.options import Connection
from kmseal.cli.output import about, warn
from kmseal.cli.sealing import KeyService, KeySet, require_keys
from kmseal.envelope import shorten
from kmseal.errors import Malformed
from kmseal.manifest import Algorithm, EncryptedSecret
from kmseal.publickey import PublicKey

VARIABLE: Final = "KMSEAL_PUBLIC_KEY"
_FILE_BYTES_MAX: Final = 65_536


def public_key_option(*, environment: bool) -> Callable[..., Any]:
    """``--public-key``; with ``environment``, the variable is its default."""
    return click.option(
        "--public-key",
        "public_key_files",
        multiple=True,
        type=click.Path(),
        metavar="FILE",
        envvar=VARIABLE if environment else None,
        help="Public half of an asymmetric KMS key, from kmseal keys public. Repeatable. Without --key, sealing needs "
        "neither network nor credentials then.",
    )


def read_public_keys(paths: Sequence[str]) -> tuple[PublicKey, ...]:
    """The public halves in files. Raises Malformed with the file and the field."""
    found = []
    for path in paths:
        with about(files.display(path)):
            values = Stream.parse(files.read(path, limit=_FILE_BYTES_MAX)).values()
            if len(values) != 1:
                raise Malformed(
                    f"holds {len(values)} documents instead of one",
                    reason="PublicKey",
                    remedy="pass a file that kmseal keys public wrote",
                )
            found.append(PublicKey.parse(values[0][1]))
    return tuple(found)


def require_key_set(keys: tuple[str, ...], public_key_files: tuple[str, ...]) -> KeySet:
    """The keys that the options name, checked as far as that is possible without any call."""
    if not (keys or public_key_files):
        # Not required=True: click would not say that the environment counts.
        raise click.UsageError("Missing option '--key', and KMSEAL_KEY is not set", click.get_current_context())
    chosen = KeySet(keys, read_public_keys(public_key_files))
    require_keys(chosen)
    return chosen


def key_set_of(encrypted: EncryptedSecret, keys: tuple[str, ...], public_key_files: tuple[str, ...]) -> KeySet:
    """The keys for a new data key of an object: those that are given, else those that the object has.

    The public halves for its asymmetric keys are then looked for in the files that the environment names.
    """
    if keys or public_key_files:
        chosen = KeySet(keys, read_public_keys(public_key_files))
        require_keys(chosen)
        if lost := lost_keys(encrypted, chosen):
            warn(f"the new values will not open with {lost}, as others here do")
        return chosen
    known = {public.key_id: public for public in read_public_keys(_from_environment())}
    symmetric, asymmetric = keys_of(encrypted)
    for key_id in asymmetric:
        if key_id not in known:
            options = "".join(f" --key {key}" for key in symmetric) + "".join(
                f" --public-key {f'FILE{number}' if len(asymmetric) > 1 else 'FILE'}"
                for number, _ in enumerate(asymmetric, 1)
            )
            raise Malformed(
                f"{key_id} is an asymmetric key: wrapping by it needs the file with its public half",
                field="--public-key",
                reason="NoPublicKey",
                remedy=f"fetch it with kmseal keys public --key {key_id} -w FILE, and pass{options}, "
                f"or name the file in {VARIABLE}",
            )
    chosen = KeySet(symmetric, tuple(known[key_id] for key_id in asymmetric))
    require_keys(chosen)
    return chosen


def keys_of(encrypted: EncryptedSecret) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that wrap the object's data keys, each once: those of a key service, and those with a public half."""
    kinds: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for data_key in encrypted.used_data_keys:
        for wrapping in data_key.wrappings:
            kinds[wrapping.algorithm is Algorithm.RSAES_OAEP_SHA_256][wrapping.key_id] = None
    return tuple(kinds[0]), tuple(kinds[1])


@asynccontextmanager
async def key_service(connection: Connection, keys: KeySet) -> AsyncIterator[KeyService | None]:
    """The key service, where any of the keys needs one."""
    if not keys.keys:
        yield None
        return
    async with connection.open() as service:
        yield service


def _from_environment() -> list[str]:
    return [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def lost_keys(encrypted: EncryptedSecret, chosen: KeySet) -> str:
    """Keys that open the object and would not open a new data key, as a text; empty where there are none.

    Fewer wrappings than before is what nobody notices until a region is down.
    """
    # An alias may name any of them: only KMS knows.
    if any(":alias/" in key for key in chosen.keys):
        return ""
    named = {*chosen.keys, *(public.key_id for public in chosen.public)}
    return ", ".join(shorten(key, 200) for kind in keys_of(encrypted) for key in kind if key not in named)
