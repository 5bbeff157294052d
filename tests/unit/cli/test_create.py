"""kmseal create: values in, a manifest out that only the key opens."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from kmseal.manifest import EncryptedSecret

CANARY = "canary-7f3a9c"
BASE = ("create", "db", "-n", "prod", "--key", "local:dev")


def opened(run: Any, done: Result) -> dict[str, Any]:
    """The Secret inside a manifest that a run printed."""
    return dict(json.loads(run("decrypt", "-", "-o", "json", stdin=done.stdout).stdout))


def values(run: Any, done: Result) -> dict[str, bytes]:
    """The values inside."""
    return {name: base64.b64decode(text) for name, text in opened(run, done)["data"].items()}


def test_every_source_brings_its_values_byte_for_byte(run: Any) -> None:
    """Files, a folder, standard input and a .env file together."""
    Path("ca.pem").write_bytes(b"\xff\x00\r\n")
    Path("folder").mkdir()
    Path("folder/a.txt").write_bytes(b"A")
    Path("folder/.hidden").write_bytes(b"H")
    Path("folder/sub").mkdir()
    Path(".env").write_text("export USER='x y'\n")
    done = run(
        *BASE,
        *("--from-file", "ca.pem", "--from-file", "renamed=ca.pem", "--from-file", "folder", "--from-env-file", ".env"),
        *("--from-file", "password=-"),
        stdin=CANARY.encode(),
    )
    assert values(run, done) == {
        "USER": b"x y",
        "ca.pem": b"\xff\x00\r\n",
        "renamed": b"\xff\x00\r\n",
        "a.txt": b"A",
        ".hidden": b"H",
        "password": CANARY.encode(),
    }
    assert CANARY not in done.output


def test_the_manifest_is_what_the_format_says(run: Any) -> None:
    """One data key for all values, lines in the values' order, only what differs from the defaults in the target."""
    done = run(*BASE, "--from-literal", "b=1", "--from-literal", "a=2", "--key", "local:other")
    manifest = yaml.safe_load(done.stdout)
    encrypted = EncryptedSecret.parse(manifest)
    encrypted.require_place()
    assert list(manifest) == ["apiVersion", "kind", "metadata", "spec"]
    assert list(manifest["spec"]) == ["scope", "dataKeys", "encryptedData"]
    assert list(manifest["spec"]["encryptedData"]) == ["b", "a"]
    assert [[item.key_id for item in key.wrappings] for key in encrypted.data_keys] == [["local:dev", "local:other"]]


def test_what_the_secret_should_look_like_goes_to_the_target(run: Any) -> None:
    """Type, labels, annotations and immutable, also where YAML would misread a text."""
    done = run(
        *BASE,
        *("--from-literal", "a=b", "--type", "example.com/x", "--immutable", "-o", "json"),
        *("--label", "app=shop", "--label", "on=true", "--annotation", "example.com/a=x=y"),
    )
    assert json.loads(done.stdout)["spec"]["target"] == {
        "type": "example.com/x",
        "labels": {"app": "shop", "on": "true"},
        "annotations": {"example.com/a": "x=y"},
        "immutable": True,
    }
    secret = opened(run, done)
    assert secret["type"] == "example.com/x"
    assert secret["immutable"] is True
    assert secret["metadata"]["labels"] == {"app": "shop", "on": "true"}


@pytest.mark.parametrize(("scope", "sealed_for"), [("Strict", "prod/db"), ("Namespace", "prod/*"), ("cluster", "*/*")])
def test_the_scope_is_what_the_data_key_is_sealed_for(run: Any, scope: str, sealed_for: str) -> None:
    """The word may be written in any case."""
    spec = yaml.safe_load(run(*BASE, "--from-literal", "a=b", "--scope", scope).stdout)["spec"]
    assert spec["dataKeys"][0]["sealedFor"] == sealed_for
    assert spec["scope"].lower() == scope.lower()


def test_a_literal_warns_and_does_not_show_the_value(run: Any) -> None:
    """Arguments are visible to others."""
    done = run(*BASE, "--from-literal", f"password={CANARY}")
    assert done.stderr.startswith("warning: the value of password was an argument")
    assert done.stderr.count("\n") == 1


def test_standard_input_with_a_line_end_is_kept_and_noted(run: Any) -> None:
    """What echo adds is a frequent mistake, but no reason to change bytes."""
    done = run(*BASE, "--from-file", "password=-", stdin=f"{CANARY}\n")
    assert "ends with a line end" in done.stderr
    assert values(run, done)["password"] == f"{CANARY}\n".encode()


