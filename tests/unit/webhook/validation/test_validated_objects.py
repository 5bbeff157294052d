"""What is refused and let pass when an EncryptedSecret is created or changed: its form, and the rules of KMSKeys."""

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kmseal.cluster.keys import Mode
from kmseal.cluster.reasons import Reason
from kmseal.envelope import Scope
from kmseal.errors import Malformed, TemplateFailed, WrongBinding
from kmseal_webhook.admission import Answer
from kmseal_webhook.parsing import TemplateChecks
from kmseal_webhook.validation import Validation

Json = dict[str, Any]
A, B = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "ab")


def changed(object_: Json, change: Callable[[Json], object]) -> Json:
    """A copy in which something is different."""
    copied = copy.deepcopy(object_)
    change(copied)
    return copied


async def test_a_good_object_is_admitted_without_a_word(bench: Any) -> None:
    """Of each scope, and with the members that an API server adds."""
    for scope in Scope:
        raw = bench.manifest(scope=scope)
        raw["metadata"] |= {"uid": "u", "managedFields": [], "resourceVersion": "1"}
        assert await bench.judge(raw) == Answer(allowed=True)


async def test_what_the_schema_cannot_see_is_refused(bench: Any) -> None:
    """Base64 that is not canonical: the parser's field, reason and remedy reach the user."""
    raw = bench.manifest()
    raw["spec"]["dataKeys"][0]["wrappings"][0]["wrapped"] = "AB=="
    error = await bench.refusal(raw)
    assert (type(error), error.field) == (Malformed, "spec.dataKeys[0].wrappings[0].wrapped")
    assert error.remedy


async def test_an_object_of_another_namespace_is_refused(bench: Any) -> None:
    """The schema does not see metadata.namespace: here it is compared, without any key."""
    raw = bench.manifest(namespace="prod")
    raw["metadata"]["namespace"] = "test"
    error = await bench.refusal(raw)
    assert (type(error), error.field) == (WrongBinding, "spec.dataKeys[0].sealedFor")
    assert "test" in str(error)
    assert "prod" in str(error)


async def test_a_line_under_another_name_is_refused(bench: Any) -> None:
    """The value's own check says so; the message names the value and quotes none of it."""
    raw = bench.manifest(values=("password", "user"))
    lines = raw["spec"]["encryptedData"]
    lines["password"], lines["user"] = lines["user"], lines["password"]
    error = await bench.refusal(raw)
    assert (type(error), error.field) == (WrongBinding, "spec.encryptedData.password")
    assert lines["password"].rpartition(".")[2] not in str(error)


@pytest.mark.parametrize(
    "template",
    ["{{ values.password", "{% for x in values %}{% endfor %}", "{{ password }}", "{{ values.password | hash }}"],
)
async def test_a_template_that_can_never_be_rendered_is_refused(bench: Any, template: str) -> None:
    """Before anything is opened, with the template's own path."""
    raw = bench.manifest(target={"data": {"good": "{{ values.password }}", "app.conf": template}})
    error = await bench.refusal(raw)
    assert (type(error), error.field) == (TemplateFailed, 'spec.target.data["app.conf"]')


async def test_a_template_that_depends_on_values_is_admitted(bench: Any) -> None:
    """Whether it renders is known only with them."""
    raw = bench.manifest(
        target={"data": {"a": "{{ values.password | b64decode }}{% if values.x is defined %}y{% endif %}"}}
    )
    assert (await bench.judge(raw)).allowed


async def test_templates_that_nobody_has_time_to_read_are_a_warning(bench: Any) -> None:
    """The operator reads them again; nothing is refused for a fault of ours."""
    held = threading.Event()

    def read(templates: Mapping[str, str]) -> None:
        held.wait()

    checks = TemplateChecks(seconds=0.01, check=read)
    try:
        answer = await bench.judge(
            bench.manifest(target={"data": {"a": "x"}}), validation=Validation(bench.rules(), templates=checks)
        )
    finally:
        held.set()
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.target.data: the templates were not read within")


# What is none of its business


async def test_nothing_else_is_judged(bench: Any) -> None:
    """Deletions, other kinds, and an object without form at both."""
    wrong: Json = {"metadata": {"name": "db"}, "spec": {}}
    for other in (
        bench.request({}, wrong, operation="DELETE"),
        bench.request(wrong, operation="CONNECT"),
        bench.request(wrong, kind="KMSKey"),
    ):
        assert await Validation(bench.rules()).review(other) == Answer(allowed=True)


