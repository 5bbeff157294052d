"""What a TokenReview must say before anybody believes it."""

from typing import Any

import pytest

from kmseal_webhook.identity import AUDIENCE, read_caller
from kmseal_webhook.refusals import Reason, Refusal

Json = dict[str, Any]
EXTRA = {
    "authentication.kubernetes.io/pod-name": ["web"],
    "authentication.kubernetes.io/pod-uid": ["u1"],
    "authentication.kubernetes.io/node-name": ["n1"],
    "authentication.kubernetes.io/credential-id": ["JTI=x"],
}
USER = {"username": "system:serviceaccount:prod:app", "uid": "s1", "groups": ["a", "b"], "extra": EXTRA}
STATUS = {"authenticated": True, "audiences": [AUDIENCE], "user": USER}


def extra(**changes: Any) -> Json:
    """A status with other parts of what is said of the pod."""
    changed = {f"authentication.kubernetes.io/{name.replace('_', '-')}": value for name, value in changes.items()}
    return {**STATUS, "user": {**USER, "extra": {**EXTRA, **changed}}}


def test_a_caller_is_read_whole() -> None:
    """All that rights may depend on is kept for the next question."""
    caller = read_caller(STATUS)
    assert (caller.namespace, caller.service_account) == ("prod", "app")
    assert (caller.pod, caller.pod_uid, caller.node) == ("web", "u1", "n1")
    assert (caller.user, caller.uid, caller.groups) == ("system:serviceaccount:prod:app", "s1", ("a", "b"))
    assert caller.extra == EXTRA


def test_an_older_server_tells_no_node() -> None:
    """It is for the audit only."""
    assert read_caller(extra(node_name=[])).node == ""


@pytest.mark.parametrize(
    "status",
    [
        {},
        {**STATUS, "authenticated": False},
        {**STATUS, "authenticated": "true"},
        {**STATUS, "audiences": None},
        {**STATUS, "audiences": []},
        {**STATUS, "audiences": ["https://kubernetes.default.svc"]},
        {name: value for name, value in STATUS.items() if name != "audiences"},
        {**STATUS, "user": {}},
        {**STATUS, "user": None},
        *({**STATUS, "user": {**USER, "username": name}} for name in (
            "kmseal-admin", "system:node:n1", "system:serviceaccount:prod", "system:serviceaccount:prod:",
            "system:serviceaccount:prod:app:x", "system:serviceaccount:../x:app", "system:serviceaccount:prod:app\n",
        )),
        {**STATUS, "user": {**USER, "extra": None}},
        extra(pod_name=[]), extra(pod_name=[""]), extra(pod_name=["a", "b"]), extra(pod_name="web"),
        extra(pod_uid=[]), extra(pod_uid=None), extra(pod_uid=[1]),
    ],
)  # fmt: skip
def test_anything_less_is_a_bad_token(status: Json) -> None:
    """Not authenticated, not for us, not a ServiceAccount, not bound to one pod."""
    with pytest.raises(Refusal) as caught:
        read_caller(status)
    assert (caught.value.reason, caught.value.status, caught.value.wipe) == (Reason.BAD_TOKEN, 401, True)


REFUSED = {"authenticated": False, "user": {}}


@pytest.mark.parametrize(
    "error",
    [
        "",
        "invalid bearer token",
        "[invalid bearer token, service account token has expired]",
        "[invalid bearer token, service account token has been invalidated]",
        "[invalid bearer token, service account prod/app has been deleted]",
        '[invalid bearer token, serviceaccounts "app" not found]',
        "[invalid bearer token, service account UID (a) does not match claim (b)]",
        "[invalid bearer token, pod UID (a) does not match service account pod ref claim (b)]",
        '[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["kmseal.dev/broker"]]',
        "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]",
        '[invalid bearer token, service account token has expired, Post "https://idp/": dial tcp: i/o timeout]',
    ],
)
def test_a_token_that_was_judged_is_bad(error: str) -> None:
    """What the API server says of tokens that it has looked at, whoever else could not."""
    with pytest.raises(Refusal) as caught:
        read_caller({**REFUSED, "error": error})
    assert (caught.value.reason, caught.value.wipe) == (Reason.BAD_TOKEN, True)


@pytest.mark.parametrize(
    "error",
    [
        'Post "https://idp/": dial tcp: i/o timeout',
        '[invalid bearer token, Post "https://idp/token": context deadline exceeded]',
        "[invalid bearer token, etcdserver: request timed out]",
        '[invalid bearer token, Get "https://127.0.0.1:6443/api/v1/namespaces/prod/serviceaccounts/app": EOF]',
    ],
)
def test_a_fault_of_an_authenticator_takes_nothing_away(error: str) -> None:
    """Nobody has judged the token: it is to be tried again, and the fault's text is not passed on."""
    with pytest.raises(Refusal) as caught:
        read_caller({**REFUSED, "error": error})
    refusal = caught.value
    assert (refusal.reason, refusal.status, refusal.retry, refusal.wipe) == (Reason.API_UNAVAILABLE, 503, True, False)
    assert "idp" not in refusal.message
