"""kubeconfig files and tokens: what is read, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kmseal import kubeconfig
from kmseal.errors import Misconfigured
from kmseal.kubeconfig import Token, find_access, find_access_as_kubectl, load_kubeconfig
from kmseal_dev.certificates import Authority


def write(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
        "clusters": [{"name": "k", "cluster": cluster or {"server": "http://127.0.0.1:1/"}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_current_context_is_read(tmp_path: Path) -> None:
    """Server, token and namespace come from the current context."""
    access = load_kubeconfig(write(tmp_path, {"token": "t"}))
    assert (access.server, access.token.get(), access.namespace) == ("http://127.0.0.1:1", "t", "n")


def test_kubeconfig_variable_is_followed(tmp_path: Path) -> None:
    """Without an explicit file, KUBECONFIG says which."""
    path = write(tmp_path, {"token": "t"})
    assert find_access({"KUBECONFIG": str(path)}).token.get() == "t"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a pod, whose ServiceAccount is mounted, and an empty home folder."""
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("of-the-pod", encoding="ascii")
    (account / "ca.crt").write_bytes(Authority().certificate)
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT_DIR", account)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def test_who_names_a_cluster_in_a_pod_means_that_one(tmp_path: Path, pod: dict[str, str]) -> None:
    """A job of CI in one cluster judges another; a server in the same place takes its own."""
    path = write(tmp_path, {"token": "t"})
    named = pod | {"KUBECONFIG": str(path)}
    assert find_access_as_kubectl(named).token.get() == "t"
    assert find_access(named).token.get() == "of-the-pod"
    assert find_access_as_kubectl(pod).token.get() == "of-the-pod"
    with pytest.raises(Misconfigured, match="/nonexistent"):
        find_access_as_kubectl(pod | {"KUBECONFIG": "/nonexistent"})
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    path.rename(tmp_path / "home" / ".kube" / "config")
    assert find_access_as_kubectl(pod).token.get() == "t"


def test_files_that_are_missing_are_passed_over(tmp_path: Path) -> None:
    """As kubectl has it; an option that names one is held to it."""
    path = write(tmp_path, {"token": "t"})
    assert find_access_as_kubectl({"KUBECONFIG": f"/nonexistent::{path}"}).token.get() == "t"
    with pytest.raises(Misconfigured, match="/nonexistent"):
        find_access_as_kubectl({"KUBECONFIG": str(path)}, "/nonexistent")


def test_of_several_files_the_first_with_an_item_counts(tmp_path: Path) -> None:
    """Contexts, clusters and users may stand in different ones, and paths are relative to where they stand."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (two / "secret").write_text("from-two", encoding="ascii")
    first, second = write(one, {"token": "t"}), write(two, {"tokenFile": "secret"})
    content = yaml.safe_load(first.read_text(encoding="utf-8"))
    del content["users"]
    first.write_text(yaml.safe_dump(content | {"current-context": ""}), encoding="utf-8")
    content = yaml.safe_load(second.read_text(encoding="utf-8"))
    content["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:2"
    second.write_text(yaml.safe_dump(content), encoding="utf-8")
    access = find_access_as_kubectl({"KUBECONFIG": f"{first}:{second}"})
    assert (access.server, access.token.get()) == ("http://127.0.0.1:1", "from-two")
    with pytest.raises(Misconfigured, match='no item named "other"'):
        find_access_as_kubectl({"KUBECONFIG": f"{first}:{second}"}, context="other")


@pytest.mark.parametrize("plugin", ["exec", "auth-provider"])
def test_plugins_are_not_run(tmp_path: Path, plugin: str) -> None:
    """A credential plugin is refused by the path of its field."""
    with pytest.raises(Misconfigured) as caught:
        load_kubeconfig(write(tmp_path, {plugin: {"command": "/bin/true"}}))
    assert caught.value.field.endswith(plugin)


def test_verification_cannot_be_switched_off(tmp_path: Path) -> None:
    """insecure-skip-tls-verify is refused."""
    cluster = {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}
    with pytest.raises(Misconfigured, match="verification"):
        load_kubeconfig(write(tmp_path, {"token": "t"}, cluster))


@pytest.mark.parametrize("text", ["]", "a: 1", "contexts: 3\ncurrent-context: c"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    """What is no kubeconfig is refused with the file's name."""
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured, match=str(path)):
        load_kubeconfig(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is refused with its name and the remedy."""
    with pytest.raises(Misconfigured, match="--kubeconfig"):
        load_kubeconfig(tmp_path / "none")


def test_bad_certificates_are_refused(tmp_path: Path) -> None:
    """Certificate data that is no certificate is refused without quoting it."""
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": "Y2FuYXJ5"}
    with pytest.raises(Misconfigured) as caught:
        load_kubeconfig(write(tmp_path, {"token": "t"}, cluster))
    assert "canary" not in str(caught.value)


def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    """A renewed token is taken up within a minute, and the file is not read more often."""
    now = 0.0
    path = tmp_path / "token"
    path.write_text("one\n", encoding="ascii")
    token = Token(path, clock=lambda: now)
    assert token.get() == "one"
    path.write_text("two\n", encoding="ascii")
    now = 59.0
    assert token.get() == "one"
    now = 61.0
    assert token.get() == "two"
    assert "two" not in repr(token)


def test_a_token_file_that_is_away_for_a_moment_does_no_harm(tmp_path: Path) -> None:
    """While the kubelet replaces it, the token of before is sent; a file that was never there is Misconfigured."""
    now = 0.0
    path = tmp_path / "token"
    token = Token(path, clock=lambda: now)
    with pytest.raises(Misconfigured):
        token.get()
    path.write_text("one\n", encoding="ascii")
    assert token.get() == "one"
    path.unlink()
    now = 61.0
    assert token.get() == "one"
    path.write_text("", encoding="ascii")
    now = 122.0
    assert token.get() == "one"
