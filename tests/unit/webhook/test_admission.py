"""AdmissionReviews in, answers out: what is read, what is refused, and what never gets out."""

import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from kmseal.errors import Malformed, Unavailable
from kmseal_webhook.admission import REVIEW_BYTES_MAX, AdmissionRequest, Answer, make_handler, parse, render

Json = dict[str, Any]


def review(**request: Any) -> Json:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "team",
            "name": "app",
            "object": {"metadata": {"name": "app"}},
            "oldObject": None,
            "userInfo": {"username": "alice"},
            "dryRun": True,
            "options": {"kind": "CreateOptions"},
            **request,
        },
    }


def encoded(content: object) -> bytes:
    return json.dumps(content).encode()


def test_a_review_becomes_a_frozen_value() -> None:
    """All that reviewers may see of a request is read; what the API server adds besides is left alone."""
    assert parse(encoded(review())) == AdmissionRequest(
        uid="u1", operation="CREATE", kind="Pod", namespace="team", name="app", object={"metadata": {"name": "app"}},
        old=None, user="alice", dry_run=True,
    )  # fmt: skip


def test_a_deletion_has_an_old_object_only() -> None:
    """At DELETE the API server sends null as the object."""
    request = parse(encoded(review(operation="DELETE", object=None, oldObject={"spec": {}})))
    assert (request.object, request.old) == ({}, {"spec": {}})


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", ""),
        (b"[" * 100_000, ""),
        (encoded([]), ""),
        (encoded(review() | {"apiVersion": "admission.k8s.io/v1beta1"}), "kind"),
        (encoded(review() | {"kind": "Pod"}), "kind"),
        (encoded(review() | {"request": None}), "request"),
        (encoded(review(uid="")), "request.uid"),
        (encoded(review(uid=7)), "request.uid"),
        (encoded(review(operation="PATCH")), "request.operation"),
        (encoded(review(kind="Pod")), "request.kind"),
        (encoded(review(object=None)), "request.object"),
        (encoded(review(object=[])), "request.object"),
        (encoded(review(oldObject="x")), "request.oldObject"),
        (encoded(review(dryRun="false")), "request.dryRun"),
        (encoded(review(userInfo={"username": 1})), "request.userInfo.username"),
        (b" " * (REVIEW_BYTES_MAX + 1), "AdmissionReview"),
    ],
)
def test_what_is_no_review_is_refused_with_the_field(content: bytes, field: str) -> None:
    """Nothing is guessed: a request that is not of the form is Malformed, and says where."""
    with pytest.raises(Malformed) as caught:
        parse(content)
    assert caught.value.field == field


def test_an_answer_carries_its_patch_only_if_it_allows() -> None:
    """The patch is base64 of a JSON patch; a refusal has a Status and no patch."""
    patch = [{"op": "add", "path": "/metadata/labels", "value": {}}]
    allowed = render("u1", Answer(allowed=True, patch=patch, warnings=("careful",)))["response"]
    assert json.loads(base64.b64decode(allowed.pop("patch"))) == patch
    assert allowed == {"uid": "u1", "allowed": True, "patchType": "JSONPatch", "warnings": ["careful"]}
    refused = render("u1", Answer(allowed=False, message="no", reason="Why", code=422, patch=patch))["response"]
    assert refused == {"uid": "u1", "allowed": False, "status": {"code": 422, "reason": "Why", "message": "no"}}
    assert render("u1", Answer(allowed=True, patch=[]))["response"] == {"uid": "u1", "allowed": True}


class Route:
    """A handler behind HTTP, whose reviewer a test chooses."""

    def __init__(self) -> None:
        self.outcome: Callable[[], Answer] = lambda: Answer(allowed=True)
        self.observed: list[tuple[str, bool]] = []
        self.client: TestClient[web.Request, web.Application]

    async def review(self, request: AdmissionRequest) -> Answer:
        return self.outcome()

    async def ask(self, content: object) -> Json:
        answer = await self.client.post("/", json=content)
        assert answer.status == 200
        response: Json = (await answer.json())["response"]
        return response


@pytest.fixture
async def route() -> AsyncIterator[Route]:
    route = Route()
    app = web.Application(client_max_size=REVIEW_BYTES_MAX)
    handler = make_handler(
        route.review,
        name="mutate",
        clock=lambda: 0.0,
        observer=lambda name, answer, seconds: route.observed.append((name, answer.allowed)),
    )
    app.router.add_post("/", handler)
    async with TestClient(TestServer(app)) as route.client:
        yield route


async def test_a_refusal_on_purpose_shows_its_message(route: Route) -> None:
    """What a reviewer raises of our errors is told to the user: field, reason, remedy."""

    def refuse() -> Answer:
        raise Malformed("is relative", field="metadata.annotations[kmseal.dev/path]", remedy="write it as /run/app")

    route.outcome = refuse
    assert await route.ask(review()) == {
        "uid": "u1", "allowed": False,
        "status": {
            "code": 403, "reason": "Malformed",
            "message": "metadata.annotations[kmseal.dev/path]: is relative; write it as /run/app",
        },
    }  # fmt: skip
    assert route.observed == [("mutate", False)]


async def test_what_may_pass_is_told_with_503(route: Route) -> None:
    """A fault of the API server refuses the pod too, but says that trying again is worth while."""

    def fail() -> Answer:
        raise Unavailable("the API server cannot be reached")

    route.outcome = fail
    assert (await route.ask(review()))["status"]["code"] == 503


async def test_an_unexpected_error_refuses_without_its_text(route: Route, caplog: pytest.LogCaptureFixture) -> None:
    """The text of an exception may quote the object: neither the answer nor the log has it."""

    def break_down() -> Answer:
        raise ValueError("hunter2")

    route.outcome = break_down
    with caplog.at_level(logging.ERROR):
        answer = await route.ask(review())
    assert answer["status"]["code"] == 500
    assert not answer["allowed"]
    record = caplog.records[-1]
    assert record.__dict__["error"] == "ValueError"
    assert "hunter2" not in json.dumps(answer) + caplog.text


async def test_what_is_no_review_gets_a_400_with_the_field(route: Route) -> None:
    """The API server then does what the failurePolicy says."""
    answer = await route.client.post("/", json=review(operation="PATCH"))
    assert (answer.status, "request.operation" in await answer.text()) == (400, True)
    assert (await route.client.post("/", data=b"{}", headers={"Content-Type": "text/plain"})).status == 415
    large = io.BytesIO(encoded(review(object={"x": "x" * REVIEW_BYTES_MAX})))
    assert (await route.client.post("/", data=large, headers={"Content-Type": "application/json"})).status == 413
