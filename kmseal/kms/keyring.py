"""The keyring: the one thing through which the rest of kmseal reaches a key service.

Used by the command line, the operator and the broker. It finds the provider for a key by the beginning of its name,
makes it on first use, and opens data keys with whichever of their wrappings can be opened. Importing this module
imports neither an SDK nor an HTTP library. A new provider is one module and one line in ``_PROVIDERS``.
"""

import asyncio
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from kmseal.envelope import shorten
from kmseal.errors import Denied, KmsealError, Malformed, Retryable
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, Provider, Unwrapped
from kmseal.kms.settings import KmsSettings
from kmseal.kms.wiring import Observer, OnRecovered, Timing, Wiring, ignore_recovery, observe_nothing
from kmseal.manifest import Wrapping
from kmseal.redacted import Redacted

Factory = Callable[[Wiring], Provider]
"""Makes a provider. Runs in a thread, so it may import slowly and read files; it must not need an event loop."""


def _make_alibaba(wiring: Wiring) -> Provider:
    from kmseal.kms.alibaba.provider import AlibabaProvider

    return AlibabaProvider(wiring)


def _make_local(wiring: Wiring) -> Provider:
    from kmseal.kms.local import LocalProvider

    return LocalProvider(wiring.settings.local_key_file)


_PROVIDERS: Final[Mapping[str, Factory]] = {
    "acs:kms:": _make_alibaba,
    "local:": _make_local,
}


class Keyring:
    """All key services of one process. Belongs to one event loop; close it, or use it as a context manager."""

    def __init__(
        self,
        settings: KmsSettings,
        environment: Mapping[str, str] | None = None,
        *,
        observer: Observer = observe_nothing,
        on_recovered: OnRecovered = ignore_recovery,
        timing: Timing | None = None,
        providers: Mapping[str, Factory] = _PROVIDERS,
    ) -> None:
        """Nothing is read or opened until the first call.

        :param environment: where credentials are found; that of the process by default
        :param observer: is told of every request to a key service over the network
        :param on_recovered: is called with the host of an endpoint that answers again after an outage
        :param providers: factories by the prefix of the keys that they serve
        """
        self._wiring = Wiring(
            settings, os.environ if environment is None else environment, observer, on_recovered, timing or Timing()
        )
        self._factories = providers
        self._made: dict[str, Provider] = {}
        self._making = asyncio.Lock()

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """Draws a new data key, wrapped by ``key``. Needs the right GenerateDataKey only."""
        return await (await self._provider(key)).generate(key, context)

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Wraps a data key that the caller holds by one more key."""
        return await (await self._provider(key)).wrap(key, data_key, context)

    async def rewrap(self, wrapping: Wrapping, key: str, context: Context) -> Wrapping:
        """Wraps the same data key under the primary version of ``key``, which may be of another provider."""
        provider = await self._provider(key)
        holder = await self._provider(wrapping.key_id)
        if provider is holder:
            return await provider.rewrap(wrapping, key, context)
        return await provider.wrap(key, (await holder.unwrap(wrapping, context)).data_key, context)

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key: a metadata call, never to be made once for each object."""
        return await (await self._provider(key)).describe(key)

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        """Opens a data key with the first of its wrappings that opens, one request where that is the first.

        They are tried in order, those of endpoints that are known not to answer last, and any error leads to the next
        one. When none opens, the error raised is the one that may pass soonest: a Retryable one before a Denied one
        before all others, the earlier wrapping's among equals. The caller comes back by that error's class, and giving
        up over an altered wrapping while another one's region is merely down would never heal. Its message counts the
        others, so that they are not hidden.
        """
        if not wrappings:
            raise Malformed("has no wrapping", reason="WrappingCount", remedy="restore it from Git, or seal again")
        failures: dict[int, KmsealError] = {}
        # A stable sort: among the healthy ones, and among the others, the order of the manifest stays.
        for index in sorted(range(len(wrappings)), key=lambda index: not self._healthy(wrappings[index].key_id)):
            wrapping = wrappings[index]
            try:
                return await (await self._provider(wrapping.key_id)).unwrap(wrapping, context)
            except KmsealError as error:
                failures[index] = error
        raise _most_useful([(wrapping.key_id, failures[index]) for index, wrapping in enumerate(wrappings)])

    async def close(self) -> None:
        """Closes connections and ends background work of all providers."""
        while self._made:
            _, provider = self._made.popitem()
            await provider.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _healthy(self, key: str) -> bool:
        """What is known without asking anybody; who was never asked counts as healthy."""
        provider = self._made.get(self._prefix(key))
        return provider is None or provider.healthy(key)

    def _prefix(self, key: str) -> str:
        """The part of a key's name that decides about its provider, empty for none."""
        return next((prefix for prefix in self._factories if key.startswith(prefix)), "")

    async def _provider(self, key: str) -> Provider:
        prefix = self._prefix(key)
        made = self._made.get(prefix)
        if made is not None:
            return made
        factory = self._factories.get(prefix)
        if factory is None:
            raise Malformed(
                f"{shorten(key)} is not the name of a key",
                reason="KeyId",
                remedy="give the ARN of a KMS key or alias (acs:kms:…), or local:<name>",
            )
        async with self._making:
            if prefix not in self._made:
                # In a thread, because importing the SDK and reading authorities would stop the event loop for 0.6 s.
                self._made[prefix] = await asyncio.to_thread(factory, self._wiring)
            return self._made[prefix]


def _most_useful(failures: Sequence[tuple[str, KmsealError]]) -> KmsealError:
    """The failure by which the caller should come back, with the others in its message: see ``Keyring.unwrap``."""
    ranks = [0 if isinstance(error, Retryable) else 1 if isinstance(error, Denied) else 2 for _, error in failures]
    best = ranks.index(min(ranks))
    chosen = copy.copy(failures[best][1])
    others = [f"{key} ({error.reason})" for index, (key, error) in enumerate(failures) if index != best]
    if others:
        chosen.message = f"{chosen.message}; nor does it open with {', '.join(others)}"
    return chosen
