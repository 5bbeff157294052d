"""The main job: an EncryptedSecret becomes a Secret and stays one."""

from typing import Any


async def test_values_become_a_secret(bench: Any) -> None:
    """Creating an object makes the Secret with its exact bytes, type, labels and owner."""
    await bench.start()
    target = {"type": "example.com/x", "labels": {"app": "db"}, "annotations": {"note": "hi"}}
    await bench.apply(await bench.seal("db", {"password": b"hunter2", "bin": b"\xff\x00", "empty": b""}, target=target))
    await bench.reason("db", "Applied")
    secret = await bench.secret("db")
    assert await bench.values("db") == {"password": b"hunter2", "bin": b"\xff\x00", "empty": b""}
    assert secret["type"] == "example.com/x"
    assert secret["metadata"]["labels"]["app"] == "db"
    assert secret["metadata"]["annotations"]["note"] == "hi"
    [owner] = secret["metadata"]["ownerReferences"]
    assert owner["uid"] == (await bench.object("db"))["metadata"]["uid"]


async def test_update_replaces_and_removes_values(bench: Any) -> None:
    """A new generation replaces changed values and removes those that are gone."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1", "b": b"2"}))
    await bench.reason("db", "Applied")
    await bench.apply(await bench.seal("db", {"a": b"3"}))
    await bench.reason("db", "Applied", generation=2)
    assert await bench.values("db") == {"a": b"3"}


async def test_status_says_which_key(bench: Any) -> None:
    """The status names the key and version, and the Secret it stands for."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    status = (await bench.object("db"))["status"]
    secret = await bench.secret("db")
    assert status["keys"][0]["keyId"] == bench.key
    assert status["target"]["uid"] == secret["metadata"]["uid"]
    assert status["observedGeneration"] == 1


async def test_drift_is_healed(bench: Any, wait_until: Any) -> None:
    """A changed, extended or deleted Secret is put right at once; foreign labels and annotations stay."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    await bench.patch_secret(
        "db",
        {"metadata": {"labels": {"their": "label"}, "annotations": {"their": "note"}},
         "data": {"a": "ZXZpbA==", "extra": "ZXZpbA=="}},
    )  # fmt: skip

    async def healed() -> bool:
        return bool(await bench.values("db") == {"a": b"1"})

    await wait_until(healed)
    secret = await bench.secret("db")
    assert secret["metadata"]["labels"]["their"] == "label"
    assert secret["metadata"]["annotations"]["their"] == "note"
    await bench.delete("secrets", "db")
    await wait_until(healed)


async def test_a_foreign_secret_is_not_touched(bench: Any) -> None:
    """Under Owner, a Secret that somebody else made stays as it is; when it goes away, the target is made."""
    await bench.start()
    before = await bench.create_secret("db", {"theirs": b"x"})
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    condition = await bench.reason("db", "TargetConflict")
    assert "Adopt" in condition["message"]
    assert (await bench.secret("db"))["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    await bench.delete("secrets", "db")
    await bench.reason("db", "Applied")


async def test_adopt_takes_a_foreign_secret_over(bench: Any) -> None:
    """Under Adopt, a Secret that somebody else made is taken over and owned."""
    await bench.start()
    await bench.create_secret("db", {"a": b"old", "theirs": b"x"})
    await bench.apply(await bench.seal("db", {"a": b"1"}, target={"creationPolicy": "Adopt"}))
    await bench.reason("db", "Applied")
    assert (await bench.values("db"))["a"] == b"1"
    assert (await bench.secret("db"))["metadata"]["ownerReferences"]


async def test_merge_adds_and_removes_only_its_own(bench: Any, wait_until: Any) -> None:
    """Under Merge, values are added to a Secret once it is there, without owning it, and go with the object."""
    await bench.start()
    await bench.apply(await bench.seal("extra", {"a": b"1"}, target={"name": "app", "creationPolicy": "Merge"}))
    await bench.reason("extra", "TargetMissing")
    await bench.create_secret("app", {"theirs": b"x"})
    await bench.reason("extra", "Applied")
    assert await bench.values("app") == {"theirs": b"x", "a": b"1"}
    assert "ownerReferences" not in (await bench.secret("app"))["metadata"]
    await bench.delete("encryptedsecrets", "extra")

    async def released() -> bool:
        return bool(await bench.values("app") == {"theirs": b"x"})

    await wait_until(released)


async def test_merge_does_not_fight_over_a_value(bench: Any) -> None:
    """Under Merge, a value that somebody else sets is reported and left alone."""
    await bench.start()
    await bench.create_secret("app", {"a": b"theirs"})
    await bench.apply(await bench.seal("extra", {"a": b"1"}, target={"name": "app", "creationPolicy": "Merge"}))
    condition = await bench.reason("extra", "TargetConflict")
    assert ".data.a" in condition["message"]
    assert await bench.values("app") == {"a": b"theirs"}


async def test_type_and_immutable_changes_replace_the_secret(bench: Any) -> None:
    """What the API server will not change in place is replaced: the type, and an immutable target's data."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}, target={"immutable": True}))
    await bench.reason("db", "Applied")
    first = (await bench.secret("db"))["metadata"]["uid"]
    await bench.apply(await bench.seal("db", {"a": b"2"}, target={"immutable": True, "type": "example.com/x"}))
    await bench.reason("db", "Applied", generation=2)
    secret = await bench.secret("db")
    assert (secret["type"], secret["immutable"]) == ("example.com/x", True)
    assert secret["metadata"]["uid"] != first
    assert await bench.values("db") == {"a": b"2"}


