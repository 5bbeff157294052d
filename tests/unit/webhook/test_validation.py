"""What is refused, warned of and let pass when an EncryptedSecret is created or changed."""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.reasons import Reason
from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value
from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    KeyUnusable,
    KmsealError,
    Malformed,
    Misconfigured,
    Refused,
    TemplateFailed,
    Throttled,
    Unauthentic,
    Unavailable,
    WrongBinding,
)
from kmseal.kube import Resource
from kmseal.manifest import Algorithm, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, digest
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.validation import WARNING_CHARS_MAX, Validation

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


class Stored:
    """The objects of the API server by namespace and name."""

    def __init__(self, *manifests: Json) -> None:
        self.objects = {(m["metadata"]["namespace"], m["metadata"]["name"]): m for m in manifests}
        self.reads: list[str] = []

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        self.reads.append(name)
        return self.objects.get((namespace or "", name))


class Down:
    """An API server that does not answer."""

    def __init__(self, error: KmsealError | None) -> None:
        self.error = error

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        if self.error:
            raise self.error
        await asyncio.Event().wait()
        return None


def manifest(
    *key_ids: str, name: str = "db", namespace: str = "prod", values: Sequence[str] = ("password",),
    scope: Scope = Scope.STRICT, **spec: Any,
) -> Json:  # fmt: skip
    """An object whose one data key is wrapped by each of these keys."""
    place, id_ = Place.of(scope, namespace, name), DataKeyId("aaaa")
    lines = {value: encrypt_value(Redacted(b"k" * 32), id_, place, value, Redacted(b"x")).line() for value in values}
    wrappings = [Wrapping(key, "v1", Algorithm.KMS_SYMMETRIC, b"wrapped").to_dict() for key in key_ids or (A,)]
    return {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scope": scope.value,
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": wrappings}],
            "encryptedData": lines,
            **spec,
        },
    }


def rules(mode: Mode = Mode.OPEN, **kmskeys: Json) -> Keys:
    """The KMSKeys of a cluster, by name their spec, with ``state`` for the status."""
    keys = Keys(mode, Listeners(lambda keys: None, lambda namespace: None, lambda name: None))
    for version, (name, spec) in enumerate(kmskeys.items(), 1):
        state = spec.pop("state", "Enabled")
        keys.observe(
            {
                "apiVersion": "kmseal.dev/v1alpha1",
                "kind": "KMSKey",
                "metadata": {"name": name, "uid": name, "resourceVersion": str(version)},
                "spec": spec,
                "status": {"state": state},
            }
        )
    return keys


def request(object_: Json, old: Json | None = None, *, operation: str = "", kind: str = "EncryptedSecret") -> Any:
    return AdmissionRequest(
        uid="1", operation=operation or ("UPDATE" if old else "CREATE"), kind=kind, namespace="prod",
        name="db", object=object_, old=old, user="somebody", dry_run=False,
    )  # fmt: skip


async def judge(object_: Json, old: Json | None = None, *, validation: Validation | None = None) -> Answer:
    return await (validation or Validation(rules())).review(request(object_, old))


async def refusal(object_: Json, old: Json | None = None, *, validation: Validation | None = None) -> KmsealError:
    """The error that refuses the object; its message starts with the field."""
    with pytest.raises(KmsealError) as caught:
        await judge(object_, old, validation=validation)
    assert str(caught.value).startswith(f"{caught.value.field}: ")
    return caught.value


def changed(object_: Json, change: Callable[[Json], object]) -> Json:
    """A copy in which something is different."""
    copied = copy.deepcopy(object_)
    change(copied)
    return copied


# What is wrong with an object by itself


async def test_a_good_object_is_admitted_without_a_word() -> None:
    """Of each scope, and with the members that an API server adds."""
    for scope in Scope:
        raw = manifest(scope=scope)
        raw["metadata"] |= {"uid": "u", "managedFields": [], "resourceVersion": "1"}
        assert await judge(raw) == Answer(allowed=True)


async def test_what_the_schema_cannot_see_is_refused() -> None:
    """Base64 that is not canonical: the parser's field, reason and remedy reach the user."""
    raw = manifest()
    raw["spec"]["dataKeys"][0]["wrappings"][0]["wrapped"] = "AB=="
    error = await refusal(raw)
    assert (type(error), error.field) == (Malformed, "spec.dataKeys[0].wrappings[0].wrapped")
    assert error.remedy


