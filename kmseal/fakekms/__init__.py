"""A fake of Alibaba Cloud KMS and STS to develop and test against: it verifies what the real services would.

::

    serve, environments, admin  the command `kmseal dev kms`, and the switches of a running fake
      server, gateways, wire    listeners, HTTP, faults on the wire
        account                 the account, and what an administrator does to it
          service               verify, limit, permit, run, record
            authentication      acs3, rpc1, claims; sts, oidc: who is asking
            operations          asymmetric, control, rotation, imports, tags; calls, shapes, states
            keystore            keys, clock, ciphertext, rsakeys
            identities, policies, quotas, faults, targets, audit, requests, refusals
          state, certificates   what is kept on disk

Only ``gateways`` and above know sockets. The fake never imports kmseal's own client or the vendor's SDK: it judges
both. It keeps key material in clear and must never guard a real secret.
"""

from kmseal.fakekms.audit import AuditRecord, AuditTrail, CallCounter
from kmseal.fakekms.faults import Fault, FaultKind, Faults, latency, throttling
from kmseal.fakekms.gateways import Gateway
from kmseal.fakekms.identities import DEVELOPER_ACTIONS, OPERATOR_ACTIONS, Identity
from kmseal.fakekms.policies import Effect, Policy, Statement, parse_policy
from kmseal.fakekms.quotas import REAL_LIMITS, QuotaClass
from kmseal.fakekms.server import FakeKms

__all__ = [
    "DEVELOPER_ACTIONS",
    "OPERATOR_ACTIONS",
    "REAL_LIMITS",
    "AuditRecord",
    "AuditTrail",
    "CallCounter",
    "Effect",
    "FakeKms",
    "Fault",
    "FaultKind",
    "Faults",
    "Gateway",
    "Identity",
    "Policy",
    "QuotaClass",
    "Statement",
    "latency",
    "parse_policy",
    "throttling",
]
