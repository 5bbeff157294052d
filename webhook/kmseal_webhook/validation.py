"""What an EncryptedSecret must be to be admitted: judged when one is created or its spec is changed.

The Reviewer of ``/validate``. It refuses, by raising, only what somebody has to correct in the object: its form, its
place, its templates, and keys that the rules of KMSKeys deny to its namespace. What may pass by itself (a key that is
disabled, KMS out of reach) is a warning, for the operator waits for it patiently, and so must GitOps. It is a courtesy
and no guard: operator and broker ask the same rules again before they open anything.

Nothing is said about deletions, metadata and status: an object that is wrong already can still be labelled, released
from its finalizers and deleted. For the same reason data keys that an update leaves alone are no cause to refuse it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from kmseal.cluster.keys import Keys
from kmseal.cluster.reasons import Reason
from kmseal.errors import AccessDenied, KeyUnusable, KmsealError, Terminal, Unavailable
from kmseal.kms.provider import NOT_FOUND
from kmseal.kube import ENCRYPTED_SECRETS
from kmseal.manifest import KIND, CreationPolicy, Delivery, EncryptedSecret
from kmseal.rewrapped import Rewrapped, read_rewrapped
from kmseal.structure import member_path
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.forms import VARIABLE
from kmseal_webhook.parsing import TemplateChecks
from kmseal_webhook.reader import Reader

Json = dict[str, Any]

WARNING_CHARS_MAX: Final = 250
"""The API server may cut what is longer than 256."""
_NAMED_MAX: Final = 3
_RULES: Final = (Reason.KEY_NOT_REGISTERED, Reason.NAMESPACE_NOT_ALLOWED)
_ALLOWED: Final = Answer(allowed=True)


class FaultFinder(Protocol):
    """Tries whether an object opens, as ``trial`` does."""

    async def fault(self, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped]) -> KmsealError | None:
        """Why it does not."""
        ...


class Validation:
    """Judges EncryptedSecrets; ``review`` is the Reviewer.

    :param reader: None where other objects of the same target are not looked for
    :param trial: None where nothing is opened at admission
    :param templates: reads a few at a time; None takes one of its own
    :param lookup_seconds: how long looking for them may take
    """

    def __init__(
        self, keys: Keys, *, reader: Reader | None = None, trial: FaultFinder | None = None,
        templates: TemplateChecks | None = None, lookup_seconds: float = 1.0,
    ) -> None:  # fmt: skip
        self._templates = templates or TemplateChecks()
        self._keys = keys
        self._reader = reader
        self._trial = trial
        self._lookup_seconds = lookup_seconds

    async def review(self, request: AdmissionRequest) -> Answer:
        """Admits, perhaps with warnings. Raises Terminal or AccessDenied with the field that has to be corrected."""
        if not _is_to_be_judged(request):
            return _ALLOWED
        object_ = EncryptedSecret.parse(request.object, namespace=request.namespace)
        object_.require_place()
        warnings = await self._judge_templates(object_)
        standing = _standing(request)
        warnings += [*self._judge_keys(object_, standing), *_warn_of_variables(object_)]
        if self._reader and _spec(request.old).get("target") != _spec(request.object).get("target"):
            warnings += await self._warn_of_namesake(self._reader, object_)
        if self._trial and _spec(request.old).get("dataKeys") != _spec(request.object).get("dataKeys"):
            warnings += await self._try(self._trial, object_, read_rewrapped(request.object.get("status")), standing)
        return Answer(allowed=True, warnings=tuple(map(_shortened, warnings)))

    async def _judge_templates(self, object_: EncryptedSecret) -> list[str]:
        """Refuses templates that no values could make render; a warning where there was no time to read them."""
        try:
            await self._templates.require_possible(object_.target.data)
        except Unavailable as error:
            return [f"spec.target.data: {error}"]
        return []

    def _judge_keys(self, object_: EncryptedSecret, standing: frozenset[str]) -> Iterable[str]:
        """Refuses a data key no wrapping of which may ever be opened in the namespace as the rules are.

        A rule that cannot be read, or a key that is shut, is its administrator's business, and both heal by themselves.
        """
        used = object_.used_data_keys
        for index, data_key in enumerate(object_.data_keys):
            if data_key not in used:
                continue
            refusals = []
            for wrapping in data_key.wrappings:
                refusal = self._keys.refusal(wrapping.key_id, object_.namespace)
                if refusal is None:
                    break
                refusals.append(refusal)
            else:
                passing = [refusal for refusal in refusals if not isinstance(refusal, AccessDenied)]
                error = (passing or refusals)[0]
                error.field = f"spec.dataKeys[{index}]"
                if not passing and error.field not in standing:
                    raise error
                yield str(error)

    async def _warn_of_namesake(self, reader: Reader, object_: EncryptedSecret) -> list[str]:
        """Warns if the object that is called like the target has the same target: the likely collision, in one read.

        Any other would take reading all objects of the namespace; the operator finds it and says TargetConflict.
        """
        target = object_.target.name
        if target == object_.name or not _claims(object_, target):
            return []
        try:
            async with asyncio.timeout(self._lookup_seconds):
                raw = await reader.get(ENCRYPTED_SECRETS, object_.namespace, target)
            if raw is None or not _claims(EncryptedSecret.parse(raw), target):
                return []
        except (KmsealError, TimeoutError):
            return []  # Not worth a word: it was about a warning.
        return [
            f"spec.target.name: the EncryptedSecret {target} makes a Secret of this name as well, "
            f"and only one of them can own it ({Reason.TARGET_CONFLICT}); choose another name"
        ]

    async def _try(
        self, trial: FaultFinder, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped], standing: frozenset[str]
    ) -> list[str]:
        """Refuses what KMS is sure about; a fault, a quota or a state of KMS is never the object's."""
        error = await trial.fault(object_, rewrapped)
        if error is None or error.reason in _RULES:  # Those have been judged already.
            return []
        sure = isinstance(error, Terminal | AccessDenied) or (
            isinstance(error, KeyUnusable) and error.reason in NOT_FOUND
        )
        if sure and error.field not in standing:
            raise error
        error.field = error.field or "spec.dataKeys"
        return [str(error)]


