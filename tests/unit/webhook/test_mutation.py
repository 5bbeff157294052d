"""Mutation: which pods are touched, what is read for them, and what is said when it cannot be."""

import asyncio
import copy
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from kmseal.cluster.templates import TEMPLATES_CHARACTERS_MAX
from kmseal.envelope import Place, Scope, encode_base64, encrypt_value, new_data_key_id
from kmseal.errors import KmsealError, Malformed, Refused, TemplateFailed, Unavailable
from kmseal.kube import Resource
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import PREFIX
from kmseal_webhook.mutation import WARNING_CHARS_MAX, Mutation
from kmseal_webhook.parsing import TemplateChecks

Json = dict[str, Any]
SETTINGS = AgentSettings(
    image="agent:1",
    broker="https://broker.example:443",
    server_name="broker.example",
    ca=None,
    server_version=(1, 37),
    oldest_kubelet=(1, 37),
)


def sealed(name: str, *values: str, **spec: Any) -> Json:
    """An EncryptedSecret of the namespace ``team``."""
    place, id_, key = Place.of(Scope.STRICT, "team", name), new_data_key_id(), Redacted(bytes(32))
    wrapping = {
        "keyId": "local:test",
        "keyVersionId": "1",
        "algorithm": "LOCAL_AES_256_GCM",
        "wrapped": encode_base64(bytes(60)),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": "team"},
        "spec": {
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [wrapping]}],
            "encryptedData": {v: encrypt_value(key, id_, place, v, Redacted(b"x")).line() for v in values},
            **spec,
        },
    }


class Shelf:
    """EncryptedSecrets of one namespace, or an error in place of one; None of a name never answers."""

    def __init__(self, **objects: Json | KmsealError | None) -> None:
        self._objects = objects
        self.read: list[tuple[str | None, str]] = []

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        assert resource.kind == KIND
        self.read.append((namespace, name))
        if name not in self._objects:
            return None
        found = self._objects[name]
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, KmsealError):
            raise found
        return found


def request(annotations: Mapping[str, str], **changes: Any) -> AdmissionRequest:
    pod = {
        # As admission sends a pod of a controller: without a name, and without its namespace.
        "metadata": {"generateName": "web-", "annotations": {PREFIX + k: v for k, v in annotations.items()}},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app:1"}]},
    }
    fields = {
        "uid": "u", "operation": "CREATE", "kind": "Pod", "namespace": "team", "name": "", "object": pod, "old": None,
        "user": "somebody", "dry_run": False,
    }  # fmt: skip
    return AdmissionRequest(**{**fields, **changes})


async def reviewed(shelf: Shelf, admission: AdmissionRequest) -> Answer:
    return await Mutation(shelf, lambda: SETTINGS).review(admission)


def patched(admission: AdmissionRequest, answer: Answer) -> Json:
    assert answer.patch
    return dict(jsonpatch.apply_patch(copy.deepcopy(admission.object), answer.patch))


async def test_a_pod_is_patched() -> None:
    """An annotated pod is allowed with a patch, and with files alone nothing is read for it."""
    shelf, admission = Shelf(), request({"inject": "db"})
    answer = await reviewed(shelf, admission)
    assert answer.allowed
    pod = patched(admission, answer)
    assert pod["spec"]["initContainers"][0]["name"] == "kmseal-init"
    assert shelf.read == []


@pytest.mark.parametrize(
    "admission",
    [
        request({}),
        request({"injected": "0123456789abcdef"}),
        request({"inject": "db"}, operation="UPDATE"),
        request({"inject": "db"}, kind="Deployment"),
        request({}, object={"metadata": {}, "spec": {}}),
    ],
    ids=["not-annotated", "leftover", "update", "other-kind", "no-annotations"],
)
async def test_others_are_not_touched(admission: AdmissionRequest) -> None:
    """What is not a new pod that asks for injection is let through as it is."""
    assert await reviewed(Shelf(), admission) == Answer(allowed=True)


async def test_names_of_values_are_read_where_needed() -> None:
    """Only objects whose values a pod takes by name are read, from the namespace of the request."""
    shelf = Shelf(db=sealed("db", "user", "password"), cache=sealed("cache", "url"))
    admission = request({"inject": "db,cache,other", "as.db": "env", "names.cache": "url=URL"})
    answer = await reviewed(shelf, admission)
    assert sorted(shelf.read) == [("team", "cache"), ("team", "db")]
    pod = patched(admission, answer)
    assert [variable["name"] for variable in pod["spec"]["containers"][0]["env"]] == ["password", "user"]


async def test_names_of_templates() -> None:
    """Where the object has templates, theirs are the names that there are."""
    shelf = Shelf(db=sealed("db", "user", target={"data": {"URL": "postgres://{{ values.user }}@db"}}))
    admission = request({"inject": "db", "as": "env"})
    pod = patched(admission, await reviewed(shelf, admission))
    assert [variable["name"] for variable in pod["spec"]["containers"][0]["env"]] == ["URL"]


