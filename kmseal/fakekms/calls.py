"""One KMS call on its way through an operation: who asks, for what, and what the audit trail is to know of it.

``service`` makes a :class:`Call` of a verified request; the operations read the parameters, ask for permission through
it, and note which key they touched.
"""

from dataclasses import dataclass, field

from kmseal.fakekms.identities import Identity
from kmseal.fakekms.keys import Key
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.policies import Verdict
from kmseal.fakekms.refusals import Refusal, no_permission
from kmseal.fakekms.requests import Parameters
from kmseal.fakekms.states import check_state

Body = dict[str, object]
"""The JSON object of an answer, without its RequestId."""


@dataclass(slots=True)
class Call:
    """A verified request. The last three fields are notes for the audit trail, filled in by the operation."""

    action: str
    region: str
    parameters: Parameters
    identity: Identity
    store: KeyStore
    allow_symmetric_versions: bool = False
    key_arn: str = ""
    key_version_id: str = ""
    context: dict[str, str] = field(default_factory=dict)

    def key(self, name: str = "KeyId", *, alias_allowed: bool = False) -> Key:
        """The key that a parameter names, once the caller is allowed to use it and its state allows the action."""
        return self.admit(self.store.resolve(self.region, self.parameters.text(name), alias_allowed=alias_allowed))

    def admit(self, key: Key, right: str = "") -> Key:
        """Notes the key and checks permission, then state. ``right`` is the right needed, the action by default."""
        self.key_arn = key.arn
        right = right or self.action
        verdict = self.identity.policy.verdict(right, key.arn)
        if verdict is not Verdict.ALLOWED:
            raise self._denied(right, verdict)
        check_state(self.action, key.state)
        return key

    def require_right(self, right: str) -> None:
        """Refuses a caller who may do this with no key at all, before anything is said about a key."""
        verdict = self.identity.policy.verdict_anywhere(right)
        if verdict is not Verdict.ALLOWED:
            raise self._denied(right, verdict)

    def _denied(self, right: str, verdict: Verdict) -> Refusal:
        return no_permission(right, verdict.value, self.identity.name, self.identity.principal_type, self.store.account)