async def test_an_object_of_another_namespace_is_refused() -> None:
    """The schema does not see metadata.namespace: here it is compared, without any key."""
    raw = manifest(namespace="prod")
    raw["metadata"]["namespace"] = "test"
    error = await refusal(raw)
    assert (type(error), error.field) == (WrongBinding, "spec.dataKeys[0].sealedFor")
    assert "test" in str(error)
    assert "prod" in str(error)


async def test_a_line_under_another_name_is_refused() -> None:
    """The value's own check says so; the message names the value and quotes none of it."""
    raw = manifest(values=("password", "user"))
    lines = raw["spec"]["encryptedData"]
    lines["password"], lines["user"] = lines["user"], lines["password"]
    error = await refusal(raw)
    assert (type(error), error.field) == (WrongBinding, "spec.encryptedData.password")
    assert lines["password"].rpartition(".")[2] not in str(error)


@pytest.mark.parametrize(
    "template",
    ["{{ values.password", "{% for x in values %}{% endfor %}", "{{ password }}", "{{ values.password | hash }}"],
)
async def test_a_template_that_can_never_be_rendered_is_refused(template: str) -> None:
    """Before anything is opened, with the template's own path."""
    raw = manifest(target={"data": {"good": "{{ values.password }}", "app.conf": template}})
    error = await refusal(raw)
    assert (type(error), error.field) == (TemplateFailed, 'spec.target.data["app.conf"]')


async def test_a_template_that_depends_on_values_is_admitted() -> None:
    """Whether it renders is known only with them."""
    raw = manifest(target={"data": {"a": "{{ values.password | b64decode }}{% if values.x is defined %}y{% endif %}"}})
    assert (await judge(raw)).allowed


# What is none of its business


async def test_nothing_else_is_judged() -> None:
    """Deletions, other kinds, and an object without form at both."""
    wrong: Json = {"metadata": {"name": "db"}, "spec": {}}
    for other in (
        request({}, wrong, operation="DELETE"),
        request(wrong, operation="CONNECT"),
        request(wrong, kind="KMSKey"),
    ):
        assert await Validation(rules()).review(other) == Answer(allowed=True)


async def test_an_object_that_is_wrong_already_can_still_be_labelled_and_released() -> None:
    """Metadata and status are no cause to judge; so GitOps and garbage collection never hang on it."""
    wrong = changed(manifest(), lambda raw: raw["spec"].update(encryptedData={"password": "v1.aaaa.x"}))
    for change in (
        lambda raw: raw["metadata"].update(labels={"a": "b"}),
        lambda raw: raw["metadata"].update(finalizers=[]),
        lambda raw: raw.update(status={"observedGeneration": 2}),
    ):
        assert (await judge(changed(wrong, change), wrong)).allowed
    assert (await refusal(changed(wrong, lambda raw: raw["spec"].update(suspend=True)), wrong)).field


async def test_an_object_that_is_being_deleted_is_not_judged() -> None:
    """Whoever removes its finalizers may change more at once."""
    old = manifest()
    gone = changed(old, lambda raw: raw["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    gone["spec"] = {}
    assert (await judge(gone, old)).allowed


# The rules of KMSKeys


async def test_a_key_that_its_kmskey_denies_is_refused() -> None:
    """The message names the data key, the KMSKey, the namespace, and who can help."""
    validation = Validation(rules(one={"keyId": A, "allowedNamespaces": {"names": ["test"]}}))
    error = await refusal(manifest(A), validation=validation)
    assert (error.reason, error.field) == (Reason.NAMESPACE_NOT_ALLOWED, "spec.dataKeys[0]")
    assert "KMSKey one does not allow namespace prod" in str(error)


async def test_an_unregistered_key_is_refused_in_registered_mode_only() -> None:
    """Off reads no KMSKeys at all."""
    validation = Validation(rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await refusal(manifest(A), validation=validation)).reason == Reason.KEY_NOT_REGISTERED
    assert (await judge(manifest(B), validation=validation)) == Answer(allowed=True)
    for mode in (Mode.OPEN, Mode.OFF):
        assert (await judge(manifest(A), validation=Validation(rules(mode)))) == Answer(allowed=True)


async def test_one_wrapping_that_may_be_opened_is_enough() -> None:
    """A second region's wrapping under a key that is not registered here does no harm."""
    validation = Validation(rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await judge(manifest(A, B), validation=validation)) == Answer(allowed=True)


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "PendingImport"])
async def test_a_key_that_is_shut_is_a_warning(state: str) -> None:
    """It may come back, and the object then heals by itself: also beside another one that is denied for good."""
    validation = Validation(rules(Mode.REGISTERED, one={"keyId": A, "state": state}))
    for raw in (manifest(A), manifest(B, A)):
        answer = await judge(raw, validation=validation)
        assert answer.allowed
        assert answer.warnings[0].startswith(f"spec.dataKeys[0]: {A} is {state}")


