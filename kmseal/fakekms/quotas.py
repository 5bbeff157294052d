"""The request quotas of the shared gateway, per class of action: a real limit of calls per second.

Switched off unless limits are given. ``service`` asks :meth:`Quotas.admit` for each verified request at a shared
gateway and answers Rejected.Throttling when it says no. Refused requests do not count against the quota. The gateway of
an instance has no quota here: the real one's is what was bought.
"""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final


class QuotaClass(StrEnum):
    """What is counted together."""

    CRYPTOGRAPHIC = "cryptographic"
    ASYMMETRIC = "asymmetric"
    METADATA = "metadata"
    TAG_QUERY = "tag-query"
    CREATE_KEY = "create-key"
    CHANGE = "change"


REAL_LIMITS: Final[Mapping[QuotaClass, float]] = {
    QuotaClass.CRYPTOGRAPHIC: 1000,
    QuotaClass.ASYMMETRIC: 200,
    QuotaClass.METADATA: 50,
    QuotaClass.TAG_QUERY: 300,
    QuotaClass.CREATE_KEY: 10,
    QuotaClass.CHANGE: 30,
}
"""Calls per second, account and region, as documented."""

_SINGLE: Final = {
    "CreateKey": QuotaClass.CREATE_KEY,
    "ListResourceTags": QuotaClass.TAG_QUERY,
    "GetPublicKey": QuotaClass.ASYMMETRIC,
    "AsymmetricEncrypt": QuotaClass.ASYMMETRIC,
    "AsymmetricDecrypt": QuotaClass.ASYMMETRIC,
    **dict.fromkeys(
        ("GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt", "Decrypt", "ReEncrypt"),
        QuotaClass.CRYPTOGRAPHIC,
    ),
}


def quota_class(action: str) -> QuotaClass:
    """The class that an action counts in."""
    single = _SINGLE.get(action)
    if single is not None:
        return single
    return QuotaClass.METADATA if action.startswith(("Describe", "List")) else QuotaClass.CHANGE


class Quotas:
    """Token buckets of one second's worth, one for each class and region.

    :param clock: seconds on a clock that never goes back
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limits: dict[QuotaClass, float] = {}
        self._buckets: dict[tuple[QuotaClass, str], tuple[float, float]] = {}
        self.tells_when = False

    @property
    def limits(self) -> dict[QuotaClass, float]:
        """The limits in force, in calls per second; a class that is missing has none."""
        return dict(self._limits)

    def limit(self, limits: Mapping[QuotaClass, float], *, tells_when: bool = False) -> None:
        """Replaces all limits (calls per second); ``{}`` switches them off.

        :param tells_when: refusals carry the header ``x-acs-retry-after``; the documentation does not promise it
        """
        self._limits = dict(limits)
        self._buckets.clear()
        self.tells_when = tells_when

    def admit(self, action: str, region: str) -> bool:
        """Takes one call out of the quota; False when it is used up."""
        if not self._limits:
            return True
        which = quota_class(action)
        limit = self._limits.get(which)
        if limit is None:
            return True
        now = self._clock()
        burst = max(limit, 1.0)
        level, then = self._buckets.get((which, region), (burst, now))
        level = min(burst, level + (now - then) * limit)
        admitted = level >= 1.0
        self._buckets[which, region] = (level - 1.0 if admitted else level, now)
        return admitted

    def retry_after(self, action: str, region: str) -> int | None:
        """Milliseconds until a call that was just refused would be admitted; None when that is not to be told."""
        if not self.tells_when:
            return None
        which = quota_class(action)
        return max(1, math.ceil((1.0 - self._buckets[which, region][0]) / self._limits[which] * 1000))
