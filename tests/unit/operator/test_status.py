"""The status and the Secret as they are written."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.reasons import WAITS_FOR_SPEC, Reason
from kmseal.envelope import DataKeyId, Scope
from kmseal.manifest import Algorithm, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, read_rewrapped
from kmseal.target import CreationPolicy, DeletionPolicy, Target
from kmseal_operator.decide import Opened, Outcome, Write
from kmseal_operator.ledger import OWNER_ANNOTATION, RETAIN_ANNOTATION, TARGET_LABEL, Recorded, Seen
from kmseal_operator.status import manager_of, record, release_body, secret_body, status_patch

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
APPLIED = Outcome(True, Reason.APPLIED, "there")
DOWN = Outcome(False, Reason.KMS_UNAVAILABLE, "no answer")
SEEN = Seen("s-1", "9", "db", frozenset(), (("kmseal", "d1g3st"), ("kmseal:db", "other")), ())
OPENED = Opened({"a": Redacted(b"\xff\x00")}, (KeyUse("local:dev", "v1"), KeyUse("local:old", "v7")))


def write(uid: str = "", *, owned: bool = True) -> Write:
    return Write(OPENED, uid, force=owned, owned=owned, ours=False, prune=(), remove=None, outcome=APPLIED)


def object_(**target: Any) -> EncryptedSecret:
    return EncryptedSecret("prod", "db", Scope.STRICT, (), {}, Target("db-secret", **target))


def recorded(outcome: Outcome = APPLIED, before: Recorded | None = None, *, applied: bool = False) -> Recorded:
    target = ("db-secret", SEEN) if applied else None
    return record(outcome, 4, before or Recorded(), NOW, target=target, manager="kmseal")


def test_a_success_records_what_was_applied() -> None:
    """Name, uid, version and digest of the Secret under the right field manager."""
    assert recorded(applied=True) == Recorded(
        observed_generation=4, ready="True", reason="Applied", message="there", since="2026-01-02T03:04:05Z",
        target_name="db-secret", target_uid="s-1", target_version="9", applied_fields="d1g3st",
    )  # fmt: skip


def test_a_failure_keeps_what_is_known_of_the_target() -> None:
    """The Secret is still there, so the status still names it."""
    before = recorded(applied=True)
    after = recorded(DOWN, before)
    assert (after.ready, after.reason, after.message) == ("False", "KmsUnavailable", "no answer")
    same = dict.fromkeys(("ready", "reason", "message", "since"), "")
    assert replace(after, **same) == replace(before, **same)  # type: ignore[arg-type]  # All four are texts.


def test_the_time_of_transition_is_kept_while_ready_does_not_change() -> None:
    """Another reason or generation is no transition; another Ready is."""
    before = replace(recorded(DOWN), since="2025-01-01T00:00:00Z", observed_generation=1)
    assert recorded(Outcome(False, Reason.KMS_DENIED, "no right"), before).since == "2025-01-01T00:00:00Z"
    assert recorded(APPLIED, before, applied=True).since == "2026-01-02T03:04:05Z"


def test_nothing_changes_when_nothing_would_change() -> None:
    """The same outcome again gives an equal record, so that no status write is made."""
    for before in (recorded(applied=True), recorded(DOWN)):
        outcome = Outcome(before.ready == "True", Reason(before.reason), before.message)
        later = record(outcome, 4, before, datetime(2030, 1, 1, tzinfo=UTC), target=None, manager="kmseal")
        assert later == before


def test_injectable_forgets_the_target() -> None:
    """There is none any more, and the patch removes it from the status."""
    after = recorded(Outcome(True, Reason.INJECTABLE, "open"), recorded(applied=True))
    assert (after.target_name, after.target_uid, after.target_version, after.applied_fields) == ("", "", "", "")
    assert status_patch(after, NOW, written=None)["target"] is None


def test_a_long_message_is_cut() -> None:
    """The API server's limit for messages is far away."""
    assert len(recorded(Outcome(False, Reason.INVALID, "x" * 9999)).message) == 1024


def test_the_status_of_a_success() -> None:
    """All of it, as it is sent."""
    assert status_patch(recorded(applied=True), NOW, written=write()) == {
        "observedGeneration": 4,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "observedGeneration": 4,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
                "reason": "Applied",
                "message": "there",
            }
        ],
        "target": {"name": "db-secret", "uid": "s-1", "resourceVersion": "9", "appliedFields": "d1g3st"},
        "keys": [
            {"keyId": "local:dev", "keyVersionId": "v1"},
            {"keyId": "local:old", "keyVersionId": "v7"},
        ],
        "lastAppliedTime": "2026-01-02T03:04:05Z",
    }


def test_a_failure_leaves_target_and_keys_of_the_status_alone() -> None:
    """The merge patch does not name them."""
    patch = status_patch(recorded(DOWN, recorded(applied=True)), NOW, written=None)
    assert set(patch) == {"observedGeneration", "conditions"}


