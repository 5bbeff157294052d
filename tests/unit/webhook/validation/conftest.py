"""The bench of the validation: objects, the rules about keys, and what is said of an object."""

from collections.abc import Sequence
from typing import Any

import pytest

from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value
from kmseal.errors import KmsealError
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted
from kmseal_webhook.admission import AdmissionRequest, Answer
from kmseal_webhook.validation import Validation

Json = dict[str, Any]
A = "acs:kms:cn-hangzhou:1:key/a"


class Bench:
    """Makes and judges objects."""

    @staticmethod
    def manifest(
        *key_ids: str, name: str = "db", namespace: str = "prod", values: Sequence[str] = ("password",),
        scope: Scope = Scope.STRICT, **spec: Any,
    ) -> Json:  # fmt: skip
        """An object whose one data key is wrapped by each of these keys."""
        place, id_ = Place.of(scope, namespace, name), DataKeyId("aaaa")
        lines = {
            value: encrypt_value(Redacted(b"k" * 32), id_, place, value, Redacted(b"x")).line() for value in values
        }
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

    @staticmethod
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

    @staticmethod
    def request(object_: Json, old: Json | None = None, *, operation: str = "", kind: str = "EncryptedSecret") -> Any:
        return AdmissionRequest(
            uid="1", operation=operation or ("UPDATE" if old else "CREATE"), kind=kind, namespace="prod",
            name="db", object=object_, old=old, user="somebody", dry_run=False,
        )  # fmt: skip

    async def judge(self, object_: Json, old: Json | None = None, *, validation: Validation | None = None) -> Answer:
        return await (validation or Validation(self.rules())).review(self.request(object_, old))

    async def refusal(
        self, object_: Json, old: Json | None = None, *, validation: Validation | None = None
    ) -> KmsealError:
        """The error that refuses the object; its message starts with the field."""
        with pytest.raises(KmsealError) as caught:
            await self.judge(object_, old, validation=validation)
        assert str(caught.value).startswith(f"{caught.value.field}: ")
        return caught.value


@pytest.fixture
def bench() -> Bench:
    """For every test a fresh one; it keeps nothing."""
    return Bench()
