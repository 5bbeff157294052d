"""The status of an EncryptedSecret as it is written, and the native Secret as it is applied: pure builders of JSON.

The conditions follow kstatus: Ready says whether the target holds this generation's values; Stalled is there only while
nothing but a change of the object can help.
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from kmseal.cluster.reasons import WAITS_FOR_SPEC, Reason
from kmseal.manifest import EncryptedSecret
from kmseal.rewrapped import Rewrapped
from kmseal.target import CreationPolicy, DeletionPolicy
from kmseal_operator.decide import Outcome, Write
from kmseal_operator.ledger import OWNER_ANNOTATION, RETAIN_ANNOTATION, TARGET_LABEL, Recorded, Seen, field_manager

Json = dict[str, Any]
_MESSAGE_CHARS_MAX: Final = 1024


def rfc3339(now: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def record(
    outcome: Outcome, generation: int, before: Recorded, now: datetime, *, target: tuple[str, Seen] | None,
    manager: str, revoked: bool = False,
) -> Recorded:  # fmt: skip
    """What will stand in the status; equal to ``before`` when nothing would change.

    :param target: name and metadata of the Secret that was just applied; None when none was
    :param revoked: whether the target was taken away
    """
    ready = "True" if outcome.ready else "False"
    name, seen = target or (before.target_name, None)
    if outcome.reason is Reason.INJECTABLE or revoked:
        name = ""
    keeps = seen is None and bool(name)
    return Recorded(
        observed_generation=generation,
        ready=ready,
        reason=outcome.reason,
        message=outcome.message[:_MESSAGE_CHARS_MAX],
        since=before.since if before.ready == ready and before.since else rfc3339(now),
        target_name=name,
        target_uid=seen.uid if seen else before.target_uid if keeps else "",
        target_version=seen.version if seen else before.target_version if keeps else "",
        applied_fields=seen.digest(manager) if seen else before.applied_fields if keeps else "",
    )


def status_patch(
    recorded: Recorded, now: datetime, *, written: Write | None, rewrapped: Sequence[Rewrapped] | None = None
) -> Json:
    """The merge patch of the status.

    :param written: what was applied, None when nothing was
    :param rewrapped: the newer wrappings that still replace something, where others are to be dropped from the status
    """
    condition = {
        "status": recorded.ready,
        "observedGeneration": recorded.observed_generation,
        "lastTransitionTime": recorded.since,
        "reason": recorded.reason,
        "message": recorded.message,
    }
    conditions = [{"type": "Ready", **condition}]
    if recorded.ready == "False" and recorded.reason in WAITS_FOR_SPEC - {Reason.SUSPENDED}:
        conditions.append({"type": "Stalled", **condition, "status": "True"})
    patch: Json = {"observedGeneration": recorded.observed_generation, "conditions": conditions}
    if written:
        patch["target"] = {
            "name": recorded.target_name,
            "uid": recorded.target_uid,
            "resourceVersion": recorded.target_version,
            "appliedFields": recorded.applied_fields,
        }
        patch["keys"] = [{"keyId": use.key_id, "keyVersionId": use.key_version_id} for use in written.opened.keys]
        patch["lastAppliedTime"] = rfc3339(now)
    elif not recorded.target_name:
        patch["target"] = None
    if rewrapped is not None:
        patch["rewrapped"] = [item.to_dict() for item in rewrapped]
    return patch


def secret_body(object_: EncryptedSecret, uid: str, write: Write) -> Json:
    """The Secret to apply, with the precondition that the decision demands (see KubeClient.apply)."""
    target = object_.target
    metadata: Json = {
        "name": target.name,
        "namespace": object_.namespace,
        "labels": {**target.labels, TARGET_LABEL: "true"},
    }
    annotations = dict(target.annotations)
    if write.owned:
        annotations[OWNER_ANNOTATION] = object_.name
        if target.deletion_policy is DeletionPolicy.DELETE:
            # The garbage collector deletes the Secret with its owner, also while the operator is down.
            metadata["ownerReferences"] = [owner_reference(object_.name, uid)]
    elif target.deletion_policy is DeletionPolicy.RETAIN:
        annotations[RETAIN_ANNOTATION] = "true"
    if annotations:
        metadata["annotations"] = annotations
    if write.uid:
        metadata["uid"] = write.uid
    else:
        metadata["resourceVersion"] = "1"
    body: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": {name: base64.b64encode(value.reveal()).decode() for name, value in write.opened.data.items()},
    }
    if target.creation_policy is not CreationPolicy.MERGE:
        body["type"] = target.type
        if target.immutable:
            body["immutable"] = True
    return body


def release_body(namespace: str, name: str, uid: str) -> Json:
    """What a merging object that is gone applies: nothing, so that the API server removes what it had set."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace, "uid": uid}}


def owner_reference(name: str, uid: str) -> Json:
    """The reference by which the garbage collector knows the owner."""
    return {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "name": name,
        "uid": uid,
        "controller": True,
    }


def manager_of(object_: EncryptedSecret) -> str:
    """The field manager that applies an object's target."""
    return field_manager(object_.name, merges=object_.target.creation_policy is CreationPolicy.MERGE)
