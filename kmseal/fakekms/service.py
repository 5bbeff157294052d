"""From a request to an answer, without any input or output: verify, limit, permit, run, record.

``wire`` calls :meth:`Service.answer` for every request at every gateway; tests may do so without a socket. It is the
only place that turns a :class:`~kmseal.fakekms.refusals.Refusal` into JSON and the only one that writes audit records
of what was really asked. It knows nothing of faults on the wire.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from kmseal.fakekms import asymmetric, control, imports, operations, rotation, sts, tags
from kmseal.fakekms.audit import SUCCESS, AuditRecord, AuditTrail
from kmseal.fakekms.authentication import Authenticator
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.identities import Identities, Identity
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.quotas import Quotas
from kmseal.fakekms.refusals import Refusal, throttled, unsupported_operation
from kmseal.fakekms.requests import Parameters, Request

API_VERSION: Final = "2016-01-20"
HOST_ID: Final = "kms.fake.invalid"
UNKNOWN_ACTION: Final = "(none)"

_CRYPTOGRAPHIC: Final = {**operations.OPERATIONS, **asymmetric.OPERATIONS}
_OPERATIONS: Final = {
    **_CRYPTOGRAPHIC,
    **control.OPERATIONS,
    **rotation.OPERATIONS,
    **imports.OPERATIONS,
    **tags.OPERATIONS,
}
_OF_INSTANCES: Final = frozenset(_CRYPTOGRAPHIC) - {"ReEncrypt"}
_RIGHTS: Final = {"ReEncrypt": ("ReEncryptFrom", "ReEncryptTo")}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: HTTP status and JSON bytes. ``result`` is ``Success`` or the error code.

    ``retry_after`` is in milliseconds, for the header ``x-acs-retry-after``; None leaves it out.
    """

    status: int
    content: bytes = field(repr=False)
    request_id: str
    result: str
    identity: str = ""
    retry_after: int | None = None


