"""The contract of the replaced method: our client sends what the plain SDK client sends, and signs it as documented.

Both talk to the same recording server. Only what must differ between any two requests is left out of the comparison:
the date, the nonce, the signature over them, and the headers that belong to the HTTP library (never signed).
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from alibabacloud_kms20160120 import models
from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.core import DaraCore
from darabonba.runtime import RuntimeOptions

from kmseal.errors import KmsealError
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.client import Call, KmsClient
from kmseal.kms.alibaba.credentials import Credentials, StaticCredentials
from kmseal.kms.alibaba.transport import Target, Transport, trust
from kmseal.kms.timing import Timing
from kmseal.redacted import Redacted

SECRET = "e7c1signing-secret"
CONTEXT = {"kmseal.dev/format": "v1", "kmseal.dev/name": "ä b+c/d&e=f~*", "empty": ""}
KEY = "acs:kms:cn-hangzhou:1000000000000001:key/key-hzz62f1cb66fa42qo1234"
REQUESTS = {
    "generate_data_key": models.GenerateDataKeyRequest(key_id=KEY, key_spec="AES_256", encryption_context=CONTEXT),
    "encrypt": models.EncryptRequest(key_id=KEY, plaintext="+/+/AAA=", encryption_context=CONTEXT),
    "decrypt": models.DecryptRequest(ciphertext_blob="+/+/AAA=", encryption_context=CONTEXT),
    "re_encrypt": models.ReEncryptRequest(
        ciphertext_blob="+/+/AAA=",
        destination_key_id=KEY,
        source_encryption_context=CONTEXT,
        destination_encryption_context=CONTEXT,
    ),
    "re_encrypt_of_an_asymmetric_wrapping": models.ReEncryptRequest(
        ciphertext_blob="+/+/AAA=",
        destination_key_id=KEY,
        destination_encryption_context=CONTEXT,
        source_key_id=KEY,
        source_key_version_id="v-1",
        source_encryption_algorithm="RSAES_OAEP_SHA_256",
    ),
    "generate_data_key_without_plaintext": models.GenerateDataKeyWithoutPlaintextRequest(
        key_id=KEY, key_spec="AES_256", encryption_context=CONTEXT
    ),
    "list_key_versions": models.ListKeyVersionsRequest(key_id=KEY, page_number=1, page_size=100),
    "get_public_key": models.GetPublicKeyRequest(key_id=KEY, key_version_id="v-1"),
    "describe_key": models.DescribeKeyRequest(key_id=KEY),
    "asymmetric_decrypt": models.AsymmetricDecryptRequest(
        key_id=KEY, key_version_id="v-1", algorithm="RSAES_OAEP_SHA_256", ciphertext_blob="+/+/AAA="
    ),
}
NEVER_EQUAL = {"x-acs-date", "x-acs-signature-nonce", "authorization"}
OF_THE_LIBRARY = {"accept-encoding", "connection"}


def verify(request: Any, secret: str) -> None:
    """ACS3-HMAC-SHA256 as documented, written without the SDK: raises AssertionError unless the signature holds."""
    algorithm, _, rest = request.headers["authorization"].partition(" ")
    parts = dict(part.split("=", 1) for part in rest.split(","))
    signed = parts["SignedHeaders"].split(";")
    assert algorithm == "ACS3-HMAC-SHA256"
    assert signed == sorted(signed)
    must = {name for name in request.headers if name.startswith("x-acs-")} | {"host"}
    must |= {"content-type"} & set(request.headers)
    assert must <= set(signed)
    digest = hashlib.sha256(request.body).hexdigest()
    assert request.headers["x-acs-content-sha256"] == digest
    query = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in request.query)
    headers = "".join(f"{name}:{request.headers[name]}\n" for name in signed)
    canonical = "\n".join([request.method, request.path, query, headers, parts["SignedHeaders"], digest])
    to_sign = f"{algorithm}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    assert hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest() == parts["Signature"]


@pytest.mark.parametrize("token", ["", "CAIStoken/+="], ids=["access-key", "security-token"])
@pytest.mark.parametrize("operation", REQUESTS)
async def test_ours_and_the_sdk_send_the_same_signed_request(
    operation: str,
    token: str,
    raw_server: Callable[..., Awaitable[Any]],
    respond: Callable[..., Any],
) -> None:
    """Method, path, query, signed headers and their values, and body are equal; both signatures hold."""
    server = await raw_server(respond(200, b"{}"))
    host = server.endpoint.removeprefix("http://")
    config = Config(
        access_key_id="LTAI5t",
        access_key_secret=SECRET,
        security_token=token or None,
        region_id="cn-hangzhou",
        endpoint=host,
        protocol="http",
        user_agent="kmseal",
    )
    plain = Client(config)
    method = operation.partition("_of_an_")[0]
    await asyncio.to_thread(getattr(plain, f"{method}_with_options"), REQUESTS[operation], RuntimeOptions())
    for session in DaraCore._sessions.values():
        session.close()

    transport = Transport(1)
    credentials = Credentials(
        "LTAI5t",
        Redacted(SECRET.encode()),
        Redacted(token.encode()) if token else None,
        provider="static_sts" if token else "static_ak",
    )
    target = Target.of("KMS", server.endpoint, trust(None, "none"), "none")
    ours = KmsClient("cn-hangzhou", target, transport, StaticCredentials(credentials), Timing())
    await getattr(ours, f"{method}_with_options_async")(REQUESTS[operation], Call(KeyName.parse(KEY), 5.0))
    await transport.close()

    theirs, mine = server.requests
    assert (mine.method, mine.path, mine.query, mine.body) == (theirs.method, theirs.path, theirs.query, theirs.body)
    assert mine.target == theirs.target
    assert comparable(mine) == comparable(theirs)
    assert signed_names(mine) == signed_names(theirs)
    for request in (theirs, mine):
        verify(request, SECRET)


async def test_the_verifier_of_this_test_notices_a_changed_request(
    raw_server: Callable[..., Awaitable[Any]], respond: Callable[..., Any]
) -> None:
    """A query value or a signing secret other than the signed ones make the signature wrong."""
    server = await raw_server(respond(500, b"{}"))
    transport = Transport(1)
    target = Target.of("KMS", server.endpoint, trust(None, "none"), "none")
    credentials = StaticCredentials(Credentials("LTAI5t", Redacted(SECRET.encode())))
    client = KmsClient("cn-hangzhou", target, transport, credentials, Timing())
    with pytest.raises(KmsealError):
        await client.describe_key_with_options_async(REQUESTS["describe_key"], Call(KeyName.parse(KEY), 5.0))
    await transport.close()
    (request,) = server.requests
    verify(request, SECRET)
    with pytest.raises(AssertionError):
        verify(request, SECRET + "x")
    with pytest.raises(AssertionError):
        verify(type(request)(request.method, request.target + "x", request.headers, request.body), SECRET)


def comparable(request: Any) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name not in NEVER_EQUAL | OF_THE_LIBRARY}


def signed_names(request: Any) -> str:
    names: str = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    return names
