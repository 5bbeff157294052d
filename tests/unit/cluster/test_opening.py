"""Opening beside everything else: what is in the templates of one object holds up nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from kmseal.cluster.opening import Opened, open_object
from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.errors import TemplateFailed
from kmseal.kms.provider import Context, Unwrapped
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.target import Target

PLACE = Place.of(Scope.STRICT, "prod", "db")
HEAVY = dict.fromkeys("abc", "{%if 1%}{%endif%}" * 400)
"""Some tenths of a second to compile."""


class OneKey:
    """A keyring that opens everything at once."""

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        return Unwrapped(Redacted(b"k" * 32), "local:dev", "v1", "r1")


def sealed(templates: dict[str, str]) -> EncryptedSecret:
    id_ = new_data_key_id()
    value = encrypt_value(Redacted(b"k" * 32), id_, PLACE, "password", Redacted(b"x"))
    wrapping = Wrapping("local:dev", "v1", Algorithm.LOCAL_AES_256_GCM, b"w" * 60)
    return EncryptedSecret(
        "prod", "db", Scope.STRICT, (DataKey(id_, PLACE, (wrapping,)),), {"password": value},
        Target("db", data=templates),
    )  # fmt: skip


async def opened(templates: dict[str, str]) -> Opened | Exception:
    return await open_object(sealed(templates), (), OneKey(), clock=lambda: 0.0, on_unwrap=lambda seconds: None)


async def test_the_event_loop_goes_on_while_templates_are_rendered() -> None:
    """Others get their turns all the time, not only before and after."""
    task = asyncio.create_task(opened(HEAVY))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert isinstance(await task, Opened)
    assert turns > 10


async def test_templates_are_rendered_one_object_at_a_time() -> None:
    """Many that come at once all come out, each with its own values and its own budget."""
    outcomes = await asyncio.gather(*(opened({**HEAVY, "n": f"{n}{{{{ values.password }}}}"}) for n in range(3)))
    assert [one.data["n"].reveal() for one in outcomes if isinstance(one, Opened)] == [b"0x", b"1x", b"2x"]


async def test_an_error_of_a_template_comes_out_of_the_thread() -> None:
    """As the outcome, as every error of opening does."""
    assert isinstance(await opened({"a": "{{ values.no }}"}), TemplateFailed)


async def test_whoever_gives_up_does_not_wait_for_the_others() -> None:
    """A client that left is out of the queue at once."""
    first = asyncio.create_task(opened(HEAVY))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await opened(HEAVY)
    assert not first.done()
    await first
