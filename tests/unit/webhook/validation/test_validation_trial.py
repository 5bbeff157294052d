"""What the trial of an EncryptedSecret finds, and what is made of it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kmseal.cluster.keys import Mode
from kmseal.cluster.reasons import Reason
from kmseal.envelope import DataKeyId
from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    KeyUnusable,
    KmsealError,
    Misconfigured,
    Refused,
    TemplateFailed,
    Throttled,
    Unauthentic,
    Unavailable,
)
from kmseal.manifest import Algorithm, EncryptedSecret, Wrapping
from kmseal.rewrapped import Rewrapped, digest
from kmseal_webhook.admission import Answer
from kmseal_webhook.validation import Validation

Json = dict[str, Any]
A, B = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "ab")


class Scripted:
    """A trial that has one answer, and keeps what it was asked."""

    def __init__(self, error: KmsealError | None) -> None:
        self.error = error
        self.asked: list[tuple[str, Sequence[Rewrapped]]] = []

    async def fault(self, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped]) -> KmsealError | None:
        self.asked.append((object_.name, rewrapped))
        return self.error


def changed(object_: Json, change: Callable[[Json], object]) -> Json:
    """A copy in which something is different."""
    copied = copy.deepcopy(object_)
    change(copied)
    return copied


@pytest.mark.parametrize(
    "error",
    [
        Refused("altered", field="spec.dataKeys[0]"),
        Unauthentic("altered", field="spec.encryptedData.password"),
        TemplateFailed("x", field="spec.target.data.a"),
        AccessDenied("kms:Decrypt is not granted", field="spec.dataKeys[0]"),
        KeyUnusable("there is no such key", reason="KeyNotFound", field="spec.dataKeys[0]"),
    ],
)
async def test_what_does_not_open_is_refused(bench: Any, error: KmsealError) -> None:
    """As the trial said it."""
    validation = Validation(bench.rules(), trial=Scripted(error))
    assert await bench.refusal(bench.manifest(), validation=validation) is error


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("KMS is down", field="spec.dataKeys[0]"),
        Throttled("slower"),
        BadCredentials("expired", field="spec.dataKeys[0]"),
        Misconfigured("no credentials"),
        KeyUnusable("disabled", reason="KeyDisabled", field="spec.dataKeys[0]"),
        KeyUnusable("unexplained", field="spec.dataKeys[0]"),
    ],
)
async def test_a_fault_or_a_quota_never_refuses(bench: Any, error: KmsealError) -> None:
    """Nor does the state of a key, or our own credentials: the field and the cause are a warning."""
    answer = await bench.judge(bench.manifest(), validation=Validation(bench.rules(), trial=Scripted(error)))
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.dataKeys")
    assert error.message in answer.warnings[0]


async def test_nothing_is_opened_unless_data_keys_are_new(bench: Any) -> None:
    """A creation, or a change of data keys; not one of metadata, target or values."""
    trial = Scripted(None)
    validation = Validation(bench.rules(), trial=trial)
    old = bench.manifest(values=("password",))
    await bench.judge(old, validation=validation)
    assert len(trial.asked) == 1
    for change in (
        lambda raw: raw["metadata"].update(labels={"a": "b"}),
        lambda raw: raw["spec"].update(target={"type": "x"}),
        lambda raw: raw["spec"].update(encryptedData=bench.manifest(values=("user",))["spec"]["encryptedData"]),
    ):
        assert (await bench.judge(changed(old, change), old, validation=validation)) == Answer(allowed=True)
    assert len(trial.asked) == 1
    await bench.judge(bench.manifest(B), old, validation=validation)
    assert len(trial.asked) == 2


async def test_an_object_that_is_refused_anyway_is_not_opened(bench: Any) -> None:
    """What costs nothing is judged first."""
    trial = Scripted(None)
    await bench.refusal(bench.manifest(A), validation=Validation(bench.rules(Mode.REGISTERED), trial=trial))
    assert trial.asked == []


async def test_a_data_key_that_was_there_before_is_no_cause_to_refuse(bench: Any) -> None:
    """Adding another one to an object whose first key is lost is admitted, with a warning."""
    old = bench.manifest(A)
    new = changed(old, lambda raw: raw["spec"]["dataKeys"].append(raw["spec"]["dataKeys"][0] | {"id": "bbbb"}))
    gone = KeyUnusable("there is no such key", reason="KeyNotFound", field="spec.dataKeys[0]")
    answer = await bench.judge(new, old, validation=Validation(bench.rules(), trial=Scripted(gone)))
    assert answer.allowed
    assert "there is no such key" in answer.warnings[0]


async def test_what_the_rules_say_is_said_once(bench: Any) -> None:
    """The trial goes through them as well."""
    validation = Validation(
        bench.rules(Mode.REGISTERED), trial=Scripted(AccessDenied("x", reason=Reason.KEY_NOT_REGISTERED))
    )
    old = bench.manifest(A)
    new = changed(old, lambda raw: raw["spec"]["dataKeys"].append(raw["spec"]["dataKeys"][0] | {"id": "bbbb"}))
    answer = await bench.judge(new, old, validation=validation)
    assert answer.allowed
    assert len(answer.warnings) == 1


async def test_the_trial_gets_the_newer_wrappings_of_the_status(bench: Any) -> None:
    """An object of which a rotation has moved the wrappings opens as the operator opens it."""
    trial = Scripted(None)
    old = bench.manifest(A)
    replaced = Wrapping.parse(old["spec"]["dataKeys"][0]["wrappings"][0])
    newer = Rewrapped(DataKeyId("aaaa"), digest(replaced), Wrapping(A, "v2", Algorithm.KMS_SYMMETRIC, b"newer"))
    new = changed(bench.manifest(A, B), lambda raw: raw.update(status={"rewrapped": [newer.to_dict()]}))
    await bench.judge(new, old, validation=Validation(bench.rules(), trial=trial))
    assert trial.asked == [("db", (newer,))]
