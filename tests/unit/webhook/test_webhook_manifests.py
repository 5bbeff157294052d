"""What is shipped beside the program says the same as the program: names, paths, namespaces, rights, flags."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kmseal.errors import Misconfigured
from kmseal_webhook.main import main
from kmseal_webhook.registration import SIGNER, TRUST_BUNDLE
from kmseal_webhook.runtime import NEVER_INJECTED
from kmseal_webhook.settings import WebhookSettings, read_resources

FOLDER = Path(__file__).parents[3] / "webhook"
DEFAULTS = WebhookSettings()
FOR_TESTS = {"terms", "look_seconds", "patience", "broker_patience", "limits"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text(encoding="utf-8")))


def test_the_configurations_lead_to_the_service() -> None:
    """Both are called as the Service is, or caBundle would not be patched."""
    for document in documents("webhooks.yaml"):
        assert document["metadata"]["name"] == DEFAULTS.service
        for webhook in document["webhooks"]:
            service = webhook["clientConfig"]["service"]
            assert (service["namespace"], service["name"]) == (DEFAULTS.namespace_of_service, DEFAULTS.service)
            assert service["path"] in ("/mutate", "/validate")
            assert "caBundle" not in webhook["clientConfig"]


def test_the_namespaces_left_out_are_those_that_are_not_missed() -> None:
    """Else pods of kube-system would be told of, or evicted, for ever."""
    (mutating,) = (item for item in documents("webhooks.yaml") if item["kind"].startswith("Mutating"))
    (expression,) = mutating["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    assert set(expression["values"]) == {*NEVER_INJECTED, DEFAULTS.namespace_of_service}


def test_rights_on_single_objects_name_what_the_program_uses() -> None:
    """Of Secrets, configurations, trust bundles and signers."""
    rules = [rule for document in documents("rbac.yaml") for rule in document.get("rules", ())]
    named = {name for rule in rules for name in rule.get("resourceNames", ())}
    assert named == {DEFAULTS.service, DEFAULTS.tls_secret, TRUST_BUNDLE, SIGNER}


def test_no_right_is_given_to_read_pods_whole() -> None:
    """Lists and watches of metadata are enough, and need no get; evictions are made without looking."""
    rules = [rule for document in documents("rbac.yaml") for rule in document.get("rules", ())]
    verbs = {verb for rule in rules if "pods" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch"}


def test_every_setting_has_a_flag_of_its_name() -> None:
    """And every flag is a setting, with its default."""
    flags = {option.name: option.default for option in main.params if option.name not in ("help", "version")}
    settings = {item.name: getattr(DEFAULTS, item.name) for item in fields(DEFAULTS) if item.name not in FOR_TESTS}
    assert flags.keys() == settings.keys()
    assert {name: settings[name] for name in settings if settings[name]} == {
        name: flags[name] for name in settings if settings[name]
    }


def test_resources_are_read_strictly() -> None:
    """What Kubernetes would refuse in every pod is refused at the start."""
    assert read_resources("cpu=10m, memory=24Mi", "--agent-requests") == {"cpu": "10m", "memory": "24Mi"}
    assert read_resources("", "--agent-limits") == {}
    for text in ("cpu", "cpu=", "cpu=10m,cpu=20m", "disk=1", "memory=24 Mi", "memory=-1"):
        with pytest.raises(Misconfigured) as caught:
            read_resources(text, "--agent-limits")
        assert caught.value.field == "--agent-limits"
