"""The Alibaba Cloud provider: the seam's operations as requests to KMS.

Made by ``kmseal.kms.keyring`` on the first key that begins with ``acs:kms:``. It chooses the gateway by the region in
the key's name, sends the ARN as KeyId (which also works across accounts), and turns answers into the seam's values.
Regions never stand in for one another: keys and ciphertexts are regional.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from alibabacloud_kms20160120 import models

from kmseal.envelope import encode_base64
from kmseal.errors import KeyUnusable, Refused
from kmseal.kms.alibaba.answers import read_fresh_data_key, read_reencrypted, read_unwrapped, read_wrapping
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.client import Call, KmsClient
from kmseal.kms.alibaba.credentials import CredentialSource
from kmseal.kms.alibaba.errors import UNSUPPORTED
from kmseal.kms.alibaba.gateway import Gateway
from kmseal.kms.alibaba.identity import choose_identity
from kmseal.kms.alibaba.metadata import Metadata
from kmseal.kms.alibaba.transport import Target, Transport, trust, trust_only
from kmseal.kms.breaker import Breaker
from kmseal.kms.connection import CA_BUNDLE, ENDPOINT
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, PublicHalf, Unwrapped
from kmseal.kms.settings import require_endpoint
from kmseal.kms.wiring import Wiring
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

_T = TypeVar("_T")


class AlibabaProvider:
    """Implements ``kmseal.kms.provider.Provider``. Belongs to one event loop from its first request on."""

    def __init__(self, wiring: Wiring, credentials: CredentialSource | None = None) -> None:
        """Reads files and takes tens of milliseconds: to be called in a thread.

        :param credentials: in place of those that connection and environment name
        :raises Misconfigured: naming the variable, or the connection's field, that is wrong
        """
        self._wiring = wiring
        connection = wiring.connection
        if connection.endpoint:
            require_endpoint(connection.endpoint, ENDPOINT)
        self._tls = (
            trust_only(connection.ca_pem, CA_BUNDLE)
            if connection.ca_pem
            else trust(wiring.settings.ca_file, "KMSEAL_KMS_CA_FILE")
        )
        # Who brings an endpoint of its own should bring its authority too, rather than add it to everybody's.
        self._ca_setting = CA_BUNDLE if connection.ca_pem or connection.endpoint else "KMSEAL_KMS_CA_FILE"
        self._transport = Transport(wiring.settings.concurrency)
        self._credentials = credentials or choose_identity(wiring, self._transport)
        self._gateways: dict[str, Gateway] = {}
        self._metadata = Metadata(self._gateway, wiring.timing)

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

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """ReEncrypt, so that the data key stays in KMS; Decrypt and Encrypt where that cannot be."""
        source, target = KeyName.parse(wrapping.key_id), KeyName.parse(key)
        if source.region == target.region and wrapping.algorithm in self._gateway(target.region).reencrypts:
            again = await self._reencrypt(wrapping, target, context, description)
            if again is not None:
                return again
        unwrapped = await self.unwrap(wrapping, context)
        return await self.wrap(key, unwrapped.data_key, context)

    async def describe(self, key: str) -> KeyDescription:
        """DescribeKey, or a probe where the gateway has none."""
        return await self._metadata.describe(KeyName.parse(key))

    async def public_key(self, key: str, version: str = "") -> PublicHalf:
        """GetPublicKey."""
        return await self._metadata.public_half(KeyName.parse(key), version)

    def healthy(self, key: str) -> bool:
        """Whether the key's endpoint is thought to answer; so is one that was never asked."""
        gateway = self._gateways.get(KeyName.parse(key).region)
        return gateway is None or gateway.healthy

    def endpoints(self) -> Sequence[EndpointFigures]:
        """One for each region that was asked."""
        return [gateway.figures for gateway in self._gateways.values()]

    async def close(self) -> None:
        """Ends the refresh of credentials and closes all connections."""
        await self._credentials.close()
        await self._transport.close()

    async def _reencrypt(
        self, wrapping: Wrapping, target: KeyName, context: Context, known: KeyDescription | None
    ) -> Wrapping | None:
        """ReEncrypt under the primary version; None where that cannot be, and the caller has to open the wrapping.

        Which version that was, the answer does not say: its KeyId and KeyVersionId are documented as those that the
        *old* wrapping was opened with. So the primary version is known beforehand: from the caller, who polls the key,
        or from a look of our own, at most one a minute. Should the key be rotated in between, the new wrapping carries
        the name of a version older than the true one: it counts as stale and is wrapped once more. Looked up
        afterwards, it could carry the name of a newer one, and a version would seem free to be disabled that still
        opens something. For the same reason a description from an earlier poll does no harm, however old it is.

        The key that opened the old wrapping has to be the one that it names (see ``read_unwrapped``): else a manifest
        could have its borrowed wrapping laundered into an honest one.
        """
        source, gateway = KeyName.parse(wrapping.key_id), self._gateway(target.region)
        try:
            if known is None or not (target.is_alias or known.key_id == target.arn):
                known = await self._metadata.recent(target, wrapping)
            if not known.primary_version:
                return None
            opener, blob = await gateway.call("ReEncrypt", target, _sending_reencrypt(wrapping, source, known, context))
        except Refused as refused:
            if refused.reason != UNSUPPORTED:
                raise
            gateway.reencrypts.discard(wrapping.algorithm)
            return None
        except KeyUnusable:
            if source == target:
                raise
            return None  # One of the two keys: the single steps will tell which.
        if source.key(opener) != source:
            return None
        return Wrapping(known.key_id, known.primary_version, Algorithm.KMS_SYMMETRIC, blob)

    async def _call(self, operation: str, name: KeyName, send: Callable[[KmsClient, Call], Awaitable[_T]]) -> _T:
        return await self._gateway(name.region).call(operation, name, send)

    def _gateway(self, region: str) -> Gateway:
        found = self._gateways.get(region)
        if found is None:
            found = self._gateways[region] = self._make_gateway(region)
        return found

    def _make_gateway(self, region: str) -> Gateway:
        wiring = self._wiring
        endpoint = wiring.connection.endpoint or wiring.settings.endpoint(region)
        target = Target.of("KMS", endpoint, self._tls, self._ca_setting)
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
            budget=wiring.budget,
            settings=wiring.settings,
            observer=wiring.observer,
            timing=wiring.timing,
        )


def _sending_reencrypt(
    wrapping: Wrapping, source: KeyName, description: KeyDescription, context: Context
) -> Callable[[KmsClient, Call], Awaitable[tuple[str, bytes]]]:
    """One ReEncrypt to the described key: not to an alias, which might have moved since it was described."""
    request = models.ReEncryptRequest(
        ciphertext_blob=encode_base64(wrapping.wrapped),
        destination_key_id=description.key_id,
        destination_encryption_context=dict(context),
    )
    if wrapping.algorithm is Algorithm.KMS_SYMMETRIC:
        request.source_encryption_context = dict(context)
    else:
        # A public key binds no context, and its ciphertext does not say by which key it was made.
        request.source_key_id = source.arn
        request.source_key_version_id = wrapping.key_version_id
        request.source_encryption_algorithm = wrapping.algorithm.value

    async def send(client: KmsClient, call: Call) -> tuple[str, bytes]:
        # What can be refused here is mostly the old wrapping: errors name its key.
        answer = await client.re_encrypt_with_options_async(request, replace(call, key=source))
        return read_reencrypted(answer.body)

    return send