async def test_a_kmskey_that_cannot_be_read_is_a_warning() -> None:
    """It is the administrator's to correct, not the object's author's."""
    answer = await judge(manifest(A), validation=Validation(rules(one={"keyId": A, "unknown": 1})))
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.dataKeys[0]: the KMSKey one cannot be read")


async def test_a_data_key_that_no_value_names_is_not_judged() -> None:
    """It is never opened."""
    raw = manifest(B)
    unused = manifest(A)["spec"]["dataKeys"][0] | {"id": "bbbb"}
    raw["spec"]["dataKeys"].insert(0, unused)
    validation = Validation(rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await judge(raw, validation=validation)) == Answer(allowed=True)


async def test_an_update_that_leaves_a_denied_data_key_alone_is_admitted_with_a_warning() -> None:
    """So an object can be suspended after a rule has changed; a data key that is new or altered is refused."""
    validation = Validation(rules(Mode.REGISTERED))
    old = manifest(A)
    answer = await judge(changed(old, lambda raw: raw["spec"].update(suspend=True)), old, validation=validation)
    assert answer.allowed
    assert answer.warnings[0].startswith(f"spec.dataKeys[0]: {A} is not registered")
    altered = changed(old, lambda raw: raw["spec"]["dataKeys"][0]["wrappings"][0].update(keyVersionId="v2"))
    assert (await refusal(altered, old, validation=validation)).field == "spec.dataKeys[0]"


# Warnings


async def test_a_name_that_no_variable_can_have_is_a_warning() -> None:
    """It may be meant as a file. What counts are the names that the target has."""
    answer = await judge(manifest(values=("1st", "2nd", "tls.crt", "-x")))
    assert answer.allowed
    assert answer.warnings[0].startswith('spec.encryptedData["1st"]: no environment variable')
    assert "(and 1 more)" in answer.warnings[0]
    answer = await judge(manifest(values=("1st",), target={"data": {"first": "x"}}))
    assert answer.warnings == ()
    answer = await judge(manifest(target={"data": {"2": "x"}}))
    assert answer.warnings[0].startswith('spec.target.data["2"]: ')


async def test_a_warning_is_cut_to_what_the_api_server_shows() -> None:
    """A long name takes the room of the rest."""
    answer = await judge(manifest(values=("1" * 253,)))
    assert [len(warning) for warning in answer.warnings] == [WARNING_CHARS_MAX]