def test_newer_wrappings_are_left_alone_unless_some_are_to_be_dropped() -> None:
    """A merge patch replaces a list as a whole: what the re-wrapper wrote is named only to shorten it."""
    newer = Rewrapped(DataKeyId("aaaa"), "0" * 64, Wrapping("local:dev", "v2", Algorithm.LOCAL_AES_256_GCM, b"w"))
    for outcome, written in ((APPLIED, write()), (DOWN, None)):
        after = recorded(outcome, applied=written is not None)
        assert "rewrapped" not in status_patch(after, NOW, written=written)
        kept = status_patch(after, NOW, written=written, rewrapped=[newer])
        assert read_rewrapped(kept) == (newer,)
        assert status_patch(after, NOW, written=written, rewrapped=[])["rewrapped"] == []


def test_a_revocation_forgets_the_target() -> None:
    """It was taken away, and the patch removes it from the status; a mere failure keeps it."""
    before = recorded(applied=True)
    after = record(DOWN, 4, before, NOW, target=None, manager="kmseal", revoked=True)
    assert (after.target_name, after.target_uid, after.target_version, after.applied_fields) == ("", "", "", "")
    assert status_patch(after, NOW, written=None)["target"] is None
    again = record(DOWN, 4, after, datetime(2030, 1, 1, tzinfo=UTC), target=None, manager="kmseal", revoked=True)
    assert again == after


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("ready", [True, False])
def test_stalled_stands_only_beside_faults_of_the_object(reason: Reason, ready: bool) -> None:
    """Stalled is True where only a change helps; a suspended object is no fault."""
    patch = status_patch(recorded(Outcome(ready, reason, "x")), NOW, written=None)
    stalled = [condition for condition in patch["conditions"] if condition["type"] == "Stalled"]
    assert bool(stalled) is (not ready and reason in WAITS_FOR_SPEC and reason is not Reason.SUSPENDED)
    for condition in stalled:
        assert condition == {**patch["conditions"][0], "type": "Stalled", "status": "True"}


def test_a_secret_that_must_not_exist_has_a_version_that_none_has() -> None:
    """Without a uid the precondition is that there is no such Secret; with one, that it is this one."""
    fresh = secret_body(object_(), "o-1", write())["metadata"]
    assert (fresh.get("resourceVersion"), fresh.get("uid")) == ("1", None)
    known = secret_body(object_(), "o-1", write("s-1"))["metadata"]
    assert (known.get("resourceVersion"), known.get("uid")) == (None, "s-1")


def test_the_secret_as_it_is_applied() -> None:
    """All of it: our label, our annotation, the owner, the data in base64."""
    target = object_(type="kubernetes.io/x", labels={"app": "db"}, annotations={"note": "n"}, immutable=True)
    assert secret_body(target, "o-1", write("s-1")) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "db-secret",
            "namespace": "prod",
            "uid": "s-1",
            "labels": {"app": "db", TARGET_LABEL: "true"},
            "annotations": {"note": "n", OWNER_ANNOTATION: "db"},
            "ownerReferences": [
                {
                    "apiVersion": "kmseal.dev/v1alpha1",
                    "kind": "EncryptedSecret",
                    "name": "db",
                    "uid": "o-1",
                    "controller": True,
                }
            ],
        },
        "type": "kubernetes.io/x",
        "immutable": True,
        "data": {"a": base64.b64encode(b"\xff\x00").decode()},
    }


def test_a_retained_secret_has_no_owner_reference() -> None:
    """With Retain the garbage collector must not take it; the annotation still names the owner."""
    metadata = secret_body(object_(deletion_policy=DeletionPolicy.RETAIN), "o-1", write())["metadata"]
    assert "ownerReferences" not in metadata
    assert metadata["annotations"] == {OWNER_ANNOTATION: "db"}


@pytest.mark.parametrize("deletion", DeletionPolicy)
def test_a_merge_claims_nothing_but_its_entries(deletion: DeletionPolicy) -> None:
    """No owner, no type, no immutability: they are the Secret's author's; Retain is left as a mark."""
    merging = object_(creation_policy=CreationPolicy.MERGE, deletion_policy=deletion)
    body = secret_body(merging, "o-1", write("s-1", owned=False))
    assert not {"type", "immutable"} & body.keys()
    assert "ownerReferences" not in body["metadata"]
    expected = {RETAIN_ANNOTATION: "true"} if deletion is DeletionPolicy.RETAIN else {}
    assert body["metadata"].get("annotations", {}) == expected


def test_a_user_cannot_take_our_label_away() -> None:
    """Our label wins over one of the same name in the target's labels."""
    labels = secret_body(object_(labels={TARGET_LABEL: "false"}), "o-1", write())["metadata"]["labels"]
    assert labels == {TARGET_LABEL: "true"}


def test_a_release_names_the_secret_and_nothing_in_it() -> None:
    """Applying no fields gives up all of them, in this very Secret only."""
    assert release_body("prod", "shared", "s-1")["metadata"] == {"name": "shared", "namespace": "prod", "uid": "s-1"}
    assert not {"data", "type"} & release_body("prod", "shared", "s-1").keys()


def test_each_merging_object_has_its_own_field_manager() -> None:
    """Owned targets share one."""
    assert manager_of(object_()) == "kmseal"
    assert manager_of(object_(creation_policy=CreationPolicy.MERGE)) == "kmseal:db"
