"""Mutation: what becomes of a pod at admission. The Reviewer of ``/mutate``.

It reads EncryptedSecrets only where a pod cannot be made without the names of their values (variables, other names),
never a value, and writes nothing, so that dry runs need no care. A pod that does not ask for injection is let through
as it is. Everything that stands in the way refuses the pod, by raising: it must never start without its secrets.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from kmseal.cluster.templates import require_possible
from kmseal.errors import KmsealError, Malformed, Refused, TemplateFailed, Unavailable
from kmseal.kube import ENCRYPTED_SECRETS, Resource
from kmseal.manifest import EncryptedSecret
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import PREFIX, Injection, annotation_field, parse
from kmseal_webhook.injection import inject
from kmseal_webhook.patch import make_patch

Json = dict[str, Any]

WARNING_CHARS_MAX: Final = 250
"""The API server may cut what is longer than 256."""
READ_SECONDS: Final = 3.0
"""Less than the webhook's timeout of 5: our message says more than the API server's."""
_UNTOUCHED: Final = Answer(allowed=True)


class Reader(Protocol):
    """The part of the API client that mutation needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        """Reads one object; None where there is none."""
        ...


class Mutation:
    """Injects pods; ``review`` is the Reviewer.

    :param settings: asked at each admission, for the authorities are renewed
    :param patience: seconds that all reads for one pod may take
    """

    def __init__(
        self, reader: Reader, settings: Callable[[], AgentSettings], *, patience: float = READ_SECONDS
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._patience = patience

    async def review(self, request: AdmissionRequest) -> Answer:
        """Admits a pod with the patch that injects it. Raises Terminal with what to correct, or Retryable."""
        if request.operation != "CREATE" or request.kind != "Pod":
            return _UNTOUCHED
        pod = request.object
        injection = parse((pod.get("metadata") or {}).get("annotations") or {})
        if injection is None:
            return _UNTOUCHED
        await _require_templates(injection)
        value_names = await self._read_value_names(request.namespace, injection)
        injected = inject(pod, injection, value_names, self._settings())
        return Answer(
            allowed=True,
            warnings=tuple(warning[:WARNING_CHARS_MAX] for warning in injected.warnings),
            patch=make_patch(pod, injected.pod),
        )

    async def _read_value_names(self, namespace: str, injection: Injection) -> dict[str, tuple[str, ...]]:
        wanted = [secret.name for secret in injection.secrets if secret.needs_value_names]
        try:
            async with asyncio.timeout(self._patience), asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(self._read_names(namespace, name)) for name in wanted}
        except TimeoutError:
            raise Unavailable(
                "the API server does not answer in time",
                field=annotation_field("inject"),
                reason="ApiUnavailable",
                remedy="try again",
            ) from None
        except ExceptionGroup as group_of_errors:
            # The others were cancelled, or say the same; each is ours, for the client has translated it.
            raise group_of_errors.exceptions[0] from None
        return {name: task.result() for name, task in tasks.items()}

    async def _read_names(self, namespace: str, name: str) -> tuple[str, ...]:
        raw = await self._reader.get(ENCRYPTED_SECRETS, namespace, name)
        field = annotation_field("inject")
        if raw is None:
            raise Refused(
                f"there is no EncryptedSecret {name} in the namespace {namespace}, whose values this pod takes by name",
                field=field,
                reason="SecretNotFound",
                remedy=f"create it first; without variables and {PREFIX}names.{name} a pod starts and waits for it",
            )
        try:
            object_ = EncryptedSecret.parse(raw)
        except KmsealError as error:
            raise Malformed(
                f"the EncryptedSecret {name} is not valid: {error}", field=field, reason=error.reason
            ) from None
        # In one order, whichever the API server sends them in: what is injected twice must be the same.
        return tuple(sorted(object_.target.data or object_.values))


async def _require_templates(injection: Injection) -> None:
    """Refuses templates that no values could make render."""
    for secret in injection.secrets:
        if secret.template is not None:
            try:
                # Reading a hostile template takes a second or more, in which the loop has other pods to admit.
                await asyncio.to_thread(require_possible, {secret.file: secret.template})
            except TemplateFailed as error:
                error.field = annotation_field(f"template.{secret.name}")
                raise
