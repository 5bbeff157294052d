"""Where API servers have to show a certificate: who shows none, or somebody else's, is not heard."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kmseal.errors import Misconfigured
from kmseal.redacted import Redacted
from kmseal_webhook.authority import Certificate, Pair, issue, make_authority
from kmseal_webhook.gate import Patience
from kmseal_webhook.server import TlsServer
from kmseal_webhook.tls import ServingTls, read_client_ca

NAME = "localhost"
DAY = timedelta(days=1)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_where_client_certificates_are_asked_for_nobody_else_is_heard(
    tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    """A forged review without a certificate, or with one of another authority, reaches no reviewer."""
    now = datetime.now(UTC)
    ours, theirs = (make_authority(now, DAY) for _ in range(2))
    (tmp_path / "ca").write_bytes(ours.certificate.pem)
    tls, serving = ServingTls(read_client_ca(tmp_path / "ca", "--admission-client-ca")), make_authority(now, DAY)
    leaf = issue(serving, [NAME], now, DAY)
    tls.load(leaf.certificate.pem, leaf.key)
    heard: list[object] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.Response()

    server = TlsServer({"/mutate": hear}, tls, Patience(), on_refused=lambda reason: None)
    await server.start("127.0.0.1:0", "--listen")
    trust = ssl.create_default_context(cadata=serving.certificate.pem.decode())
    trust.maximum_version = newest
    url = f"https://{NAME}:{server.port}/mutate"
    review = {
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "operation": "CREATE", "namespace": "others", "kind": {"kind": "Pod"}, "object": {}},
    }  # fmt: skip
    async with session_of(trust) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(url, json=review)
    for authority, is_heard in ((theirs, False), (ours, True)):
        client = issue_for_client(authority, now)
        (tmp_path / "client").write_bytes(client.certificate.pem + client.key.reveal())
        trust.load_cert_chain(tmp_path / "client")
        async with session_of(trust) as session:
            if is_heard:
                async with session.post(url, json=review) as answer:
                    assert answer.status == 200
            else:
                with pytest.raises(aiohttp.ClientError):
                    await session.post(url, json=review)
        assert heard == [review] * is_heard
    await server.stop()


@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"\xff"])
def test_authorities_of_clients_that_cannot_be_read_are_a_misconfiguration(
    tmp_path: Path, content: bytes | None
) -> None:
    """Never a port that asks for no certificate; the flag is named."""
    if content is not None:
        (tmp_path / "ca").write_bytes(content)
    with pytest.raises(Misconfigured) as caught:
        read_client_ca(tmp_path / "ca", "--admission-client-ca")
    assert caught.value.field == "--admission-client-ca"


def session_of(trust: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))


def issue_for_client(authority: Pair, now: datetime) -> Pair:
    """What kube-apiserver shows: a certificate for client authentication."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_pem_private_key(authority.key.reveal(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")]))
        .issuer_name(authority.certificate.parsed().subject).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(Certificate.of(certificate), Redacted(pem))