def test_the_default_key_comes_from_the_environment(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """KMSEAL_KEY may hold several."""
    monkeypatch.setenv("KMSEAL_KEY", "local:dev local:other")
    done = run("create", "db", "-n", "prod", "--from-literal", "a=b")
    wrappings = yaml.safe_load(done.stdout)["spec"]["dataKeys"][0]["wrappings"]
    assert [item["keyId"] for item in wrappings] == ["local:dev", "local:other"]


def test_the_result_can_be_written_to_a_file(run: Any) -> None:
    """Then standard output stays empty."""
    done = run(*BASE, "--from-literal", "a=b", "-w", "db.yaml")
    assert done.stdout == ""
    assert yaml.safe_load(Path("db.yaml").read_text())["metadata"] == {"name": "db", "namespace": "prod"}


def test_a_docker_configuration_is_accepted(run: Any) -> None:
    """With the type that pulls images."""
    Path(".dockerconfigjson").write_text('{"auths": {}}')
    done = run(*BASE, "--type", "kubernetes.io/dockerconfigjson", "--from-file", ".dockerconfigjson")
    assert values(run, done) == {".dockerconfigjson": b'{"auths": {}}'}


TOO_MANY = tuple(item for number in range(513) for item in ("--from-literal", f"v{number}=x"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "there are 0 values; 1 to 512 are possible; give it a value"),
        (TOO_MANY, "there are 513 values; 1 to 512 are possible; split the Secret"),
        (("--from-file", "missing"), "--from-file: missing: cannot be read: no such file or directory"),
        (("--from-file", "-"), "--from-file: standard input has no name; write NAME=-"),
        (("--from-file", "x=."), "--from-file: .: is a folder"),
        (("--from-file", "a b=secret"), '--from-file: secret: "a b" is not a valid value name; use letters'),
        (("--from-file", "..x=secret"), '"..x" is not a valid value name; use letters'),
        (("--from-file", "a=secret", "--from-file", "a=secret"), "a: is given twice"),
        (("--from-file", "a=-", "--from-file", "b=-"), "standard input can be read only once"),
        (("--from-file", "big"), "--from-file: big: is larger than 1048576 bytes"),
        (("--from-file", "a=half", "--from-file", "b=half"), "the values are 1200000 bytes together; a Secret holds"),
        (("--from-env-file", "secret"), "secret: line 1: is not of the form NAME=VALUE"),
        (("--from-literal", CANARY), "--from-literal 1: is not of the form NAME=VALUE"),
        (("--prompt", "password"), "--prompt: standard input is not a terminal"),
        (("--from-literal", "a=b", "--label", CANARY), "--label: is not of the form NAME=VALUE"),
        (("--from-literal", "a=b", "--label", "a=b c"), "spec.target.labels.a: is not a valid label value"),
        (("--from-literal", "a=b", "--annotation", "kmseal.dev/x=y"), 'spec.target.annotations["kmseal.dev/x"]'),
        (("--from-literal", "a=b", "--type", "kubernetes.io/service-account-token"), "spec.target.type: is not"),
        (("--from-literal", "a=b", "--type", "kubernetes.io/tls"), "must have the value tls.crt"),
        (
            ("--from-file", ".dockerconfigjson=secret", "--type", "kubernetes.io/dockerconfigjson"),
            'data[".dockerconfigjson"]: is not a JSON object',
        ),
        (("--from-literal", "a=b", "--key", "alias/x"), '--key: "alias/x" is not a key; write acs:kms:'),
        (("--from-literal", "a=b", "--key", "local:dev"), '--key: "local:dev" is given twice'),
        (("--tls-cert", "secret", "--tls-key", "secret"), "secret: is not a certificate in PEM"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_any_call(
    run: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    """Exit code 3, nothing on standard output, and no need of a key service."""
    monkeypatch.delenv("KMSEAL_LOCAL_KEY_FILE")
    Path("secret").write_text(CANARY)
    Path("big").write_bytes(bytes(1_048_577))
    Path("half").write_bytes(bytes(600_000))
    done = run(*BASE, *arguments, stdin=CANARY, fails=3)
    assert line in done.stderr


@pytest.mark.parametrize(
    ("name", "namespace", "line"),
    [
        ("DB", "prod", "metadata.name: cannot be the name of a Secret"),
        ("db", "Prod", "metadata.namespace: cannot be the name of a namespace"),
        ("a/b", "prod", "metadata.name: cannot be"),
        ("*", "prod", "metadata.name: cannot be"),
    ],
)
def test_names_that_kubernetes_refuses_are_refused(run: Any, name: str, namespace: str, line: str) -> None:
    """Here already, with the field."""
    done = run("create", name, "-n", namespace, "--key", "local:dev", "--from-literal", "a=b", fails=3)
    assert line in done.stderr


def test_a_failure_leaves_an_existing_file_as_it_was(run: Any) -> None:
    """Nothing is written before everything is done."""
    Path("db.yaml").write_text("old")
    run(*BASE, "--from-literal", "a=b", "--key", "local:missing", "-w", "db.yaml", fails=4)
    assert Path("db.yaml").read_text() == "old"
    assert [path.name for path in Path().iterdir()] == ["db.yaml"]


def test_delivery_is_written_where_it_is_not_the_usual_one(run: Any) -> None:
    """Inject makes no Secret in the cluster: pods that are annotated get the values."""
    for delivery, written in (("Secret", None), ("inject", "Inject")):
        done = run(*BASE, "--from-file", "a=-", "--delivery", delivery, stdin="x")
        assert yaml.safe_load(done.stdout)["spec"].get("delivery") == written
