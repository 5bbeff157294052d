"""The broker: answers a pod's token with the values of the secrets that its annotation lists.

``server`` routes /v1/decrypt here, all methods of it. The order of the checks is from cheap to dear and from public to
secret: the request's form, limits, whose token it is, whether that pod is there, what it lists, what its ServiceAccount
may have; only then is an object read, and only then KMS asked. Each answer is one audit line. Nothing is kept from one
request to the next but counters: no token, no verdict, no value.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from aiohttp import web

from kmseal.cluster.opening import Opener
from kmseal.envelope import encode_base64
from kmseal.kube import KubeClient
from kmseal_webhook.audit import GRANTED, Audit, AuditEntry
from kmseal_webhook.authorization import Rights
from kmseal_webhook.gate import UNTIL_SENT
from kmseal_webhook.grants import Grants, Values, as_it_is, require_listed
from kmseal_webhook.identity import Caller, Identities
from kmseal_webhook.limits import BrokerLimits, Limits, whole_seconds
from kmseal_webhook.refusals import Reason, Refusal, gravest
from kmseal_webhook.requests import read_names, read_token

EXPIRES_IN_SECONDS: Final = 600
"""How long a grant may be relied on: as long as the token that it was given for."""
_BODY_UNREAD: Final = frozenset({400, 401, 405, 408, 413, 415, 429})
"""Answers by which a body may be left that nobody has read: the connection ends, or it would be the next request."""
_log = logging.getLogger(__name__)


class Broker:
    """The handler of /v1/decrypt, and all that it needs.

    :param kube: of an identity that may create TokenReviews and SubjectAccessReviews, list pods and get
        EncryptedSecrets. Its time limit is that of each single question
    :param keyring: guarded by the rules of KMSKeys
    :param clock: monotonic seconds
    :param observe: is told reason and seconds of each answer, for metrics
    :param on_unwrap: is told the seconds of each unwrap, for metrics
    """

    def __init__(
        self,
        kube: KubeClient,
        keyring: Opener,
        limits: BrokerLimits,
        *,
        audit: Audit,
        clock: Callable[[], float],
        observe: Callable[[str, float], None] = lambda reason, seconds: None,
        on_unwrap: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._identities = Identities(kube)
        self._rights = Rights(kube)
        self._grants = Grants(kube, keyring, clock=clock, on_unwrap=on_unwrap)
        self._limits = Limits(limits, clock=clock)
        self._body_seconds = limits.body_seconds
        self._audit = audit
        self._clock = clock
        self._observe = observe

    async def decrypt(self, request: web.Request) -> web.Response:
        """Answers one request; never raises but by being cancelled."""
        started, entry = self._clock(), AuditEntry(request.remote or "")
        body, refusal = b"", None
        try:
            body = _encode(await self._grant(request, entry))
        except Refusal as error:
            refusal = error
        except asyncio.CancelledError:
            self._record(entry, Refusal(Reason.ABORTED, "there was no answer"), started)
            raise
        except Exception as error:  # noqa: BLE001  # The last line of defence; its text may quote anything.
            refusal = _unexpected(error)
        refusal = self._record(entry, refusal, started)
        return _refuse(refusal) if refusal else _answer(200, body)

    async def _grant(self, request: web.Request, entry: AuditEntry) -> Mapping[str, Values]:
        token = read_token(request)
        self._limits.admit_stranger(entry.remote, token)
        entry.secrets = await read_names(request, self._body_seconds)
        entry.caller = caller = await self._identities.identify(token)
        self._limits.admit(caller)
        with ExitStack() as own:
            # Held until the answer is taken, where the server can say when that is: values must not pile up in memory.
            request.get(UNTIL_SENT, own).enter_context(self._limits.turn(caller))
            annotations = await self._identities.annotations(caller)
            try:
                wanted = require_listed(annotations, entry.secrets)
            except Refusal as refusal:
                raise await self._look_further(refusal, caller, entry) from None
            await self._rights.require(caller, entry.secrets)
            return await self._grants.open(caller.namespace, wanted, entry.witness)

    async def _look_further(self, refusal: Refusal, caller: Caller, entry: AuditEntry) -> Refusal:
        """The refusal, or a graver one: a mistake in the annotations of a running pod must not save its files.

        Nothing is given, whatever opens. But a right that is gone and a key that was shut are heard.
        """
        if refusal.wipe:
            return refusal
        try:
            await self._rights.require(caller, entry.secrets)
            await self._grants.open(caller.namespace, [as_it_is(name) for name in entry.secrets], entry.witness)
        except Refusal as other:
            return gravest([refusal, other])
        return refusal

    def _record(self, entry: AuditEntry, refusal: Refusal | None, started: float) -> Refusal | None:
        """Writes the audit line; answers with the refusal, which it is also where the line cannot be written."""
        seconds = self._clock() - started
        try:
            self._audit.record(entry, refusal, seconds=seconds)
        except (OSError, ValueError) as error:
            refusal = refusal or _unexpected(error)
        self._observe(refusal.reason.value if refusal else GRANTED, seconds)
        return refusal


def _encode(granted: Mapping[str, Values]) -> bytes:
    """The one place where values become plain; the texts made here are gone when the answer is."""
    secrets = {
        name: {"values": {value: encode_base64(secret.reveal()) for value, secret in values.items()}}
        for name, values in granted.items()
    }
    return json.dumps({"expiresInSeconds": EXPIRES_IN_SECONDS, "secrets": secrets}).encode()


def _refuse(refusal: Refusal) -> web.Response:
    content: dict[str, Any] = {
        "reason": refusal.reason.value,
        "message": refusal.message,
        "retry": refusal.retry,
        "wipe": refusal.wipe,
    }
    response = _answer(refusal.status, json.dumps(content).encode())
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(whole_seconds(refusal.retry_after))
    if refusal.status == 405:
        response.headers["Allow"] = "POST"
    if refusal.status in _BODY_UNREAD:
        response.force_close()
    return response


def _answer(status: int, body: bytes) -> web.Response:
    return web.Response(
        status=status, body=body, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _unexpected(error: Exception) -> Refusal:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else "?"
    _log.error("unexpected error at %s", place, extra={"error": type(error).__name__})
    return Refusal(Reason.UNEXPECTED, "an unexpected error; the log of kmseal-webhook has its kind and place")
