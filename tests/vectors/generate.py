"""Writes the vector files of docs/format.md: ``python tests/vectors/generate.py [FOLDER]``.

``accept/`` holds one file per accepted shape, ``reject/`` one per rejection, ``rewrapped/`` one per case of newer
wrappings; README.md beside this file describes them.
Every random byte comes from a stream that the file's name seeds, so that writing them again gives the same bytes; a
test checks that. Run it after a change here, never edit the files by hand, and never change a file that a release had.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rejections import REJECTIONS
from sealing import (
    FIRST,
    KMS_KEY,
    KMS_KEY_2,
    LOCAL_KEY,
    RSA_KEY,
    SECOND,
    Json,
    Sealing,
    digest,
    one_value,
    to_base64,
    two_keys,
)

from kmseal.envelope import Scope


def accepted() -> Iterator[tuple[str, Json]]:
    """The accepted shapes, by file name."""

    def vector(name: str, description: str, sealing: Sealing, **spec: Any) -> tuple[str, Json]:
        content: Json = {
            "description": description,
            "manifest": sealing.manifest(**spec),
            "dataKeys": {data_key_id: key.hex() for data_key_id, key in sealing.data_keys.items()},
            "values": {value_name: to_base64(value) for value_name, value in sealing.values.items()},
        }
        if sealing.local_keys:
            content["localKeys"] = {key_id: key.hex() for key_id, key in sealing.local_keys.items()}
        return f"accept/{name}.json", content

    name = "scope-strict"
    yield vector(name, "One value, bound to namespace and name", one_value(name))
    name = "scope-namespace"
    yield vector(name, "Any name in one namespace", one_value(name, Scope.NAMESPACE))
    name = "scope-cluster"
    yield vector(name, "Anywhere", one_value(name, Scope.CLUSTER))
    name = "scope-default"
    default = vector(name, "No scope means Strict", one_value(name))
    del default[1]["manifest"]["spec"]["scope"]
    yield default
    name = "algorithm-rsa"
    yield vector(name, "Wrapped by the public half of an asymmetric key", one_value(name, keys=(RSA_KEY,)))
    name = "algorithm-local"
    yield vector(name, "Wrapped by a key file, which localKeys holds", one_value(name, keys=(LOCAL_KEY,)))
    name = "algorithm-local-namespace"
    local = one_value(name, Scope.NAMESPACE, (LOCAL_KEY,))
    yield vector(name, "Wrapped by a key file under the context of the scope Namespace", local)
    name = "algorithm-local-cluster"
    local = one_value(name, Scope.CLUSTER, (LOCAL_KEY,))
    yield vector(name, "Wrapped by a key file under the context of the scope Cluster", local)
    name = "wrappings-several"
    several = one_value(name, keys=(KMS_KEY, KMS_KEY_2, RSA_KEY, LOCAL_KEY))
    yield vector(name, "Four wrappings, any of which opens the data key", several)
    name = "data-keys-several"
    yield vector(name, "Values under two data keys", two_keys(name))
    name = "data-key-unused"
    unused = one_value(name).add_key(SECOND, KMS_KEY)
    yield vector(name, "A data key that no value names may stay", unused)
    name = "data-key-ids-shortest-and-longest"
    ids = Sealing(name).add_key("0000", KMS_KEY).add_key("z9" * 8, KMS_KEY)
    ids.add_value("0000", "a", b"short").add_value("z9" * 8, "b", b"long")
    yield vector(name, "Ids of 4 and of 16 characters", ids)
    name = "value-empty"
    yield vector(name, "A value of no bytes", Sealing(name).add_key(FIRST, KMS_KEY).add_value(FIRST, "empty", b""))
    name = "value-binary"
    binary = Sealing(name).add_key(FIRST, KMS_KEY).add_value(FIRST, "all-bytes", bytes(range(256)))
    yield vector(name, "A value that is not UTF-8", binary)
    name = "value-padding"
    padding = Sealing(name).add_key(FIRST, KMS_KEY)
    for size in range(7):
        padding.add_value(FIRST, f"bytes-{size}", b"x" * size)
    yield vector(name, "All paddings of base64", padding)
    name = "value-names"
    names = Sealing(name).add_key(FIRST, KMS_KEY)
    for value_name in ("a", ".hidden", "-", "_", "a..b", "Upper.lower_0-9", "n" * 253):
        names.add_value(FIRST, value_name, value_name[:5].encode())
    yield vector(name, "Every kind of value name that a Secret can have", names)
    name = "names-longest"
    longest = Sealing(name, Scope.STRICT, "n" * 63, ".".join(["d" * 63] * 3 + ["e" * 61]))
    longest.add_key(FIRST, KMS_KEY).add_value(FIRST, "v" * 253, b"bound to long names")
    yield vector(name, "Namespace, name and value name of the longest possible length", longest)
    name = "key-ids-longest"
    ids = one_value(name, keys=(f"acs:kms:{'r' * 32}:{'1' * 32}:key/{'K' * 64}", f"local:{'l' * 63}"))
    yield vector(name, "Key ids of the longest possible length", ids)
    name = "target-everything"
    everything = Sealing(name).add_key(FIRST, KMS_KEY).add_value(FIRST, "user", b"app")
    everything.add_value(FIRST, "password", b"p\xc3\xa4ssword")
    target = {
        "name": "db-credentials",
        "type": "kubernetes.io/basic-auth",
        "labels": {"app.kubernetes.io/part-of": "shop", "tier": ""},
        "annotations": {"example.com/owner": "team shop, on call 24/7"},
        "immutable": True,
        "data": {"username": "{{ user }}", "url": "postgres://{{ user }}:{{ password }}@db/shop"},
        "creationPolicy": "Adopt",
        "deletionPolicy": "Retain",
    }
    yield vector(name, "Every member of spec", everything, target=target, delivery="Secret", suspend=True)
    name = "target-merge"
    yield vector(name, "Into a Secret of another owner", one_value(name), target={"creationPolicy": "Merge"})
    name = "delivery-inject"
    yield vector(name, "No native Secret is made", one_value(name), delivery="Inject")
    name = "counts-largest"
    largest = Sealing(name).add_key("key0", *(f"local:k{index}" for index in range(8)))
    for index in range(1, 64):
        largest.add_key(f"key{index}", KMS_KEY)
    for index in range(512):
        largest.add_value(f"key{index % 64}", f"value-{index}", str(index).encode())
    yield vector(name, "64 data keys, 8 wrappings of one, 512 values", largest)


def rejected() -> Iterator[tuple[str, Json]]:
    """The rejections, by file name."""
    for rejection in REJECTIONS:
        sealing = two_keys(rejection.name)
        vector: Json = {
            "description": rejection.description,
            "rule": rejection.rule,
            "stage": rejection.stage,
            "error": {
                "class": rejection.error,
                "reason": rejection.name.partition("-")[0],
                "field": rejection.field,
            },
            "manifest": sealing.manifest(),
            "dataKeys": {data_key_id: key.hex() for data_key_id, key in sealing.data_keys.items()},
        }
        rejection.spoil(vector)
        yield f"reject/{rejection.name}.json", vector


def rewrapped() -> Iterator[tuple[str, Json]]:
    """Newer wrappings in a status, by file name."""

    def vector(
        name: str, description: str, sealing: Sealing, items: list[Any], openers: list[Json], up_to_date: list[Json]
    ) -> tuple[str, Json]:
        """``openers`` and ``up_to_date`` are of the first data key; another one has no newer wrappings."""
        manifest = sealing.manifest()
        by_id = {data_key["id"]: data_key["wrappings"] for data_key in manifest["spec"]["dataKeys"]}
        content: Json = {
            "description": description,
            "manifest": {**manifest, "status": {"rewrapped": items}},
            "digests": {id_: [digest(wrapping) for wrapping in wrappings] for id_, wrappings in by_id.items()},
        }
        for member, of_first in (("openers", openers), ("upToDate", up_to_date)):
            texts = {**by_id, FIRST: of_first}
            content[member] = {id_: [wrapping["wrapped"] for wrapping in texts[id_]] for id_ in by_id}
        return f"rewrapped/{name}.json", content

    def wrappings(sealing: Sealing) -> list[Json]:
        found: list[Json] = sealing.manifest()["spec"]["dataKeys"][0]["wrappings"]
        return found

    name = "new-version"
    sealing = two_keys(name)
    first, second = wrappings(sealing)
    newer = sealing.rewrap(FIRST, 0)
    description = "One of two wrappings has a newer one by a new version of its key"
    stand_in = newer["wrapping"]
    yield vector(name, description, sealing, [newer], [stand_in, second, first], [stand_in, second])
    name = "all-of-one"
    sealing = two_keys(name)
    first, second = wrappings(sealing)
    newer = [sealing.rewrap(FIRST, index) for index in range(2)]
    stand_ins = [item["wrapping"] for item in newer]
    description = "All wrappings of one data key have newer ones; the order of the items says nothing"
    yield vector(name, description, sealing, newer[::-1], [*stand_ins, first, second], stand_ins)
    name = "another-key"
    sealing = one_value(name, keys=(LOCAL_KEY,))
    newer = sealing.rewrap(FIRST, 0, KMS_KEY)
    first, stand_in = *wrappings(sealing), newer["wrapping"]
    yield vector(name, "A newer wrapping by another key", sealing, [newer], [stand_in, first], [stand_in])
    name = "another-key-that-wraps-already"
    sealing = two_keys(name)
    first, second = wrappings(sealing)
    newer = sealing.rewrap(FIRST, 0, KMS_KEY_2)
    stand_in = newer["wrapping"]
    description = "A newer wrapping by a key that another wrapping of spec names: for Git, that of spec stays"
    yield vector(name, description, sealing, [newer], [stand_in, second, first], [second])
    name = "two-for-one"
    sealing = one_value(name)
    newer = [sealing.rewrap(FIRST, 0, version=version) for version in ("v2", "v3")]
    first, stand_in = *wrappings(sealing), newer[1]["wrapping"]
    description = "Of two items for one wrapping the last one counts"
    yield vector(name, description, sealing, newer, [stand_in, first], [stand_in])
    name = "ignored"
    sealing = two_keys(name)
    standing = wrappings(sealing)
    good = sealing.rewrap(FIRST, 0)
    text = good["wrapping"]["wrapped"]
    ignored = [
        {**good, "digest": digest(good["wrapping"])},  # Of no wrapping of spec.
        {**good, "dataKeyId": SECOND},  # Of a wrapping of another data key.
        {**good, "dataKeyId": "zzzzzzzz"},
        {**good, "digest": good["digest"].upper()},
        {**good, "digest": good["digest"][:-1]},
        {**good, "note": "a member that R1 does not know"},
        {"dataKeyId": FIRST, "digest": good["digest"]},
        {**good, "wrapping": {**good["wrapping"], "keyId": "acs:kms:cn-hangzhou:1234567890123456:alias/app"}},
        {**good, "wrapping": {**good["wrapping"], "algorithm": "LOCAL_AES_256_GCM"}},
        {**good, "wrapping": {**good["wrapping"], "wrapped": text.rstrip("=") + "\n"}},
        "not an object",
        None,
    ]
    yield vector(name, "Items that do not count, each for a reason of its own", sealing, ignored, standing, standing)


def main(folder: Path) -> None:
    """Writes all files and removes those that no vector has any more."""
    vectors = (*accepted(), *rejected(), *rewrapped())
    wanted = {folder / name: json.dumps(content, indent=1) + "\n" for name, content in vectors}
    for kind in ("accept", "reject", "rewrapped"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for stale in set((folder / kind).glob("*.json")) - wanted.keys():
            stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
