"""Who may have what: the right ``decrypt`` on single EncryptedSecrets, which RBAC grants to ServiceAccounts.

Called by ``broker`` for what the pod lists and asks for, before anything is read of the objects: an object that is not
there and one that is forbidden are answered alike, by the same calls. Nothing is cached, so that a removed binding
counts for the next request (RBAC itself follows within milliseconds); the price is one call for each object and grant.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from kmseal.errors import KmsealError, Unavailable
from kmseal.kube import ENCRYPTED_SECRETS, SUBJECT_ACCESS_REVIEWS, KubeClient
from kmseal_webhook.identity import Caller
from kmseal_webhook.refusals import Reason, Refusal, gravest, refusal_of_api

VERB: Final = "decrypt"


class Rights:
    """Asks the API server."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def require(self, caller: Caller, names: Sequence[str]) -> None:
        """Refuses unless the caller's ServiceAccount may decrypt every one of these, in its own namespace.

        Raises Refusal: Forbidden, naming the first that it may not have; or else that the API server cannot say.
        """
        answers = await asyncio.gather(*(self._ask(caller, name) for name in names))
        refusals = [
            refusal_of_api(answer) if isinstance(answer, KmsealError) else _forbidden(caller, name)
            for name, answer in zip(names, answers, strict=True)
            if answer is not True
        ]
        if refusals:
            raise gravest(refusals)

    async def _ask(self, caller: Caller, name: str) -> bool | KmsealError:
        question = {
            # All of the identity: authorizers beside RBAC may look at any part of it.
            "user": caller.user,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {key: list(values) for key, values in caller.extra.items()},
            "resourceAttributes": {
                "verb": VERB,
                "group": ENCRYPTED_SECRETS.group,
                "version": ENCRYPTED_SECRETS.version,
                "resource": ENCRYPTED_SECRETS.plural,
                "namespace": caller.namespace,
                "name": name,
            },
        }
        try:
            status = await self._kube.review(SUBJECT_ACCESS_REVIEWS, question)
        except KmsealError as error:
            return error
        if status.get("denied") is True:
            return False
        if status.get("allowed") is not True and status.get("evaluationError"):
            # Some authorizer has failed, which might have allowed it. A role that is bound and not there is none:
            # RBAC tells that in ``reason``.
            return Unavailable("the API server could not find out what the ServiceAccount may do")
        return status.get("allowed") is True


def _forbidden(caller: Caller, name: str) -> Refusal:
    return Refusal(
        Reason.FORBIDDEN,
        f"the ServiceAccount {caller.namespace}/{caller.service_account} may not {VERB} the "
        f"EncryptedSecret {name}; bind it to a Role with the verb {VERB} on {ENCRYPTED_SECRETS.plural}",
    )
