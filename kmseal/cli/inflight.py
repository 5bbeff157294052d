"""A key service that is asked by many at once: a limit on requests in flight, and one description of each key.

Used by ``rewrap`` and ``rotate``, whose runs ask for thousands of objects. The pace is set below, by the budget of the
key service; here is only kept that a run asks once for each key what its primary version is, also where the answer is
an error, and that it never floods.
"""

import asyncio
import copy
from collections.abc import Sequence
from typing import Protocol, TypeVar

from kmseal.cli.sealing import KeyService
from kmseal.errors import KmsealError
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, Unwrapped
from kmseal.manifest import Wrapping
from kmseal.redacted import Redacted

T = TypeVar("T")


class RewrapService(KeyService, Protocol):
    """What re-wrapping asks of ``kmseal.kms`` in addition."""

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping: ...

    async def describe(self, key: str) -> KeyDescription: ...


async def shared(task: asyncio.Task[T]) -> T:
    """The result of a task that several wait for; an error is raised anew for each."""
    try:
        # Shielded: who gives up must not take the answer away from the others.
        return await asyncio.shield(task)
    except KmsealError as error:
        # A copy: callers add to an error where it happened, and this one is shared.
        raise copy.copy(error) from None


class InFlight:
    """A ``RewrapService`` in front of another one. Belongs to one event loop."""

    def __init__(self, service: RewrapService, limit: int) -> None:
        self._service = service
        self._slots = asyncio.Semaphore(limit)
        self._described: dict[str, asyncio.Task[KeyDescription]] = {}

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """As the service."""
        async with self._slots:
            return await self._service.generate(key, context)

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """As the service."""
        async with self._slots:
            return await self._service.wrap(key, data_key, context)

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        """As the service."""
        async with self._slots:
            return await self._service.unwrap(wrappings, context)

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """As the service."""
        async with self._slots:
            return await self._service.rewrap(wrapping, key, context, description=description)

    async def describe(self, key: str) -> KeyDescription:
        """The description that the first caller got; an error is raised anew for each."""
        task = self._described.get(key)
        if task is None:
            task = self._described[key] = asyncio.create_task(self._describe(key))
        return await shared(task)

    async def _describe(self, key: str) -> KeyDescription:
        async with self._slots:
            return await self._service.describe(key)
