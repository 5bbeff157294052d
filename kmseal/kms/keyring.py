"""The keyring: the one thing through which the rest of kmseal reaches a key service.

Used by the command line, the operator and the broker. It finds the provider for a key by the beginning of its name
and the connection that it was given, makes it on first use, and opens data keys with whichever of their wrappings can
be opened. Importing this module imports neither an SDK nor an HTTP library. A new provider is one module and one line
in ``_PROVIDERS``.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from kmseal.errors import Denied, KmsealError, Malformed, Misconfigured, Retryable
from kmseal.kms.budget import Budget
from kmseal.kms.connection import CA_BUNDLE, CREDENTIALS, ENDPOINT, OWN, Connection
from kmseal.kms.figures import Figures
from kmseal.kms.lines import Factory, Lines
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, Provider, PublicHalf, Unwrapped
from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing
from kmseal.kms.wiring import Observer, OnRecovered, Wiring, ignore_recovery, observe_nothing
from kmseal.manifest import Wrapping
from kmseal.redacted import Redacted


def _make_alibaba(wiring: Wiring) -> Provider:
    from kmseal.kms.alibaba.provider import AlibabaProvider

    return AlibabaProvider(wiring)


def _make_local(wiring: Wiring) -> Provider:
    from kmseal.kms.local import LocalProvider

    for given, field in (
        (wiring.connection.endpoint, ENDPOINT),
        (wiring.connection.ca_pem, CA_BUNDLE),
        (wiring.connection.credentials, CREDENTIALS),
    ):
        if given:
            raise Misconfigured("a local key lies in a file and has none", field=field, remedy="leave it out")
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
        timing = timing or Timing()
        self._wiring = Wiring(
            settings=settings,
            environment=os.environ if environment is None else environment,
            budget=Budget(settings, timing),
            observer=observer,
            on_recovered=on_recovered,
            timing=timing,
        )
        self._lines = Lines(self._wiring, providers)

    def connect(self, key: str, connection: Connection | None) -> None:
        """From now on that key is reached by this connection; None, or an empty one, restores the process's own.

        Calls that are under way end by the old one. What is wrong with a connection is said when it is used: every
        call with the key raises Misconfigured naming ``endpoint``, ``caBundle`` or ``credentials``, and the next call
        tries it anew, so that a token file that appears is enough to heal. To be called in the keyring's event loop.

        :param key: exactly as calls name it: wrappings name the key's ARN, people perhaps an alias. Each name has a
            connection of its own
        """
        self._lines.connect(key, connection or OWN)

    async def warm(self, prefix: str) -> None:
        """Makes the provider of the keys whose names begin so ahead of the first call: it imports for 0.6 s.

        What is wrong with it is not raised here: the first call will say it, and for which object.
        """
        with suppress(KmsealError):
            async with self._lines.to(prefix):
                pass

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """Draws a new data key, wrapped by ``key``. Needs the right GenerateDataKey only."""
        async with self._lines.to(key) as provider:
            return await provider.generate(key, context)

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Wraps a data key that the caller holds by one more key."""
        async with self._lines.to(key) as provider:
            return await provider.wrap(key, data_key, context)

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """Wraps the same data key under the primary version of ``key``.

        Where the two keys are reached in different ways (another provider, another connection) it is opened by one
        and wrapped by the other, and is in this process in between.

        :param description: what the caller knows of ``key`` by an earlier ``describe``, which saves another one. That
            it may be old is safe: at worst the new wrapping names an older version than the one that wrapped it, and
            counts as stale; it never names a newer one, by which a version still in use would seem free to be disabled
        """
        async with self._lines.to(key) as provider, self._lines.to(wrapping.key_id) as holder:
            if provider is holder:
                return await provider.rewrap(wrapping, key, context, description=description)
            return await provider.wrap(key, (await holder.unwrap(wrapping, context)).data_key, context)

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key: a metadata call, never to be made once for each object."""
        async with self._lines.to(key) as provider:
            return await provider.describe(key)

    async def public_key(self, key: str, version: str = "") -> PublicHalf:
        """The public half of an asymmetric key, of its newest version by default: up to three metadata calls."""
        async with self._lines.to(key) as provider:
            return await provider.public_key(key, version)

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
        for index in sorted(range(len(wrappings)), key=lambda index: not self._lines.healthy(wrappings[index].key_id)):
            wrapping = wrappings[index]
            try:
                async with self._lines.to(wrapping.key_id) as provider:
                    return await provider.unwrap(wrapping, context)
            except KmsealError as error:
                failures[index] = error
        raise _most_useful([(wrapping.key_id, failures[index]) for index, wrapping in enumerate(wrappings)])

    def figures(self) -> Figures:
        """What is going on now, for metrics. Asks nobody and costs microseconds."""
        budget = self._wiring.budget
        return Figures(budget.allowances(), budget.regions(), self._lines.endpoints())

    async def close(self) -> None:
        """Closes connections and ends background work of all providers."""
        await self._lines.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _most_useful(failures: Sequence[tuple[str, KmsealError]]) -> KmsealError:
    """The failure by which the caller should come back, with the others in its message: see ``Keyring.unwrap``."""
    ranks = [0 if isinstance(error, Retryable) else 1 if isinstance(error, Denied) else 2 for _, error in failures]
    best = ranks.index(min(ranks))
    chosen = copy.copy(failures[best][1])
    others = [f"{key} ({error.reason})" for index, (key, error) in enumerate(failures) if index != best]
    if others:
        chosen.message = f"{chosen.message}; nor does it open with {', '.join(others)}"
    return chosen
