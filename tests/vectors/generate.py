"""Writes the vector files of docs/format.md: ``python tests/vectors/generate.py [FOLDER]``.

``accept/`` holds one file per accepted shape, ``reject/`` one per rejection; README.md beside this file describes them.
Every random byte comes from a stream that the file's name seeds, so that writing them again gives the same bytes; a
test checks that. Run it after a change here, never edit the files by hand, and never change a file that a release had.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rejections import REJECTIONS
from sealing import FIRST, KMS_KEY, KMS_KEY_2, LOCAL_KEY, RSA_KEY, SECOND, Json, Sealing, one_value, to_base64, two_keys

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


def main(folder: Path) -> None:
    """Writes all files and removes those that no vector has any more."""
    wanted = {folder / name: json.dumps(content, indent=1) + "\n" for name, content in (*accepted(), *rejected())}
    for kind in ("accept", "reject"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for stale in set((folder / kind).glob("*.json")) - wanted.keys():
            stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