async def test_a_type_whose_rules_are_broken_leaves_the_old_secret(bench: Any) -> None:
    """A change that the API server refuses leaves the working Secret alone and says which field is wrong."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    await bench.apply(await bench.seal("db", {"a": b"2"}, target={"type": "kubernetes.io/tls"}))
    condition = await bench.reason("db", "TargetRefused")
    assert "tls.crt" in condition["message"]
    assert await bench.values("db") == {"a": b"1"}


async def test_templates_make_the_data(bench: Any) -> None:
    """With templates, the Secret holds what they render, and nothing else."""
    await bench.start()
    data = {"url": "postgres://{{ values.user | urlencode }}:{{ values.pw | urlencode }}@db", "raw": "{{ values.bin }}"}
    await bench.apply(await bench.seal("db", {"user": b"u", "pw": b"p/w", "bin": b"\xff"}, target={"data": data}))
    await bench.reason("db", "Applied")
    assert await bench.values("db") == {"url": b"postgres://u:p%2Fw@db", "raw": b"\xff"}


async def test_a_broken_template_touches_nothing(bench: Any) -> None:
    """A template that cannot be rendered is named, and the Secret keeps its values."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    await bench.apply(await bench.seal("db", {"a": b"2"}, target={"data": {"x": "{{ values.nothing }}"}}))
    condition = await bench.reason("db", "TemplateFailed")
    assert "spec.target.data.x" in condition["message"]
    assert await bench.values("db") == {"a": b"1"}
    assert (await bench.condition("db", "Stalled"))["status"] == "True"


async def test_suspend_leaves_the_target_alone(bench: Any) -> None:
    """A suspended object's target keeps its values until it is resumed."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    manifest = await bench.seal("db", {"a": b"2"}, suspend=True)
    await bench.apply(manifest)
    await bench.reason("db", "Suspended")
    assert await bench.values("db") == {"a": b"1"}
    manifest["spec"]["suspend"] = False
    await bench.apply(manifest)
    await bench.reason("db", "Applied", generation=3)
    assert await bench.values("db") == {"a": b"2"}


async def test_two_objects_with_one_target(bench: Any) -> None:
    """The first keeps the Secret, the second says who has it, and takes over once the Secret is gone with the first."""
    await bench.start()
    await bench.apply(await bench.seal("one", {"a": b"1"}, target={"name": "shared"}))
    await bench.reason("one", "Applied")
    await bench.apply(await bench.seal("two", {"a": b"2"}, target={"name": "shared"}))
    condition = await bench.reason("two", "TargetConflict")
    assert "one" in condition["message"]
    assert await bench.values("shared") == {"a": b"1"}
    await bench.delete("encryptedsecrets", "one")
    await bench.delete("secrets", "shared")  # As the garbage collector does it.
    await bench.reason("two", "Applied")
    assert await bench.values("shared") == {"a": b"2"}


async def test_retain_does_not_own(bench: Any) -> None:
    """Under Retain the Secret has no owner reference, so that it outlives its object, and is known again after it."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}, target={"deletionPolicy": "Retain"}))
    await bench.reason("db", "Applied")
    assert "ownerReferences" not in (await bench.secret("db"))["metadata"]
    await bench.delete("encryptedsecrets", "db")
    await bench.apply(await bench.seal("db", {"a": b"2"}, target={"deletionPolicy": "Retain"}))
    await bench.reason("db", "Applied")
    assert await bench.values("db") == {"a": b"2"}


async def test_a_renamed_target_takes_the_old_one_away(bench: Any, wait_until: Any) -> None:
    """When the target's name changes, the new Secret is made and the old one removed."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}, target={"name": "old"}))
    await bench.reason("db", "Applied")
    await bench.apply(await bench.seal("db", {"a": b"1"}, target={"name": "new"}))
    await bench.reason("db", "Applied", generation=2)
    assert await bench.values("new") == {"a": b"1"}
    assert await bench.secret("old") is None


async def test_inject_makes_no_secret(bench: Any) -> None:
    """With delivery Inject there is no Secret, the object is Ready, and an earlier Secret is removed."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    await bench.apply(await bench.seal("db", {"a": b"1"}, delivery="Inject"))
    await bench.reason("db", "Injectable")
    assert await bench.secret("db") is None
