"""A fake of Alibaba Cloud KMS and STS to develop and test against: it verifies what the real services would.

::

    serve, admin            the command `kmseal dev kms`, and the switches of a running fake
      server, wire          listeners, HTTP, faults on the wire
        service             verify, limit, permit, run, record
          acs3, sts, oidc   who is asking
          operations, control, calls, states, keys, ciphertext
          identities, quotas, faults, audit, requests, refusals
        state, certificates what is kept on disk

Only ``server`` and above know sockets. The fake never imports kmseal's own client or the vendor's SDK: it judges both.
It keeps key material in clear and must never guard a real secret.
"""

from kmseal.fakekms.audit import AuditRecord, AuditTrail, CallCounter
from kmseal.fakekms.faults import Fault, FaultKind, Faults, latency, throttling
from kmseal.fakekms.identities import DEVELOPER_ACTIONS, OPERATOR_ACTIONS, Identity, Policy
from kmseal.fakekms.quotas import REAL_LIMITS, QuotaClass
from kmseal.fakekms.server import FakeKms

__all__ = [
    "DEVELOPER_ACTIONS",
    "OPERATOR_ACTIONS",
    "REAL_LIMITS",
    "AuditRecord",
    "AuditTrail",
    "CallCounter",
    "FakeKms",
    "Fault",
    "FaultKind",
    "Faults",
    "Identity",
    "Policy",
    "QuotaClass",
    "latency",
    "throttling",
]