async def test_an_object_that_is_called_like_the_target_is_a_warning() -> None:
    """Both would own one Secret; a read is made only where target.name is not the object's own."""
    stored = Stored(manifest(name="shared"), manifest(name="db"))
    validation = Validation(rules(), reader=stored)
    answer = await judge(manifest(target={"name": "shared"}), validation=validation)
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.target.name: the EncryptedSecret shared makes a Secret of this name")
    assert (await judge(manifest(), validation=validation)).warnings == ()
    assert stored.reads == ["shared"]


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ({"creationPolicy": "Merge"}, {}),
        ({}, {"target": {"creationPolicy": "Merge"}}),
        ({}, {"target": {"name": "elsewhere"}}),
        ({}, {"delivery": "Inject"}),
        ({}, {"encryptedData": {}}),
    ],
)
async def test_objects_that_share_no_secret_are_no_warning(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Several may merge into one Secret; others have another target or none, or cannot be read."""
    validation = Validation(rules(), reader=Stored(changed(manifest(name="shared"), lambda m: m["spec"].update(other))))
    answer = await judge(manifest(target={"name": "shared", **mine}), validation=validation)
    assert answer == Answer(allowed=True)


async def test_the_target_is_looked_up_only_when_it_changes() -> None:
    """A change of values costs no read."""
    stored = Stored(manifest(name="shared"))
    old = manifest(target={"name": "shared"})
    answer = await judge(
        changed(old, lambda raw: raw["spec"].update(suspend=True)), old, validation=Validation(rules(), reader=stored)
    )
    assert (answer, stored.reads) == (Answer(allowed=True), [])


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no"), None])
async def test_an_api_server_that_does_not_answer_costs_only_the_warning(error: KmsealError | None) -> None:
    """At once, or when the time of the look-up is over."""
    validation = Validation(rules(), reader=Down(error), lookup_seconds=0.01)
    assert await judge(manifest(target={"name": "shared"}), validation=validation) == Answer(allowed=True)


# The trial


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
async def test_what_does_not_open_is_refused(error: KmsealError) -> None:
    """As the trial said it."""
    validation = Validation(rules(), trial=Scripted(error))
    assert await refusal(manifest(), validation=validation) is error


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
async def test_a_fault_or_a_quota_never_refuses(error: KmsealError) -> None:
    """Nor does the state of a key, or our own credentials: the field and the cause are a warning."""
    answer = await judge(manifest(), validation=Validation(rules(), trial=Scripted(error)))
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.dataKeys")
    assert error.message in answer.warnings[0]


async def test_nothing_is_opened_unless_data_keys_are_new() -> None:
    """A creation, or a change of data keys; not one of metadata, target or values."""
    trial = Scripted(None)
    validation = Validation(rules(), trial=trial)
    old = manifest(values=("password",))
    await judge(old, validation=validation)
    assert len(trial.asked) == 1
    for change in (
        lambda raw: raw["metadata"].update(labels={"a": "b"}),
        lambda raw: raw["spec"].update(target={"type": "x"}),
        lambda raw: raw["spec"].update(encryptedData=manifest(values=("user",))["spec"]["encryptedData"]),
    ):
        assert (await judge(changed(old, change), old, validation=validation)) == Answer(allowed=True)
    assert len(trial.asked) == 1
    await judge(manifest(B), old, validation=validation)
    assert len(trial.asked) == 2


async def test_an_object_that_is_refused_anyway_is_not_opened() -> None:
    """What costs nothing is judged first."""
    trial = Scripted(None)
    await refusal(manifest(A), validation=Validation(rules(Mode.REGISTERED), trial=trial))
    assert trial.asked == []


async def test_a_data_key_that_was_there_before_is_no_cause_to_refuse() -> None:
    """Adding another one to an object whose first key is lost is admitted, with a warning."""
    old = manifest(A)
    new = changed(old, lambda raw: raw["spec"]["dataKeys"].append(raw["spec"]["dataKeys"][0] | {"id": "bbbb"}))
    gone = KeyUnusable("there is no such key", reason="KeyNotFound", field="spec.dataKeys[0]")
    answer = await judge(new, old, validation=Validation(rules(), trial=Scripted(gone)))
    assert answer.allowed
    assert "there is no such key" in answer.warnings[0]


async def test_what_the_rules_say_is_said_once() -> None:
    """The trial goes through them as well."""
    validation = Validation(rules(Mode.REGISTERED), trial=Scripted(AccessDenied("x", reason=Reason.KEY_NOT_REGISTERED)))
    old = manifest(A)
    new = changed(old, lambda raw: raw["spec"]["dataKeys"].append(raw["spec"]["dataKeys"][0] | {"id": "bbbb"}))
    answer = await judge(new, old, validation=validation)
    assert answer.allowed
    assert len(answer.warnings) == 1


async def test_the_trial_gets_the_newer_wrappings_of_the_status() -> None:
    """An object of which a rotation has moved the wrappings opens as the operator opens it."""
    trial = Scripted(None)
    old = manifest(A)
    replaced = Wrapping.parse(old["spec"]["dataKeys"][0]["wrappings"][0])
    newer = Rewrapped(DataKeyId("aaaa"), digest(replaced), Wrapping(A, "v2", Algorithm.KMS_SYMMETRIC, b"newer"))
    new = changed(manifest(A, B), lambda raw: raw.update(status={"rewrapped": [newer.to_dict()]}))
    await judge(new, old, validation=Validation(rules(), trial=trial))
    assert trial.asked == [("db", (newer,))]
