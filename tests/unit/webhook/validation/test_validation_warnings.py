"""What is only a warning when an EncryptedSecret is created or changed."""

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kmseal.errors import AccessDenied, KmsealError, Unavailable
from kmseal.kube import Resource
from kmseal_webhook.admission import Answer
from kmseal_webhook.validation import WARNING_CHARS_MAX, Validation

Json = dict[str, Any]
A, B = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "ab")


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


def changed(object_: Json, change: Callable[[Json], object]) -> Json:
    """A copy in which something is different."""
    copied = copy.deepcopy(object_)
    change(copied)
    return copied


async def test_a_name_that_no_variable_can_have_is_a_warning(bench: Any) -> None:
    """It may be meant as a file. What counts are the names that the target has."""
    answer = await bench.judge(bench.manifest(values=("1st", "2nd", "tls.crt", "-x")))
    assert answer.allowed
    assert answer.warnings[0].startswith('spec.encryptedData["1st"]: no environment variable')
    assert "(and 1 more)" in answer.warnings[0]
    answer = await bench.judge(bench.manifest(values=("1st",), target={"data": {"first": "x"}}))
    assert answer.warnings == ()
    answer = await bench.judge(bench.manifest(target={"data": {"2": "x"}}))
    assert answer.warnings[0].startswith('spec.target.data["2"]: ')


async def test_a_warning_is_cut_to_what_the_api_server_shows(bench: Any) -> None:
    """A long name takes the room of the rest."""
    answer = await bench.judge(bench.manifest(values=("1" * 253,)))
    assert [len(warning) for warning in answer.warnings] == [WARNING_CHARS_MAX]


async def test_an_object_that_is_called_like_the_target_is_a_warning(bench: Any) -> None:
    """Both would own one Secret; a read is made only where target.name is not the object's own."""
    stored = Stored(bench.manifest(name="shared"), bench.manifest(name="db"))
    validation = Validation(bench.rules(), reader=stored)
    answer = await bench.judge(bench.manifest(target={"name": "shared"}), validation=validation)
    assert answer.allowed
    assert answer.warnings[0].startswith("spec.target.name: the EncryptedSecret shared makes a Secret of this name")
    assert (await bench.judge(bench.manifest(), validation=validation)).warnings == ()
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
async def test_objects_that_share_no_secret_are_no_warning(
    bench: Any, mine: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    """Several may merge into one Secret; others have another target or none, or cannot be read."""
    validation = Validation(
        bench.rules(), reader=Stored(changed(bench.manifest(name="shared"), lambda m: m["spec"].update(other)))
    )
    answer = await bench.judge(bench.manifest(target={"name": "shared", **mine}), validation=validation)
    assert answer == Answer(allowed=True)


async def test_the_target_is_looked_up_only_when_it_changes(bench: Any) -> None:
    """A change of values costs no read."""
    stored = Stored(bench.manifest(name="shared"))
    old = bench.manifest(target={"name": "shared"})
    answer = await bench.judge(
        changed(old, lambda raw: raw["spec"].update(suspend=True)),
        old,
        validation=Validation(bench.rules(), reader=stored),
    )
    assert (answer, stored.reads) == (Answer(allowed=True), [])


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no"), None])
async def test_an_api_server_that_does_not_answer_costs_only_the_warning(bench: Any, error: KmsealError | None) -> None:
    """At once, or when the time of the look-up is over."""
    validation = Validation(bench.rules(), reader=Down(error), lookup_seconds=0.01)
    assert await bench.judge(bench.manifest(target={"name": "shared"}), validation=validation) == Answer(allowed=True)
