"""The border to the API server's admission calls: an AdmissionReview in, an answer out.

``mutation`` and ``validation`` are Reviewers: they see frozen values and never HTTP. What a reviewer raises on purpose
refuses the object with its message; anything else refuses it with code 500 and no word of the exception, which may
quote what the object holds. A request that is no review at all gets a 400, which the API server treats as its
``failurePolicy`` says.
"""

import base64
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kmseal.errors import KmsealError, Malformed, Retryable
from kmseal.structure import Fields

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
REVIEW_BYTES_MAX: Final = 3 * 1024 * 1024
"""The API server takes objects of up to 3 MiB (its limit of a request body)."""
_OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})
_log = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What is to be admitted.

    ``name`` is empty where the API server has yet to make one of ``generateName``; ``namespace`` is the request's, for
    a pod's own may still be empty. ``object`` is empty at DELETE, ``old`` is None at CREATE.
    """

    uid: str
    operation: str
    kind: str
    namespace: str
    name: str
    object: Json
    old: Json | None
    user: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to it.

    ``message`` says why not, to whoever made the request; ``reason`` and ``code`` go into the Status beside it.
    ``warnings`` are shown to the user as well, also when it is allowed. ``patch`` is a JSON patch (RFC 6902).
    """

    allowed: bool
    message: str = ""
    reason: str = ""
    code: int = 403
    warnings: tuple[str, ...] = ()
    patch: list[Json] | None = None


Reviewer = Callable[[AdmissionRequest], Awaitable[Answer]]
Observer = Callable[[str, Answer, float], None]
"""Is told the name of the route, the answer, and the seconds it took, for metrics."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_handler(reviewer: Reviewer, *, name: str, clock: Callable[[], float], observer: Observer) -> Handler:
    """The handler of POST that puts each review to the reviewer.

    :param name: what the route is called in metrics and logs
    """

    async def handle(request: web.Request) -> web.Response:
        started = clock()
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="an AdmissionReview is sent as application/json\n")
        try:
            admission = parse(await request.read())
        except Malformed as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        answer = await _review(reviewer, admission, name)
        observer(name, answer, clock() - started)
        return web.json_response(render(admission.uid, answer))

    return handle


def parse(content: bytes) -> AdmissionRequest:
    """Reads an AdmissionReview. Raises Malformed with the field."""
    if len(content) > REVIEW_BYTES_MAX:
        raise Malformed("is larger than 3 MiB", field=KIND, reason="TooLarge", remedy="make the object smaller")
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raise Malformed("the request is not JSON", remedy=f"send an {KIND} of {API_VERSION}") from None
    top = Fields(raw, "")
    if (top.text("apiVersion"), top.text("kind")) != (API_VERSION, KIND):
        raise Malformed(f"is not {KIND} of {API_VERSION}", field="kind", remedy="name v1 in admissionReviewVersions")
    request = top.fields("request")
    operation = request.text("operation")
    if operation not in _OPERATIONS:
        raise Malformed("is no operation", field="request.operation", remedy="write CREATE, UPDATE, DELETE or CONNECT")
    # An empty uid could not be answered, and an empty object would be reviewed as if it asked for nothing.
    if not (uid := request.text("uid")):
        raise Malformed("is empty", field="request.uid", remedy="send the uid of the request")
    if operation in ("CREATE", "UPDATE") and not request.has("object"):
        raise Malformed("is missing", field="request.object", reason="MissingField", remedy="send the object")
    return AdmissionRequest(
        uid=uid,
        operation=operation,
        kind=request.fields("kind").text("kind"),
        namespace=request.text("namespace", ""),
        name=request.text("name", ""),
        object=dict(request.fields("object", optional=True).raw),
        old=dict(request.fields("oldObject").raw) if request.has("oldObject") else None,
        user=request.fields("userInfo", optional=True).text("username", ""),
        dry_run=request.flag("dryRun"),
    )


def render(uid: str, answer: Answer) -> Json:
    """The AdmissionReview that carries an answer."""
    response: Json = {"uid": uid, "allowed": answer.allowed}
    if not answer.allowed:
        status = {"code": answer.code, "reason": answer.reason, "message": answer.message}
        response["status"] = {name: value for name, value in status.items() if value}
    if answer.warnings:
        response["warnings"] = list(answer.warnings)
    if answer.allowed and answer.patch:
        patch = json.dumps(answer.patch, separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


async def _review(reviewer: Reviewer, admission: AdmissionRequest, name: str) -> Answer:
    try:
        return await reviewer(admission)
    except KmsealError as error:
        # 503 tells controllers that make pods that trying again is worth while.
        code = 503 if isinstance(error, Retryable) else 403
        return Answer(allowed=False, message=str(error), reason=error.reason, code=code)
    except Exception as error:  # noqa: BLE001  # Its text may quote the object.
        _log.error(
            "unexpected error in %s", name,
            extra={"object": f"{admission.namespace}/{admission.name}", "error": type(error).__name__},
        )  # fmt: skip
        return Answer(
            allowed=False,
            message="kmseal-webhook met an unexpected error; its log names it, and the same request can be tried again",
            reason="Unexpected",
            code=500,
        )