def _is_to_be_judged(request: AdmissionRequest) -> bool:
    if request.kind != KIND or request.operation not in ("CREATE", "UPDATE"):
        return False
    if request.old is None:
        return True
    metadata = request.object.get("metadata")
    if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
        return False  # It only waits for its finalizers.
    return request.object.get("spec") != request.old.get("spec")


def _standing(request: AdmissionRequest) -> frozenset[str]:
    """The paths of those data keys that are as they were before the update."""
    before, items = (_spec(raw).get("dataKeys") for raw in (request.old, request.object))
    if not isinstance(before, list) or not isinstance(items, list):
        return frozenset()
    return frozenset(f"spec.dataKeys[{index}]" for index, item in enumerate(items) if item in before)


def _spec(raw: Json | None) -> Json:
    spec = (raw or {}).get("spec")
    return spec if isinstance(spec, dict) else {}


def _claims(object_: EncryptedSecret, name: str) -> bool:
    """Whether it wants the Secret of this name for itself."""
    target = object_.target
    return (
        object_.delivery is Delivery.SECRET
        and target.name == name
        and target.creation_policy is not CreationPolicy.MERGE
    )


def _warn_of_variables(object_: EncryptedSecret) -> list[str]:
    """Names that no environment variable can have. As files they are as good as any, so that nothing is refused.

    Whether a value itself can be one (docs/injection.md) is not looked at, though a trial could: to say what is in a
    value would answer people who may write the object and not read it.
    """
    names, path = (object_.target.data, "data") if object_.target.data else (object_.values, "encryptedData")
    unfit = sorted(name for name in names if not VARIABLE.fullmatch(name))
    if not unfit:
        return []
    where = member_path("spec.target.data" if path == "data" else "spec.encryptedData", unfit[0])
    more = f" (and {len(unfit) - 1} more)" if len(unfit) > 1 else ""
    return [
        f"{where}: no environment variable can have this name{more}, for it begins with a digit; "
        "a pod can take it as a file, or under another name"
    ]


def _shortened(warning: str) -> str:
    return warning if len(warning) <= WARNING_CHARS_MAX else f"{warning[: WARNING_CHARS_MAX - 1]}…"
