"""What KMS tells about a key: state, primary version, public half. No data key passes here.

Belongs to the provider. Metadata queries have a small quota of their own, so what is learnt is remembered for a minute,
and callers of ``recent`` share one query. Dedicated gateways offer few of these operations: what a gateway refused once
it is not asked for again, and a probe takes the place of DescribeKey.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from alibabacloud_kms20160120 import models

from kmseal.errors import KeyUnusable, Refused
from kmseal.kms.alibaba.answers import (
    VersionsPage,
    read_description,
    read_public_half,
    read_versions_page,
    read_wrapping,
)
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.client import Call, KmsClient
from kmseal.kms.alibaba.errors import UNSUPPORTED
from kmseal.kms.alibaba.gateway import Gateway
from kmseal.kms.provider import UNUSABLE_STATES, KeyDescription, KeyState, PublicHalf
from kmseal.kms.timing import Timing
from kmseal.manifest import Wrapping

PROBE_CONTEXT: Final = {"kmseal.dev/probe": "version"}
"""The context of the probe: the audit trail shows by it that nobody's data key was drawn."""

_REMEMBERED_SECONDS: Final = 60.0
"""How long a description serves re-wrapping: see ``AlibabaProvider._reencrypt`` for why an old one does no harm."""

_PAGE: Final = 100
_PAGES_MAX: Final = 10


class Metadata:
    """The metadata queries of a provider."""

    def __init__(self, gateway_of: Callable[[str], Gateway], timing: Timing) -> None:
        """:param gateway_of: the gateway of a region"""
        self._gateway_of = gateway_of
        self._timing = timing
        self._descriptions: dict[str, tuple[float, KeyDescription]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def describe(self, name: KeyName) -> KeyDescription:
        """DescribeKey, or a probe where that is not offered. Always asks; what it learns serves ``recent`` too."""
        description = await self._describe(name) or await self._probe(name)
        self._descriptions[name.arn] = (self._timing.clock(), description)
        return description

    async def recent(self, name: KeyName, stale: Wrapping) -> KeyDescription:
        """One query per key and minute, however many objects are re-wrapped at once.

        A description by which ``stale`` is not stale is asked for anew: its key was rotated since.
        """
        async with self._asking.setdefault(name.arn, asyncio.Lock()):
            asked_at, description = self._descriptions.get(name.arn, (0.0, None))
            if (
                description is None
                or self._timing.clock() - asked_at > _REMEMBERED_SECONDS
                or (description.key_id, description.primary_version) == (stale.key_id, stale.key_version_id)
            ):
                description = await self.describe(name)
            return description

    async def public_half(self, name: KeyName, version: str) -> PublicHalf:
        """GetPublicKey of a version, or of the newest one."""
        description = await self._describe(name)
        if description is not None:
            if not description.asymmetric:
                raise Refused(
                    f"{description.key_id} is a symmetric key and has no public half",
                    reason="NotAsymmetric",
                    remedy="make a key of the spec RSA_2048 or more for ENCRYPT/DECRYPT, or seal with this one by KMS",
                )
            # An alias is not understood by all operations, and must not move between them.
            name = KeyName.parse(description.key_id)
        request = models.GetPublicKeyRequest(
            key_id=name.arn, key_version_id=version or await self._newest_version(name)
        )

        async def send(client: KmsClient, call: Call) -> PublicHalf:
            return read_public_half((await client.get_public_key_with_options_async(request, call)).body, name)

        return await self._gateway_of(name.region).call("GetPublicKey", name, send)

    async def _describe(self, name: KeyName) -> KeyDescription | None:
        """DescribeKey; None where the gateway does not offer it."""
        gateway = self._gateway_of(name.region)
        if not gateway.describes:
            return None
        request = models.DescribeKeyRequest(key_id=name.arn)

        async def send(client: KmsClient, call: Call) -> KeyDescription:
            return read_description((await client.describe_key_with_options_async(request, call)).body, name)

        try:
            return await gateway.call("DescribeKey", name, send)
        except Refused as refused:
            if refused.reason != UNSUPPORTED:
                raise
        gateway.describes = False
        return None

    async def _probe(self, name: KeyName) -> KeyDescription:
        """Draws a data key that nobody keeps: the answer names key and primary version, a refusal the key's state.

        A refusal names no version, and behind an alias no key either. So the version is the one last seen, if any was
        (too old is safe, see ``recent``), and with an alias the refusal itself is raised.
        """
        request = models.GenerateDataKeyWithoutPlaintextRequest(
            key_id=name.arn, key_spec="AES_256", encryption_context=PROBE_CONTEXT
        )

        async def send(client: KmsClient, call: Call) -> Wrapping:
            answer = await client.generate_data_key_without_plaintext_with_options_async(request, call)
            return read_wrapping(answer.body, name)

        try:
            drawn = await self._gateway_of(name.region).call("GenerateDataKeyWithoutPlaintext", name, send)
        except KeyUnusable as unusable:
            state = UNUSABLE_STATES.get(unusable.reason)
            if state is None or name.is_alias:
                raise
        else:
            return KeyDescription(drawn.key_id, KeyState.ENABLED, drawn.key_version_id)
        _, last = self._descriptions.get(name.arn, (0.0, None))
        return KeyDescription(name.arn, state, last.primary_version if last else "")

    async def _newest_version(self, name: KeyName) -> str:
        """The version made last, by ListKeyVersions. Asymmetric keys have no primary one, and at most 50."""
        versions: list[tuple[str, str]] = []
        for number in range(1, _PAGES_MAX + 1):
            page = await self._versions_page(name, number)
            versions += page.versions
            if len(versions) >= page.total:
                break
        if not versions:
            raise KeyUnusable(
                f"{name.arn} has no version",
                reason="KeyPendingImport",
                remedy="import its material; it heals by itself then",
            )
        return max(versions)[1]

    async def _versions_page(self, name: KeyName, number: int) -> VersionsPage:
        request = models.ListKeyVersionsRequest(key_id=name.arn, page_number=number, page_size=_PAGE)

        async def send(client: KmsClient, call: Call) -> VersionsPage:
            return read_versions_page((await client.list_key_versions_with_options_async(request, call)).body)

        return await self._gateway_of(name.region).call("ListKeyVersions", name, send)
