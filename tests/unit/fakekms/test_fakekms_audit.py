"""The trail and the counters: every request once, with who, what and how it ended, and never a plaintext."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import Misconfigured
from kmseal.fakekms import AuditRecord, AuditTrail, FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]


def test_a_record_says_who_did_what_to_which_key(fake: FakeKms, call: Call) -> None:
    """A record holds time, ids, identity, key, version, context, result and source."""
    arn, operator = fake.create_key(alias="alias/app"), fake.add_identity("operator")
    _, body = call("GenerateDataKey", by=operator, KeyId="alias/app", EncryptionContext={"namespace": "shop"})
    assert list(fake.audit) == [
        AuditRecord(
            time=fake.service.clock(),
            request_id=body["RequestId"],
            identity="operator",
            access_key_id=operator.access_key_id,
            region="cn-hangzhou",
            action="GenerateDataKey",
            result="Success",
            key_arn=arn,
            key_version_id=body["KeyVersionId"],
            context={"namespace": "shop"},
            source="127.0.0.1",
        )
    ]


def test_refused_requests_are_recorded(fake: FakeKms, call: Call) -> None:
    """A refusal is recorded with its code and with as much as was known."""
    arn, developer = fake.create_key(), fake.add_identity("developer", ("GenerateDataKey",))
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    call("Decrypt", by=developer, CiphertextBlob=blob)
    fake.disable(arn)
    call("Decrypt", CiphertextBlob=blob)
    assert [(record.identity, record.result, record.key_arn) for record in fake.audit.of("Decrypt")] == [
        ("developer", "Forbidden.NoPermission", ""),
        ("admin", "Rejected.Disabled", arn),
    ]


def test_re_encrypt_is_recorded_with_its_source(fake: FakeKms, call: Call) -> None:
    """The trail of a re-wrapping names the key and the version that it moves away from."""
    arn, other = fake.create_key(), fake.create_key()
    old = call("GenerateDataKey", KeyId=arn)[1]
    call("ReEncrypt", CiphertextBlob=old["CiphertextBlob"], DestinationKeyId=other)
    assert (fake.audit[-1].key_arn, fake.audit[-1].key_version_id) == (arn, old["KeyVersionId"])


def test_calls_are_counted_by_action_and_result(fake: FakeKms, call: Call) -> None:
    """The counters tell all calls of an action from those with one result, and start again at zero."""
    arn = fake.create_key()
    call("DescribeKey", KeyId=arn)
    call("DescribeKey", KeyId="alias/none")
    assert fake.calls["DescribeKey"] == 2
    assert fake.calls["DescribeKey", "Success"] == 1
    assert fake.calls["DescribeKey", "Forbidden.AliasNotFound"] == 1
    assert fake.calls["Decrypt"] == 0
    assert fake.calls.total == 2
    assert fake.calls.by_action() == {"DescribeKey": {"Forbidden.AliasNotFound": 1, "Success": 1}}
    fake.calls.clear()
    assert (fake.calls["DescribeKey"], fake.calls.total) == (0, 0)


async def test_no_plaintext_is_recorded(clock: Any, tmp_path: Path, sign: Callable[..., Any]) -> None:
    """Plaintexts, data keys, ciphertexts and secrets are neither in the trail nor in its file nor in any repr."""
    file = tmp_path / "audit.jsonl"
    kms = FakeKms(tls=False, clock=clock, audit_file=file)
    admin, arn = kms.add_identity("admin"), kms.create_key()

    def call(action: str, **parameters: Any) -> dict[str, Any]:
        request = sign(admin, action, parameters)
        requests.append(repr(request))
        return json.loads(kms.service.answer(request).content)

    requests: list[str] = []
    canary = base64.b64encode(b"canary-7c1d").decode()
    async with kms:
        sealed = call("Encrypt", KeyId=arn, Plaintext=canary)
        call("Decrypt", CiphertextBlob=sealed["CiphertextBlob"])
        call("Decrypt", CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"wrong": "one"})
        call("Encrypt", KeyId="alias/none", Plaintext=canary)
        data_key = call("GenerateDataKey", KeyId=arn)
        call("ReEncrypt", CiphertextBlob=data_key["CiphertextBlob"], DestinationKeyId=arn)
    shown = "\n".join([file.read_text(), repr(list(kms.audit)), repr(kms.key(arn)), repr(admin), *requests])
    assert len(file.read_text().splitlines()) == 6
    for secret in (canary, "canary", data_key["Plaintext"], sealed["CiphertextBlob"], admin.access_key_secret):
        assert secret not in shown
    assert repr(kms.key(arn).primary.material) not in shown


async def test_the_file_is_lines_of_json(clock: Any, tmp_path: Path, sign: Callable[..., Any]) -> None:
    """Records are appended to a file that only its owner reads, one JSON object a line, as soon as they are made."""
    file = tmp_path / "audit.jsonl"
    file.write_text('{"before": true}\n')
    file.chmod(0o600)
    async with FakeKms(tls=False, clock=clock, audit_file=file) as kms:
        kms.service.answer(sign(kms.add_identity("admin"), "ListKeys"))
        assert len(file.read_text().splitlines()) == 2
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == {"before": True}
    assert (lines[1]["action"], lines[1]["identity"], lines[1]["result"]) == ("ListKeys", "admin", "Success")
    new = tmp_path / "new.jsonl"
    async with FakeKms(tls=False, audit_file=new):
        pass
    assert new.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """A trail that cannot be kept is said at once."""
    with pytest.raises(Misconfigured, match="audit"):
        await FakeKms(tls=False, audit_file=tmp_path / "none" / "audit.jsonl").start()


def test_the_trail_forgets_the_oldest() -> None:
    """Memory holds the latest records only; the counters hold all."""
    trail = AuditTrail(limit=2)
    for number in range(3):
        trail.append(AuditRecord(number, str(number), "", "", "", "Decrypt", "Success"))
    assert [record.time for record in trail] == [1, 2]
    assert trail.calls["Decrypt"] == 3
    trail.clear()
    assert len(trail) == 0