async def test_an_object_that_is_not_there() -> None:
    """A missing object is named, with what to do."""
    with pytest.raises(Refused) as caught:
        await reviewed(Shelf(), request({"inject": "db", "as": "env"}))
    assert caught.value.reason == "SecretNotFound"
    assert caught.value.field == "metadata.annotations[kmseal.dev/inject]"
    assert "there is no EncryptedSecret db in the namespace team" in caught.value.message


async def test_an_object_that_is_not_valid() -> None:
    """An object that cannot be parsed is named, with its field."""
    with pytest.raises(Malformed, match=r"the EncryptedSecret db is not valid: spec\.encryptedData"):
        await reviewed(Shelf(db=sealed("db")), request({"inject": "db", "as": "env"}))


async def test_an_api_server_that_fails() -> None:
    """The API server's failure is handed on as what it is: to be tried again."""
    shelf = Shelf(db=Unavailable("the API server cannot be reached"), cache=sealed("cache", "url"))
    with pytest.raises(Unavailable):
        await reviewed(shelf, request({"inject": "db,cache", "as": "env"}))


async def test_an_api_server_that_hangs() -> None:
    """An API server that does not answer is given up before the webhook's own timeout, with a message."""
    subject = Mutation(Shelf(db=None), lambda: SETTINGS, patience=0.01)
    with pytest.raises(Unavailable, match="does not answer in time"):
        await subject.review(request({"inject": "db", "as": "env"}))


@pytest.mark.parametrize("template", ["{{ values.a", "{% for x in values %}{% endfor %}", "{{ config }}"])
async def test_a_template_that_cannot_be(template: str) -> None:
    """A template that no values could make render is refused with its annotation."""
    with pytest.raises(TemplateFailed) as caught:
        await reviewed(Shelf(), request({"inject": "db", "template.db": template}))
    assert caught.value.field == "metadata.annotations[kmseal.dev/template.db]"


async def test_the_templates_of_a_pod_are_read_as_one() -> None:
    """So that what bounds the templates of one object bounds those of one pod."""
    read: list[Mapping[str, str]] = []
    subject = Mutation(Shelf(), lambda: SETTINGS, templates=TemplateChecks(check=read.append))
    await subject.review(request({"inject": "db,cache,tls", "template.db": "a", "template.cache": "b"}))
    assert read == [{"db": "a", "cache": "b"}]


async def test_the_templates_of_a_pod_are_bounded_together() -> None:
    """Several that are each as long as one may be are not."""
    half = "x" * (TEMPLATES_CHARACTERS_MAX // 2)
    assert (await reviewed(Shelf(), request({"inject": "db,cache", "template.db": half, "template.cache": half}))).patch
    with pytest.raises(TemplateFailed) as caught:
        await reviewed(Shelf(), request({"inject": "db,cache", "template.db": half, "template.cache": half + "x"}))
    assert caught.value.field == "metadata.annotations[kmseal.dev/template.db]"


async def test_templates_that_nobody_has_time_to_read() -> None:
    """The pod is refused for the moment, with the annotation: it is not let through unread."""
    held = threading.Event()

    def read(templates: Mapping[str, str]) -> None:
        held.wait()

    checks = TemplateChecks(seconds=0.01, check=read)
    try:
        with pytest.raises(Unavailable) as caught:
            await Mutation(Shelf(), lambda: SETTINGS, templates=checks).review(
                request({"inject": "db", "template.db": "x"})
            )
    finally:
        held.set()
    assert caught.value.field == "metadata.annotations[kmseal.dev/template.db]"


async def test_nodes_of_which_nothing_is_known() -> None:
    """Variables wait until something is, for an older kubelet would leave them out; files do not."""
    subject = Mutation(Shelf(db=sealed("db", "user")), lambda: replace(SETTINGS, oldest_kubelet=None))
    assert (await subject.review(request({"inject": "db", "refresh": "5m"}))).patch
    with pytest.raises(Unavailable) as caught:
        await subject.review(request({"inject": "db", "as": "both"}))
    assert caught.value.field == "metadata.annotations[kmseal.dev/as]"


async def test_warnings_are_handed_on() -> None:
    """What is doubtful is said to the user, no longer than the API server passes on."""
    answer = await reviewed(Shelf(), request({"inject": "db", "mode": "0400"}))
    (warning,) = answer.warnings
    assert "kmseal.dev/mode" in warning
    assert len(warning) <= WARNING_CHARS_MAX


async def test_the_settings_of_the_moment() -> None:
    """The authorities are asked for at each admission, for they are renewed."""
    settings = [SETTINGS, AgentSettings("agent:2", "https://b.example:443", "b.example", "PEM", (1, 37), (1, 37))]
    subject = Mutation(Shelf(), lambda: settings.pop(0))
    first, second = [(await subject.review(request({"inject": "db"}))).patch for _ in range(2)]
    assert "agent:1" in str(first)
    assert "agent:2" in str(second)