@dataclass(slots=True)
class Service:
    """The one account that the fake plays, with everything it remembers.

    :param clock: seconds since 1970, in real time; keys have a clock of their own
    :param dedicated_gateway: every gateway behaves like that of an instance, the shared ones too
    """

    store: KeyStore
    identities: Identities
    tokens: sts.TokenService
    audit: AuditTrail
    quotas: Quotas
    clock: Callable[[], float]
    allow_symmetric_versions: bool = False
    dedicated_gateway: bool = False
    _authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self._authenticator = Authenticator(self.identities.find, self.clock)

    def answer(self, request: Request) -> Answer:
        """The answer to one request; never raises for what a client can send."""
        record = _Notes(request_id=self._request_id(), action=action_of(request))
        retry_after = None
        try:
            body = self._run(request, record)
            status, result = 200, SUCCESS
        except Refusal as refusal:
            status, result, retry_after = refusal.status, refusal.code, refusal.retry_after
            body = _refusal_body(refusal)
        body["RequestId"] = record.request_id
        self._record(request, record, result)
        return Answer(status, json.dumps(body).encode(), record.request_id, result, record.identity_name, retry_after)

    def fail(self, request: Request, status: int, code: str, message: str) -> Answer:
        """An error that was ordered, not caused: it counts and is recorded like any other."""
        notes = _Notes(request_id=self._request_id(), action=action_of(request))
        body = {**_refusal_body(Refusal(status, code, message)), "RequestId": notes.request_id}
        self._record(request, notes, code)
        return Answer(status, json.dumps(body).encode(), notes.request_id, code)

    def _run(self, request: Request, notes: "_Notes") -> Body:
        query = request.query_pairs()
        form = request.form_pairs() if request.body else []
        values = dict(query + form)
        if notes.action == sts.ACTION:
            body, notes.principal = self.tokens.assume_role_with_oidc(Parameters(values))
            return body
        if request.path != "/" or request.method not in {"GET", "POST"}:
            raise Refusal(403, "UnsupportedHTTPMethod", "This http method is not supported.")
        notes.identity = identity = self._authenticator.authenticate(request, query, form)
        operation = _OPERATIONS.get(notes.action)
        if operation is None or _version_of(request, values) != API_VERSION:
            raise Refusal(
                404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."
            )
        if request.instance or self.dedicated_gateway:
            if notes.action not in _OF_INSTANCES:
                raise unsupported_operation("the dedicated gateway does not offer it")
        elif not self.quotas.admit(notes.action, request.region):
            raise throttled(self.quotas.retry_after(notes.action, request.region))
        call = Call(
            action=notes.action,
            region=request.region,
            parameters=Parameters(values),
            identity=identity,
            store=self.store,
            allow_symmetric_versions=self.allow_symmetric_versions,
        )
        notes.call = call
        if "DryRun" in values and notes.action in _CRYPTOGRAPHIC:
            return self._run_dry(operation, call, notes)
        _permit(call)
        return operation(call)

    def _run_dry(self, operation: Callable[[Call], Body], call: Call, notes: "_Notes") -> Body:
        """A dry run always fails; the code says how the real run would have ended."""
        notes.dry_run = call.parameters.boolean("DryRun")
        try:
            _permit(call)
            body = operation(call)
        except Refusal as refusal:
            if not notes.dry_run:
                raise
            if refusal.status == 403:
                raise Refusal(403, "AccessDeniedError", refusal.message, refusal.detail) from None
            raise Refusal(400, "ValidationError", f"{refusal.code}: {refusal.message}") from None
        if notes.dry_run:
            raise Refusal(400, "DryRunOperationError", "The request would have succeeded, but DryRun is set.")
        return body

    def _record(self, request: Request, notes: "_Notes", result: str) -> None:
        call = notes.call
        self.audit.append(
            AuditRecord(
                time=self.clock(),
                request_id=notes.request_id,
                identity=notes.identity_name,
                access_key_id=notes.identity.access_key_id if notes.identity else "",
                region=request.region,
                action=notes.action,
                result=result,
                key_arn=call.key_arn if call else "",
                key_version_id=call.key_version_id if call else "",
                context=call.context if call else {},
                source=request.source,
                dry_run=notes.dry_run,
                instance=request.instance,
            )
        )

    def _request_id(self) -> str:
        return str(uuid.UUID(bytes=self.store.random_bytes(16), version=4)).upper()


@dataclass(slots=True)
class _Notes:
    """What is known of a request so far; the audit record is made of it, however far it got."""

    request_id: str
    action: str
    identity: Identity | None = None
    principal: str = ""
    call: Call | None = None
    dry_run: bool = False

    @property
    def identity_name(self) -> str:
        return self.identity.name if self.identity else self.principal


def action_of(request: Request) -> str:
    """The action that a request names, in its header or, for older signatures and STS, in its parameters.

    Never longer than 64 letters. A header decides only where headers are signed.
    """
    action = request.headers.get("x-acs-action", "")
    if "authorization" not in request.headers:
        with suppress(Refusal):
            action = dict(request.query_pairs() + request.form_pairs()).get("Action", action)
    return action if action.isascii() and action.isalpha() and len(action) <= 64 else UNKNOWN_ACTION


def _version_of(request: Request, values: Mapping[str, str]) -> str:
    return request.headers["x-acs-version"] if "authorization" in request.headers else values.get("Version", "")


def _permit(call: Call) -> None:
    """Refuses callers that lack the action on every key, before anything is said about a key."""
    for right in _RIGHTS.get(call.action, (call.action,)):
        call.require_right(right)


def _refusal_body(refusal: Refusal) -> Body:
    return {
        "HttpStatus": refusal.status,
        "Code": refusal.code,
        "Message": refusal.message,
        "HostId": HOST_ID,
        "Recommend": "",
        **refusal.detail,
    }
