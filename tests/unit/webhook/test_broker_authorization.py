"""What of a SubjectAccessReview is a right, what is none, and what is a fault that takes nothing away."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kmseal.kube import KubeClient
from kmseal.kubeconfig import ClusterAccess, Token
from kmseal_webhook.authorization import Rights
from kmseal_webhook.identity import Caller
from kmseal_webhook.refusals import Reason, Refusal

Json = dict[str, Any]
Serve = Callable[[dict[str, Json]], AbstractAsyncContextManager[Rights]]
CALLER = Caller("prod", "app", "web", "u1", "n1", "system:serviceaccount:prod:app", "s1", (), {})
ALLOWED: Json = {"allowed": True}
FAULT: Json = {"allowed": False, "evaluationError": 'Post "https://opa/authorize": dial tcp: i/o timeout'}
MISSING: Json = {"allowed": False, "reason": 'RBAC: role.rbac.authorization.k8s.io "x" not found'}


@pytest.fixture
def serve() -> Serve:
    """An API server whose authorizers say of each name what the test says; a real one cannot be made to fail so."""

    @asynccontextmanager
    async def serving(statuses: dict[str, Json]) -> AsyncIterator[Rights]:
        async def review(request: web.Request) -> web.Response:
            body = json.loads(await request.read())
            name = body["spec"]["resourceAttributes"]["name"]
            return web.json_response({**body, "status": statuses[name]}, status=201)

        app = web.Application()
        app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            access = ClusterAccess(f"http://127.0.0.1:{runner.addresses[0][1]}", None, Token(text="t"))
            async with KubeClient(access, user_agent="test") as kube:
                yield Rights(kube)
        finally:
            await runner.cleanup()

    return serving


async def verdict(serve: Serve, **statuses: Json) -> Reason | None:
    async with serve(statuses) as rights:
        try:
            await rights.require(CALLER, list(statuses))
        except Refusal as refusal:
            return refusal.reason
    return None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (ALLOWED, None),
        ({**ALLOWED, "evaluationError": "another authorizer failed"}, None),
        ({"allowed": False}, Reason.FORBIDDEN),
        (MISSING, Reason.FORBIDDEN),
        ({**ALLOWED, "denied": True}, Reason.FORBIDDEN),
        ({**FAULT, "denied": True}, Reason.FORBIDDEN),
        (FAULT, Reason.API_UNAVAILABLE),
    ],
    ids=[
        "allowed",
        "allowed beside a fault",
        "not allowed",
        "no such role",
        "denied",
        "denied beside a fault",
        "fault",
    ],
)
async def test_what_a_review_means(serve: Serve, status: Json, reason: Reason | None) -> None:
    """A loss of right wipes, a fault of an authorizer never does."""
    assert await verdict(serve, db=status) is reason
    assert not Refusal(Reason.API_UNAVAILABLE, "").wipe
    assert Refusal(Reason.FORBIDDEN, "").wipe


async def test_a_fault_does_not_hide_a_loss(serve: Serve) -> None:
    """Of several objects the gravest counts, in any order."""
    assert await verdict(serve, db=FAULT, cache={"allowed": False}) is Reason.FORBIDDEN
    assert await verdict(serve, db={"allowed": False}, cache=FAULT) is Reason.FORBIDDEN
    assert await verdict(serve, db=ALLOWED, cache=FAULT) is Reason.API_UNAVAILABLE
