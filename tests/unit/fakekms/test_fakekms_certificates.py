"""The certificates: strict clients accept them, files are kept and renewed, the key is private."""

import asyncio
import ssl
from pathlib import Path

import pytest

from kmseal.errors import Misconfigured
from kmseal.fakekms import FakeKms
from kmseal.fakekms.certificates import TlsFiles, ensure_certificates


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "kms.example"])
async def test_a_strict_client_accepts_the_certificate(tmp_path: Path, name: str) -> None:
    """The chain verifies under the strict X.509 rules, for loopback and for a name that was asked for."""
    async with FakeKms(folder=tmp_path, names=("kms.example",)) as kms:
        context = ssl.create_default_context(cafile=kms.ca_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        host, _, port = kms.endpoint().rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
        writer.close()
        await writer.wait_closed()


async def test_another_name_is_not_covered(tmp_path: Path) -> None:
    """The certificate is good for the names it was made for, and for no others."""
    async with FakeKms(folder=tmp_path) as kms:
        context = ssl.create_default_context(cafile=kms.ca_file)
        host, _, port = kms.endpoint().rpartition(":")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(host, int(port), ssl=context, server_hostname="other.example")


def test_good_files_are_used_again(tmp_path: Path) -> None:
    """What is there stays, so that clients keep their authority; a further name makes new files."""
    first = ensure_certificates(tmp_path, ("kms.example",))
    before = first.ca_file.read_bytes()
    assert ensure_certificates(tmp_path).ca_file.read_bytes() == before
    assert ensure_certificates(tmp_path, ("other.example",)).ca_file.read_bytes() != before


def test_only_the_servers_key_is_kept_and_private(tmp_path: Path) -> None:
    """The authority's key is not kept, and the server's is readable by its owner only."""
    files = ensure_certificates(tmp_path)
    assert files.key_file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "server-key.pem", "server.pem"]


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    """Files may be given; ones that do not fit together stop the start."""
    one, other = ensure_certificates(tmp_path / "one"), ensure_certificates(tmp_path / "other")
    async with FakeKms(tls_files=one) as kms:
        assert kms.ca_file == one.ca_file
    mixed = TlsFiles(one.ca_file, one.certificate_file, other.key_file)
    with pytest.raises(Misconfigured, match="certificates"):
        await FakeKms(tls_files=mixed).start()


async def test_without_tls_there_is_no_authority() -> None:
    """Plain HTTP has no certificate authority to name."""
    async with FakeKms(tls=False) as kms:
        with pytest.raises(Misconfigured, match="plain HTTP"):
            _ = kms.ca_file
