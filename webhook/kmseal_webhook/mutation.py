"""Mutation: what becomes of a pod at admission. The Reviewer of ``/mutate``.

It reads EncryptedSecrets only where a pod cannot be made without the names of their values (variables, other names),
never a value, and writes nothing, so that dry runs need no care. A pod that does not ask for injection is let through
as it is. Everything that stands in the way refuses the pod, by raising: it must never start without its secrets.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from kmseal.errors import KmsealError, Malformed, Refused, TemplateFailed, Unavailable
from kmseal.kube import ENCRYPTED_SECRETS
from kmseal.manifest import EncryptedSecret
from kmseal.structure import member_path
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import PREFIX, Injection, annotation_field, parse
from kmseal_webhook.injection import inject
from kmseal_webhook.parsing import TemplateChecks
from kmseal_webhook.patch import make_patch
from kmseal_webhook.reader import Reader

Json = dict[str, Any]

WARNING_CHARS_MAX: Final = 250
"""The API server may cut what is longer than 256."""
READ_SECONDS: Final = 3.0
"""Less than the webhook's timeout of 5: our message says more than the API server's."""
_UNTOUCHED: Final = Answer(allowed=True)


class Mutation:
    """Injects pods; ``review`` is the Reviewer.

    :param settings: asked at each admission, for the authorities are renewed
    :param patience: seconds that all reads for one pod may take, those of its templates too
    :param templates: reads a few at a time; None takes one of its own
    """

    def __init__(
        self,
        reader: Reader,
        settings: Callable[[], AgentSettings],
        *,
        patience: float = READ_SECONDS,
        templates: TemplateChecks | None = None,
    ) -> None:
        self._templates = templates or TemplateChecks()
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
        value_names = await self._read(request.namespace, injection)
        injected = inject(pod, injection, value_names, self._settings())
        return Answer(
            allowed=True,
            warnings=tuple(warning[:WARNING_CHARS_MAX] for warning in injected.warnings),
            patch=make_patch(pod, injected.pod),
        )

    async def _read(self, namespace: str, injection: Injection) -> dict[str, tuple[str, ...]]:
        """The names of the values of each secret that needs them, once its templates are known to be possible."""
        try:
            async with asyncio.timeout(self._patience):
                await self._require_templates(injection)
                async with asyncio.TaskGroup() as group:
                    tasks = {
                        secret.name: group.create_task(self._read_names(namespace, secret.name))
                        for secret in injection.secrets
                        if secret.needs_value_names
                    }
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

    async def _require_templates(self, injection: Injection) -> None:
        """Refuses templates that no values could make render, all at once: there is one bound for a pod."""
        templates = {secret.name: secret.template for secret in injection.secrets if secret.template is not None}
        fields = {member_path("spec.target.data", name): annotation_field(f"template.{name}") for name in templates}
        try:
            await self._templates.require_possible(templates)
        except (TemplateFailed, Unavailable) as error:
            error.field = fields.get(error.field) or next(iter(fields.values()))
            raise

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
