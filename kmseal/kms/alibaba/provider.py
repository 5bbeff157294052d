"""The Alibaba Cloud provider: the seam's operations as requests to KMS.

Made by ``kmseal.kms.keyring`` on the first key that begins with ``acs:kms:``. It chooses the gateway by the region in
the key's name, sends the ARN as KeyId (which also works across accounts), and turns answers into the seam's values.
Regions never stand in for one another: keys and ciphertexts are regional.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from alibabacloud_kms20160120 import models

from kmseal.envelope import encode_base64
from kmseal.errors import Refused
from kmseal.kms.alibaba.answers import (
    read_blob,
    read_description,
    read_fresh_data_key,
    read_unwrapped,
    read_wrapping,
)
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.client import Call, KmsClient
from kmseal.kms.alibaba.credentials import Credentials, CredentialSource, RefreshedCredentials, StaticCredentials
from kmseal.kms.alibaba.detection import find_credentials
from kmseal.kms.alibaba.errors import UNSUPPORTED
from kmseal.kms.alibaba.gateway import Gateway
from kmseal.kms.alibaba.sts import OidcExchange, sts_endpoint
from kmseal.kms.alibaba.transport import Target, Transport, trust
from kmseal.kms.breaker import Breaker
from kmseal.kms.budget import Budget
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, Unwrapped
from kmseal.kms.wiring import Wiring
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

_T = TypeVar("_T")
_DESCRIPTION_SECONDS: Final = 60.0
"""How long a description serves re-wrapping: see ``_reencrypt`` for why an old one does no harm."""


class AlibabaProvider:
    """Implements ``kmseal.kms.provider.Provider``. Belongs to one event loop from its first request on."""

    def __init__(self, wiring: Wiring, credentials: CredentialSource | None = None) -> None:
        """Reads files and takes tens of milliseconds: to be called in a thread. Raises Misconfigured.

        :param credentials: in place of those that the environment holds
        """
        self._wiring = wiring
        self._tls = trust(wiring.settings.ca_file, "KMSEAL_KMS_CA_FILE")
        self._transport = Transport(wiring.settings.concurrency)
        self._credentials = credentials or self._find_credentials()
        self._budget = Budget(wiring.settings, wiring.timing)
        self._gateways: dict[str, Gateway] = {}
        self._descriptions: dict[str, tuple[float, KeyDescription]] = {}
        self._describing: dict[str, asyncio.Lock] = {}

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """GenerateDataKey."""
        name = KeyName.parse(key)
        request = models.GenerateDataKeyRequest(key_id=name.arn, key_spec="AES_256", encryption_context=dict(context))

        async def send(client: KmsClient, call: Call) -> FreshDataKey:
            return read_fresh_data_key((await client.generate_data_key_with_options_async(request, call)).body, name)

        return await self._call("GenerateDataKey", name, send)

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Encrypt."""
        name = KeyName.parse(key)
        request = models.EncryptRequest(
            key_id=name.arn, plaintext=encode_base64(data_key.reveal()), encryption_context=dict(context)
        )

        async def send(client: KmsClient, call: Call) -> Wrapping:
            return read_wrapping((await client.encrypt_with_options_async(request, call)).body, name)

        return await self._call("Encrypt", name, send)

    async def unwrap(self, wrapping: Wrapping, context: Context) -> Unwrapped:
        """Decrypt, or AsymmetricDecrypt for what was wrapped with a public key."""
        name = KeyName.parse(wrapping.key_id)
        blob = encode_base64(wrapping.wrapped)
        if wrapping.algorithm is Algorithm.RSAES_OAEP_SHA_256:
            asymmetric = models.AsymmetricDecryptRequest(
                key_id=name.arn,
                key_version_id=wrapping.key_version_id,
                algorithm=wrapping.algorithm.value,
                ciphertext_blob=blob,
            )

            async def send_asymmetric(client: KmsClient, call: Call) -> Unwrapped:
                answer = await client.asymmetric_decrypt_with_options_async(asymmetric, call)
                return read_unwrapped(answer.body, wrapping)

            return await self._call("AsymmetricDecrypt", name, send_asymmetric)
        request = models.DecryptRequest(ciphertext_blob=blob, encryption_context=dict(context))

        async def send(client: KmsClient, call: Call) -> Unwrapped:
            return read_unwrapped((await client.decrypt_with_options_async(request, call)).body, wrapping)

        return await self._call("Decrypt", name, send)

    async def rewrap(self, wrapping: Wrapping, key: str, context: Context) -> Wrapping:
        """ReEncrypt, so that the data key stays in KMS; Decrypt and Encrypt where that cannot be."""
        source, target = KeyName.parse(wrapping.key_id), KeyName.parse(key)
        gateway = self._gateway(target.region)
        symmetric = wrapping.algorithm is Algorithm.KMS_SYMMETRIC
        if symmetric and source.region == target.region and gateway.reencrypts:
            try:
                return await self._reencrypt(wrapping, target, context)
            except Refused as refused:
                if refused.reason != UNSUPPORTED:
                    raise
                gateway.reencrypts = False
        unwrapped = await self.unwrap(wrapping, context)
        return await self.wrap(key, unwrapped.data_key, context)

    async def describe(self, key: str) -> KeyDescription:
        """DescribeKey. Always asks; what it learns serves ``rewrap`` too."""
        name = KeyName.parse(key)
        request = models.DescribeKeyRequest(key_id=name.arn)

        async def send(client: KmsClient, call: Call) -> KeyDescription:
            return read_description((await client.describe_key_with_options_async(request, call)).body, name)

        description = await self._call("DescribeKey", name, send)
        self._descriptions[name.arn] = (self._wiring.timing.clock(), description)
        return description

    def healthy(self, key: str) -> bool:
        """Whether the key's endpoint is thought to answer; so is one that was never asked."""
        gateway = self._gateways.get(KeyName.parse(key).region)
        return gateway is None or gateway.healthy

    async def close(self) -> None:
        """Ends the refresh of credentials and closes all connections."""
        await self._credentials.close()
        await self._transport.close()

    async def _reencrypt(self, wrapping: Wrapping, target: KeyName, context: Context) -> Wrapping:
        """ReEncrypt under the primary version.

        Which version that was, the answer does not say: its KeyVersionId is documented as the one that the *old*
        wrapping was opened with. So the primary version is looked up beforehand. Should the key be rotated in between,
        the new wrapping carries the name of a version older than the true one: it counts as stale and is wrapped once
        more. Looked up afterwards, it could carry the name of a newer one, and a version would seem free to be
        disabled that still opens something. For the same reason a description that is a minute old does no harm.
        """
        description = await self._recent_description(target, wrapping)
        request = models.ReEncryptRequest(
            ciphertext_blob=encode_base64(wrapping.wrapped),
            # The key itself, not an alias that might move after it was described.
            destination_key_id=description.key_id,
            source_encryption_context=dict(context),
            destination_encryption_context=dict(context),
        )

        async def send(client: KmsClient, call: Call) -> bytes:
            return read_blob((await client.re_encrypt_with_options_async(request, call)).body)

        blob = await self._call("ReEncrypt", target, send)
        return Wrapping(description.key_id, description.primary_version, Algorithm.KMS_SYMMETRIC, blob)

    async def _recent_description(self, name: KeyName, stale: Wrapping) -> KeyDescription:
        """One DescribeKey per key and minute, however many objects are re-wrapped at once.

        A description by which ``stale`` is not stale is asked for anew: its key was rotated since.
        """
        async with self._describing.setdefault(name.arn, asyncio.Lock()):
            asked_at, description = self._descriptions.get(name.arn, (0.0, None))
            if (
                description is None
                or self._wiring.timing.clock() - asked_at > _DESCRIPTION_SECONDS
                or (description.key_id, description.primary_version) == (stale.key_id, stale.key_version_id)
            ):
                description = await self.describe(name.arn)
            return description

    async def _call(self, operation: str, name: KeyName, send: Callable[[KmsClient, Call], Awaitable[_T]]) -> _T:
        return await self._gateway(name.region).call(operation, name, send)

    def _gateway(self, region: str) -> Gateway:
        found = self._gateways.get(region)
        if found is None:
            found = self._gateways[region] = self._make_gateway(region)
        return found

    def _make_gateway(self, region: str) -> Gateway:
        wiring = self._wiring
        target = Target.of("KMS", wiring.settings.endpoint(region), self._tls, "KMSEAL_KMS_CA_FILE")
        return Gateway(
            region,
            KmsClient(region, target, self._transport, self._credentials, wiring.timing),
            credentials=self._credentials,
            breaker=Breaker(
                target.host,
                failures=wiring.settings.breaker_failures,
                seconds=wiring.settings.breaker_seconds,
                timing=wiring.timing,
                on_recovered=wiring.on_recovered,
            ),
            budget=self._budget,
            settings=wiring.settings,
            observer=wiring.observer,
            timing=wiring.timing,
        )

    def _find_credentials(self) -> CredentialSource:
        found = find_credentials(self._wiring.environment)
        if isinstance(found, Credentials):
            return StaticCredentials(found)
        tls = trust(self._wiring.settings.sts_ca_file, "KMSEAL_STS_CA_FILE")
        target = Target.of("STS", sts_endpoint(self._wiring.environment), tls, "KMSEAL_STS_CA_FILE")
        return RefreshedCredentials(
            OidcExchange(found, target, self._transport, self._wiring.timing), self._wiring.timing
        )