async def test_an_object_that_is_wrong_already_can_still_be_labelled_and_released(bench: Any) -> None:
    """Metadata and status are no cause to judge; so GitOps and garbage collection never hang on it."""
    wrong = changed(bench.manifest(), lambda raw: raw["spec"].update(encryptedData={"password": "v1.aaaa.x"}))
    for change in (
        lambda raw: raw["metadata"].update(labels={"a": "b"}),
        lambda raw: raw["metadata"].update(finalizers=[]),
        lambda raw: raw.update(status={"observedGeneration": 2}),
    ):
        assert (await bench.judge(changed(wrong, change), wrong)).allowed
    assert (await bench.refusal(changed(wrong, lambda raw: raw["spec"].update(suspend=True)), wrong)).field


async def test_an_object_that_is_being_deleted_is_not_judged(bench: Any) -> None:
    """Whoever removes its finalizers may change more at once."""
    old = bench.manifest()
    gone = changed(old, lambda raw: raw["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    gone["spec"] = {}
    assert (await bench.judge(gone, old)).allowed


# The rules of KMSKeys


async def test_a_key_that_its_kmskey_denies_is_refused(bench: Any) -> None:
    """The message names the data key, the KMSKey, the namespace, and who can help."""
    validation = Validation(bench.rules(one={"keyId": A, "allowedNamespaces": {"names": ["test"]}}))
    error = await bench.refusal(bench.manifest(A), validation=validation)
    assert (error.reason, error.field) == (Reason.NAMESPACE_NOT_ALLOWED, "spec.dataKeys[0]")
    assert "KMSKey one does not allow namespace prod" in str(error)


async def test_an_unregistered_key_is_refused_in_registered_mode_only(bench: Any) -> None:
    """Off reads no KMSKeys at all."""
    validation = Validation(bench.rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await bench.refusal(bench.manifest(A), validation=validation)).reason == Reason.KEY_NOT_REGISTERED
    assert (await bench.judge(bench.manifest(B), validation=validation)) == Answer(allowed=True)
    for mode in (Mode.OPEN, Mode.OFF):
        assert (await bench.judge(bench.manifest(A), validation=Validation(bench.rules(mode)))) == Answer(allowed=True)


async def test_one_wrapping_that_may_be_opened_is_enough(bench: Any) -> None:
    """A second region's wrapping under a key that is not registered here does no harm."""
    validation = Validation(bench.rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await bench.judge(bench.manifest(A, B), validation=validation)) == Answer(allowed=True)


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "PendingImport"])
async def test_a_key_that_is_shut_is_a_warning(bench: Any, state: str) -> None:
    """It may come back, and the object then heals by itself: also beside another one that is denied for good."""
    validation = Validation(bench.rules(Mode.REGISTERED, one={"keyId": A, "state": state}))
    for raw in (bench.manifest(A), bench.manifest(B, A)):
        answer = await bench.judge(raw, validation=validation)
        assert answer.allowed
        assert answer.warnings[0].startswith(f"spec.dataKeys[0]: {A} is {state}")


async def test_a_kmskey_that_cannot_be_read_is_a_warning(bench: Any) -> None:
    """It is the administrator's to correct, not the object's author's."""
    answer = await bench.judge(bench.manifest(A), validation=Validation(bench.rules(one={"keyId": A, "unknown": 1})))
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.dataKeys[0]: the KMSKey one cannot be read")


async def test_a_data_key_that_no_value_names_is_not_judged(bench: Any) -> None:
    """It is never opened."""
    raw = bench.manifest(B)
    unused = bench.manifest(A)["spec"]["dataKeys"][0] | {"id": "bbbb"}
    raw["spec"]["dataKeys"].insert(0, unused)
    validation = Validation(bench.rules(Mode.REGISTERED, one={"keyId": B}))
    assert (await bench.judge(raw, validation=validation)) == Answer(allowed=True)


async def test_an_update_that_leaves_a_denied_data_key_alone_is_admitted_with_a_warning(bench: Any) -> None:
    """So an object can be suspended after a rule has changed; a data key that is new or altered is refused."""
    validation = Validation(bench.rules(Mode.REGISTERED))
    old = bench.manifest(A)
    answer = await bench.judge(changed(old, lambda raw: raw["spec"].update(suspend=True)), old, validation=validation)
    assert answer.allowed
    assert answer.warnings[0].startswith(f"spec.dataKeys[0]: {A} is not registered")
    altered = changed(old, lambda raw: raw["spec"]["dataKeys"][0]["wrappings"][0].update(keyVersionId="v2"))
    assert (await bench.refusal(altered, old, validation=validation)).field == "spec.dataKeys[0]"
