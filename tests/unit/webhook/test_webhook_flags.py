"""The settings of the webhook stand in the documents, as they are, and what is shown of an installation fits them."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from kmseal_webhook.main import main
from kmseal_webhook.settings import BROKER_SERVICE_PORT, WebhookSettings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "operations-webhook.md").read_text(encoding="utf-8")
SETTINGS = WebhookSettings()
FOR_TESTS = {"terms", "look_seconds", "patience", "broker_patience", "limits"}
FIELDS = [field.name for field in dataclasses.fields(WebhookSettings) if field.name not in FOR_TESTS]
OPTIONS = {option.name: option for option in main.params if option.name != "version"}


def rows(pattern: str, section: str) -> list[tuple[str, ...]]:
    """The rows of the table in a section of the document."""
    text = DOCUMENT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(pattern, text, re.MULTILINE)


def as_documented(default: object) -> str:
    """How a default is written in the table: empty where there is none."""
    return f"{default:g}" if isinstance(default, float) else str(default or "")


def installation() -> tuple[dict[str, Any], dict[str, Any]]:
    """The Service and the Deployment that the document shows."""
    service, deployment, _ = manifests()
    return service, deployment


def manifests() -> list[dict[str, Any]]:
    """All that the document shows, in order."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [manifest for text in blocks for manifest in YAML(typ="safe").load_all(text)]


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_is_documented_with_its_variable_and_default(name: str) -> None:
    """One row of the table: the flag, KMSEAL_<NAME>, and the default where there is one."""
    table = rows(r"^\| `(--[a-z-]+)` \| `(\w+)` \|([^|]*)\|", "Settings")
    found = [(variable, default.strip("` ")) for flag, variable, default in table if flag == OPTIONS[name].opts[0]]
    assert found == [(f"KMSEAL_{name.upper()}", as_documented(getattr(SETTINGS, name)))]


def test_nothing_else_is_documented() -> None:
    """A row for a flag that is gone would promise what is refused."""
    flags = {flag for flag, _ in rows(r"^\| `(--[a-z-]+)` \|( )", "Settings")}
    assert flags == {OPTIONS[name].opts[0] for name in FIELDS}


def test_every_flag_has_a_help_text_or_its_choices() -> None:
    """--help alone is enough to use it."""
    for option in OPTIONS.values():
        assert isinstance(option, click.Option)
        assert option.help or isinstance(option.type, click.Choice)


def test_the_service_that_is_shown_leads_to_both_ports() -> None:
    """By the names and numbers that are the defaults of the program: 443 for API servers, and another for agents."""
    service, deployment = installation()
    assert service["metadata"] == {"name": SETTINGS.service, "namespace": SETTINGS.namespace_of_service}
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["port"]: ports[port["targetPort"]] for port in service["spec"]["ports"]} == {
        443: int(SETTINGS.listen.rpartition(":")[2]),
        BROKER_SERVICE_PORT: int(SETTINGS.broker_listen.rpartition(":")[2]),
    }
    health = int(SETTINGS.health.rpartition(":")[2])
    probes = container["readinessProbe"]["httpGet"], container["livenessProbe"]["httpGet"]
    assert [(probe["path"], ports[probe["port"]]) for probe in probes] == [("/readyz", health), ("/healthz", health)]


def test_the_network_policy_that_is_shown_keeps_pods_from_admission_only() -> None:
    """It selects the Deployment's pods and names all their ports; pods reach the broker's."""
    _, deployment, policy = manifests()
    assert policy["spec"]["podSelector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    sources = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    admission, broker, health = (
        int(address.rpartition(":")[2]) for address in (SETTINGS.listen, SETTINGS.broker_listen, SETTINGS.health)
    )
    assert sources.keys() == {admission, broker, health}
    assert "ipBlock" in sources[admission][0]
    assert sources[broker] == [{"namespaceSelector": {}}]


def test_the_deployment_that_is_shown_lets_the_program_start_and_end() -> None:
    """Its arguments are understood, and a pod is not killed while it drains."""
    _, deployment = installation()
    spec = deployment["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == SETTINGS.service
    assert spec["terminationGracePeriodSeconds"] > SETTINGS.drain_seconds
    (container,) = spec["containers"]
    assert main.make_context("kmseal-webhook", list(container["args"])).params["agent_image"]
