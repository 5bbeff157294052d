"""Who is asking: from a bearer token to a pod that is running now.

Called by ``broker`` first of all that costs a call. Two calls for each grant, and no cache of either: a pod asks when
it starts and then every few minutes, so that a cache would hardly be hit, and each second of it would be a second by
which a token outlives its pod. The API server keeps tokens that it has accepted for ten seconds itself; that is why
the pod is looked up besides, although the review binds the token to it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmseal.envelope import shorten
from kmseal.errors import KmsealError
from kmseal.kube import PODS, TOKEN_REVIEWS, UNFINISHED_PODS, KubeClient
from kmseal.redacted import Redacted
from kmseal_webhook.refusals import Reason, Refusal, refusal_of_api

AUDIENCE: Final = "kmseal.dev/broker"
"""For whom the tokens of the injected volume are made; those that pods hold for the API server are for another."""
_EXTRA: Final = "authentication.kubernetes.io/"
_ACCOUNT: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})", re.ASCII)
_JUDGED: Final = re.compile(
    r"\Ainvalid bearer token\Z|[Ss]ervice ?[Aa]ccount (token|UID|\S+ has been deleted)"
    r'|serviceaccounts "[^"]*" not found|service account \S+ ref claim'
    r"|[Tt]oken (issuer|audiences|has been|does not|is bound)|go-jose",
)
"""What the API server says of tokens that it has judged and refused (its package ``serviceaccount``). All else is a
fault of an authenticator: a token webhook that is down, a look-up that failed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A ServiceAccount token's owner, as the API server vouches for it. ``node`` is empty where it is not told."""

    namespace: str
    service_account: str
    pod: str
    pod_uid: str
    node: str
    user: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, Sequence[str]]


class Identities:
    """Asks the API server."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def identify(self, token: Redacted) -> Caller:
        """Whose token it is, by TokenReview.

        Raises Refusal: BadToken unless it is valid now, for our audience, of a ServiceAccount, and bound to a pod;
        ApiUnavailable where the API server could not find out.
        """
        try:
            status = await self._kube.review(TOKEN_REVIEWS, {"token": token.reveal().decode(), "audiences": [AUDIENCE]})
        except KmsealError as error:
            raise refusal_of_api(error) from None
        return read_caller(status)

    async def annotations(self, caller: Caller) -> Mapping[str, str]:
        """The annotations of the pod that a token is bound to, of which only the metadata is read.

        Raises Refusal: PodGone unless that very pod is there and has not ended; PodEnding while it is being deleted.
        """
        try:
            # A list of at most one: unlike a GET, it can ask for the phase without bringing back the whole pod. For
            # the API server it is a read of one key, and it is consistent.
            chosen = f"metadata.name={caller.pod},{UNFINISHED_PODS}"
            pages = [page async for page in self._kube.pages(PODS, caller.namespace, fields=chosen, metadata=True)]
        except KmsealError as error:
            raise refusal_of_api(error) from None
        metadata: Mapping[str, Any] = next((item["metadata"] for page in pages for item in page.items), {})
        if metadata.get("uid") != caller.pod_uid:
            raise Refusal(Reason.POD_GONE, "the token's pod is gone, or has ended")
        if metadata.get("deletionTimestamp"):
            # Its containers may still be at work for the whole of their grace period, and need their files for it.
            raise Refusal(Reason.POD_ENDING, "the token's pod is being deleted: it keeps what it has and gets no more")
        return metadata.get("annotations") or {}


def read_caller(status: Mapping[str, Any]) -> Caller:
    """Reads the status of a TokenReview; raises Refusal, as ``Identities.identify`` does."""
    # A server that knows nothing of audiences would leave them out and accept tokens that are for others.
    error = status.get("error")
    if status.get("authenticated") is not True and error and not _JUDGED.search(str(error)):
        raise Refusal(Reason.API_UNAVAILABLE, "the API server could not find out whether the token is valid")
    if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or []):
        raise Refusal(
            Reason.BAD_TOKEN,
            f"the token is not valid now for the audience {AUDIENCE}: it is unknown, expired, for somebody else, "
            "or bound to a pod that is gone",
        )
    user = status.get("user") or {}
    name, extra = str(user.get("username", "")), user.get("extra") or {}
    account = _ACCOUNT.fullmatch(name)
    if account is None:
        raise Refusal(Reason.BAD_TOKEN, f"the token is of {shorten(name)}, not of a ServiceAccount")
    pod, pod_uid = _one(extra, "pod-name"), _one(extra, "pod-uid")
    if not (pod and pod_uid):
        raise Refusal(
            Reason.BAD_TOKEN, "the token is not bound to a pod; take the one of the injected volume, of this very pod"
        )
    return Caller(
        namespace=account[1], service_account=account[2], pod=pod, pod_uid=pod_uid, node=_one(extra, "node-name"),
        user=name, uid=str(user.get("uid", "")), groups=tuple(user.get("groups") or ()), extra=extra,
    )  # fmt: skip


def _one(extra: Mapping[str, Any], name: str) -> str:
    match extra.get(_EXTRA + name):
        case [str(value)]:
            return value
    return ""
