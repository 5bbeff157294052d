"""Which steps of an EncryptedSecret are worth an event: Ready lost, and Ready regained.

None on a first success and none on a repetition, so that the usual life of an object makes no event at all.
"""

from kmseal.cluster.events import Announcer
from kmseal.cluster.names import Key
from kmseal.cluster.reasons import Reason
from kmseal.kube import ENCRYPTED_SECRETS
from kmseal_operator.ledger import Recorded


async def announce(announcer: Announcer, key: Key, uid: str, before: Recorded, after: Recorded) -> None:
    """Writes an event if the step from ``before`` to ``after`` is worth one. Never raises."""
    lost = after.ready == "False" and (before.ready != "False" or before.reason != after.reason)
    regained = after.ready == "True" and before.ready == "False"
    if (lost or regained) and after.reason != Reason.SUSPENDED:
        await announcer.tell(ENCRYPTED_SECRETS, key, uid, after.reason, after.message, warning=lost)
