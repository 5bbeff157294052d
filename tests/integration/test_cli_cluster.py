"""The command line against the real kube-apiserver: newer wrappings into Git, the table of keys, and the gate.

What the operator would write into status is written here by kubectl: these tests are about who reads it. The rights
are those of docs/rotation-in-git.md, taken from the document itself.
"""

import json
import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from kmseal.cli.main import cli
from kmseal.manifest import DataKey, EncryptedSecret
from kmseal.rewrapped import Rewrapped, digest
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError

DOCUMENT = Path(__file__).parents[2] / "docs" / "rotation-in-git.md"
GIT = "system:serviceaccount:kmseal-system:kmseal-git"

Run = Callable[..., Result]


def blocks(language: str) -> list[str]:
    """The code of the document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reader(control_plane: ControlPlane, crds: None) -> Path:
    """A kubeconfig with the rights that the document grants, and no others."""
    if not control_plane.kubectl("get", "namespace", "kmseal-system", "--ignore-not-found"):
        control_plane.kubectl("create", "namespace", "kmseal-system")
    control_plane.kubectl("apply", "--filename", "-", stdin=blocks("yaml")[0])
    path = control_plane.kubeconfig_for(GIT)
    deadline = time.monotonic() + 10
    while True:  # The authorizer learns of new roles a moment later.
        try:
            control_plane.kubectl("get", "kmskeys", kubeconfig=path)
        except ControlPlaneError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in an empty folder, with a key file of its own."""
    for name in list(os.environ):
        if name.startswith(("KMSEAL_", "ALIBABA_CLOUD_", "KUBE")):
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("KMSEAL_LOCAL_KEY_FILE", str(tmp_path / "keys"))

    def run(*arguments: str, fails: int = 0, stdin: str | None = None) -> Result:
        done = CliRunner().invoke(cli, arguments, prog_name="kmseal", input=stdin)
        assert done.exit_code == fails, done.output
        return done

    run("dev", "local-key", str(tmp_path / "keys"), "--name", "dev", "--name", "other")
    return run


class Repository:
    """Manifests in the current folder, and the same objects in a namespace of the cluster."""

    def __init__(self, control_plane: ControlPlane, run: Run, namespace: str) -> None:
        self._control_plane = control_plane
        self._run = run
        self.namespace = namespace

    def seal(self, name: str, *keys: str) -> None:
        """A file with one object, in Git and in the cluster."""
        options = [option for key in keys or ("local:dev",) for option in ("--key", key)]
        made = self._run("create", name, "-n", self.namespace, *options, "--from-literal", "a=b").stdout
        Path(f"{name}.yaml").write_text(f"# {name}\n{made}")
        self._control_plane.kubectl("apply", "--filename", f"{name}.yaml")

    def rotate(self) -> None:
        """A new primary version of local:dev."""
        self._run("dev", "local-key", os.environ["KMSEAL_LOCAL_KEY_FILE"], "--name", "dev", "--rotate")

    def rewrap_in_cluster(self, name: str) -> None:
        """What the operator does after a rotation: newer wrappings beside the object, and spec stays."""
        before = Path(f"{name}.yaml").read_bytes()
        old = self.data_keys(name)
        self._run("rewrap", f"{name}.yaml")
        rewrapped = [
            Rewrapped(data_key.id, digest(wrapping), newer).to_dict()
            for data_key, updated in zip(old, self.data_keys(name), strict=True)
            for wrapping, newer in zip(data_key.wrappings, updated.wrappings, strict=True)
            if wrapping != newer
        ]
        Path(f"{name}.yaml").write_bytes(before)
        self.set_status("encryptedsecret", name, {"rewrapped": rewrapped})

    def set_status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """As only the operator may."""
        self._control_plane.kubectl(
            *("patch", kind, name, "--namespace", self.namespace, "--subresource=status", "--type=merge"),
            f"--patch={json.dumps({'status': status})}",
        )

    @staticmethod
    def data_keys(name: str) -> tuple[DataKey, ...]:
        """Of an object in Git."""
        return EncryptedSecret.parse(yaml.safe_load(Path(f"{name}.yaml").read_text())).data_keys

    def versions(self, name: str) -> list[str]:
        """Of the wrappings in Git."""
        return [item.key_version_id for data_key in self.data_keys(name) for item in data_key.wrappings]


@pytest.fixture
def repository(control_plane: ControlPlane, crds: None, run: Run, namespace: str) -> Repository:
    return Repository(control_plane, run, namespace)


def test_newer_wrappings_come_from_the_cluster(
    control_plane: ControlPlane,
    run: Run,
    repository: Repository,
    reader: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the document's rights, without any key, by one list; only wrapping lines change, and the values open."""
    for name in ("db", "web", "later"):
        repository.seal(name, "local:dev", "local:other")
    repository.rotate()
    for name in ("db", "web"):
        repository.rewrap_in_cluster(name)
    before = Path("db.yaml").read_text()
    log = control_plane.audit_log()
    with monkeypatch.context() as without:
        without.delenv("KMSEAL_LOCAL_KEY_FILE")
        done = run("rewrap", "--from-cluster", "--kubeconfig", str(reader), ".")
    assert done.stderr.splitlines() == [
        f"db.yaml: {repository.namespace}/db: local:dev version 1 -> 2",
        f"web.yaml: {repository.namespace}/web: local:dev version 1 -> 2",
        "2 changed, 1 up to date (3 files)",
    ]
    asked = [(event.verb, event.resource, event.namespace) for event in log.events(user=GIT)]
    assert asked == [("list", "encryptedsecrets", repository.namespace)]
    after = Path("db.yaml").read_text()
    pairs = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert [new.split(":")[0].strip() for _, new in pairs] == ["keyVersionId", "wrapped"]
    assert repository.versions("db") == ["2", "1"]
    assert run("decrypt", "db.yaml", "a").stdout == "b"
    # Git is ahead now, until it is applied: that is no difference to be told.
    done = run("rewrap", "--from-cluster", "--kubeconfig", str(reader), ".")
    assert done.stderr == "3 up to date (3 files)\n"
    control_plane.kubectl("apply", "--filename", "db.yaml")
    assert run("rewrap", "--from-cluster", "--kubeconfig", str(reader), ".").stderr == "3 up to date (3 files)\n"


def test_check_says_that_git_is_behind(run: Run, repository: Repository, reader: Path) -> None:
    """By exit code 7, without writing; a report for programs says what."""
    repository.seal("db")
    repository.rotate()
    cluster = ("--from-cluster", "--kubeconfig", str(reader))
    assert run("rewrap", "--check", *cluster, "db.yaml").exit_code == 0
    repository.rewrap_in_cluster("db")
    before = Path("db.yaml").read_bytes()
    done = run("rewrap", "--check", *cluster, "db.yaml", "-o", "json", fails=7)
    (item,) = json.loads(done.stdout)["objects"]
    assert item["outcome"] == "Changed"
    assert item["changes"][0]["to"] == {"keyId": "local:dev", "keyVersionId": "2"}
    assert run("rewrap", "--dry-run", *cluster, "db.yaml").exit_code == 0
    assert Path("db.yaml").read_bytes() == before


def test_what_is_not_in_the_cluster_or_differs_is_told(run: Run, repository: Repository, reader: Path) -> None:
    """What fits is taken over all the same, and a stand-in for something else is not."""
    for name in ("gone", "other", "half"):
        repository.seal(name)
    repository.rotate()
    for name in ("other", "half"):
        repository.rewrap_in_cluster(name)
    repository._control_plane.kubectl("delete", "encryptedsecret", "gone", "--namespace", repository.namespace)
    run("rotate", "other.yaml")
    run("set", "half.yaml", "c=d")
    before = Path("other.yaml").read_bytes()
    done = run("rewrap", "--from-cluster", "--kubeconfig", str(reader), ".")
    lines = done.stderr.splitlines()
    assert f"gone.yaml: {repository.namespace}/gone: is not in the cluster" in lines
    assert [line for line in lines if line.startswith(f"other.yaml: {repository.namespace}/other: differs from the")]
    assert f"half.yaml: {repository.namespace}/half: local:dev version 1 -> 2" in lines
    assert Path("other.yaml").read_bytes() == before
    assert [run("decrypt", "half.yaml", name).stdout for name in ("a", "c")] == ["b", "d"]


def test_a_status_that_nobody_can_read_changes_nothing(run: Run, repository: Repository, reader: Path) -> None:
    """A wrapping of another object has another digest."""
    repository.seal("db")
    repository.seal("web")
    repository.rotate()
    repository.rewrap_in_cluster("web")
    live = json.loads(
        repository._control_plane.kubectl("get", "encryptedsecret", "web", "-n", repository.namespace, "-o", "json")
    )
    repository.set_status("encryptedsecret", "db", {"rewrapped": live["status"]["rewrapped"]})
    before = Path("db.yaml").read_bytes()
    done = run("rewrap", "--from-cluster", "--kubeconfig", str(reader), "db.yaml")
    assert done.stderr == "1 up to date (1 file)\n"
    assert Path("db.yaml").read_bytes() == before


def test_a_missing_right_is_told_for_each_object(control_plane: ControlPlane, run: Run, repository: Repository) -> None:
    """With the verb, the resource and the namespace; the namespace is asked for once."""
    repository.seal("db")
    repository.seal("web")
    nobody = control_plane.kubeconfig_for("nobody")
    log = control_plane.audit_log()
    done = run("rewrap", "--from-cluster", "--kubeconfig", str(nobody), ".", fails=4)
    assert done.stderr.count("error: ") == 2
    remedy = f"ask for the verb list on encryptedsecrets.kmseal.dev in namespace {repository.namespace}"
    assert done.stderr.count(remedy) == 2
    assert len(log.events(user="nobody")) == 1
    assert "kmskeys" in run("keys", "--kubeconfig", str(nobody), fails=4).stderr


def test_a_cluster_that_is_down_is_5(run: Run, repository: Repository, reader: Path) -> None:
    """Try again; nothing is written."""
    repository.seal("db")
    content = yaml.safe_load(reader.read_text())
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    Path("down").write_text(yaml.safe_dump(content))
    assert "cannot be reached" in run("rewrap", "--from-cluster", "--kubeconfig", "down", "db.yaml", fails=5).stderr


def test_a_context_is_chosen(run: Run, repository: Repository, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kubeconfig that the environment names."""
    repository.seal("db")
    content = yaml.safe_load(reader.read_text())
    content["contexts"].append(content["contexts"][0] | {"name": "second"})
    content["current-context"] = "missing"
    Path("kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", "kubeconfig")
    assert run("rewrap", "--from-cluster", "--context", "second", "db.yaml").stderr == "1 up to date (1 file)\n"
    assert 'no item named "third"' in run("rewrap", "--from-cluster", "--context", "third", "db.yaml", fails=6).stderr


@pytest.fixture
def kms_key(repository: Repository) -> Iterator[str]:
    """A KMSKey for a key of this test alone, whose alias moved from key-a to key-b; the account's number."""
    account = str(secrets.randbelow(10**15))
    name, arn = f"test-{account}", f"acs:kms:cn-hangzhou:{account}"
    manifest = {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "KMSKey",
        "metadata": {"name": name},
        "spec": {"keyId": f"{arn}:alias/app"},
    }
    repository._control_plane.kubectl("apply", "--filename", "-", stdin=json.dumps(manifest))
    status = {
        "observedGeneration": 1,
        "keyId": f"{arn}:key/b",
        "state": "Enabled",
        "primaryVersion": "b2",
        "previousKeys": [f"{arn}:key/a"],
        "versions": [
            {"keyId": f"{arn}:key/b", "id": "b1", "primary": False, "inGit": 0, "inCluster": 0},
            {"keyId": f"{arn}:key/b", "id": "b2", "primary": True, "inGit": 3, "inCluster": 4},
        ],
        "objects": 4,
        "stale": {"inCluster": 0, "inGit": 1, "objects": []},
        "safeToDisable": [{"keyId": f"{arn}:key/a"}, {"keyId": f"{arn}:key/b", "keyVersionId": "b1"}],
    }
    repository.set_status("kmskey", name, status)
    yield account
    repository._control_plane.kubectl("delete", "kmskey", name)


def sealed_under(repository: Repository, name: str, key_id: str, version: str) -> str:
    """A manifest whose wrapping names a key that nobody has."""
    repository.seal(name)
    text = Path(f"{name}.yaml").read_text()
    text = text.replace("local:dev", key_id).replace('keyVersionId: "1"', f"keyVersionId: {version}")
    Path(f"{name}.yaml").write_text(text.replace("LOCAL_AES_256_GCM", "KMS_SYMMETRIC"))
    return Path(f"{name}.yaml").read_text()


def test_the_table_shows_what_the_operator_says(run: Run, reader: Path, kms_key: str) -> None:
    """One line for each KMSKey; the document's rights are enough."""
    lines = run("keys", "--kubeconfig", str(reader)).stdout.splitlines()
    assert re.split(r" {3,}", lines[0]) == [
        *("KEY", "STATE", "VERSION", "OBJECTS", "STALE IN CLUSTER", "STALE IN GIT", "SAFE TO DISABLE"),
    ]
    (line,) = (line for line in lines if kms_key in line)
    arn = f"acs:kms:cn-hangzhou:{kms_key}"
    assert re.split(r" {3,}", line) == [f"{arn}:alias/app", "Enabled", "b2", "4", "0", "1", f"{arn}:key/a, b1"]


def test_files_close_the_gate(run: Run, repository: Repository, reader: Path, kms_key: str) -> None:
    """What a file needs is not safe, and it is said which; when the files are up to date, it is."""
    arn = f"acs:kms:cn-hangzhou:{kms_key}"
    sealed_under(repository, "db", f"{arn}:key/a", "a1")
    sealed_under(repository, "web", f"{arn}:key/b", "b2")
    Path("more").mkdir()

    def found(*paths: str, fails: int = 0) -> dict[str, Any]:
        git = ("--git", *paths) if paths else ()
        done = run("keys", "--kubeconfig", str(reader), *git, "-o", "json", fails=fails)
        (key,) = (key for key in json.loads(done.stdout)["keys"] if kms_key in key["key"])
        assert isinstance(key, dict)
        return key

    assert found()["safeToDisable"] == [{"keyId": f"{arn}:key/a"}, {"keyId": f"{arn}:key/b", "keyVersionId": "b1"}]
    key = found("db.yaml", "web.yaml")
    assert key["safeToDisable"] == [{"keyId": f"{arn}:key/b", "keyVersionId": "b1"}]
    assert key["neededByFiles"] == [{"keyId": f"{arn}:key/a", "objects": 1}]
    assert key["stale"] == {"inCluster": 0, "inGit": 1, "inFiles": 1}
    assert len(found("web.yaml", "more")["safeToDisable"]) == 2
    Path("more/bad.yaml").write_text("kind: EncryptedSecret\n{{ x }}\n")
    assert found("web.yaml", "more", fails=3)["safeToDisable"] == []
    assert len(found("web.yaml", "more", "--exclude", "bad.yaml")["safeToDisable"]) == 2
    Path("more/bad.yaml").write_text(f"# {arn}:key/a\nextraObjects: []\n")
    assert found("web.yaml", "more", fails=3)["safeToDisable"] == [{"keyId": f"{arn}:key/b", "keyVersionId": "b1"}]
    Path("more/bad.yaml").unlink()
    assert found("more", fails=3)["safeToDisable"] == [], "there is no object: a wrong path"
    done = run("keys", "--kubeconfig", str(reader), "--git", "db.yaml")
    assert f"test-{kms_key}: {arn}:key/a is needed by 1 object in files" in done.stderr
    versions = [re.split(r" {3,}", line) for line in done.stdout.splitlines() if line.startswith(f"{arn}:key/")]
    assert versions == [
        [f"{arn}:key/a", "a1", "-", "-", "1"],
        [f"{arn}:key/b", "b1", "0", "0", "0"],
        [f"{arn}:key/b", "b2", "4", "3", "0"],
    ]


def test_what_was_counted_and_what_was_not_is_told(
    run: Run, repository: Repository, reader: Path, kms_key: str
) -> None:
    """Objects, files, and what --exclude has left out; for programs as well."""
    sealed_under(repository, "db", f"acs:kms:cn-hangzhou:{kms_key}:key/b", "b2")
    Path("chart").mkdir()
    Path("chart/db.yaml").write_text("kind: EncryptedSecret\n{{ x }}\n")
    Path("readme").write_text("x")
    git = ("--git", "db.yaml", "chart", "readme", "--exclude", "chart")
    lines = run("keys", "--kubeconfig", str(reader), *git).stderr.splitlines()
    assert lines[-2:] == ["1 object in 1 of 2 files", "chart: not counted, as --exclude says"]
    done = json.loads(run("keys", "--kubeconfig", str(reader), *git, "-o", "json").stdout)
    assert done["files"] == {"count": 2, "objects": 1, "excluded": ["chart"]}


def test_a_status_that_has_fallen_behind_opens_no_gate(
    run: Run, repository: Repository, reader: Path, kms_key: str
) -> None:
    """The operator has stopped, and somebody applies an older manifest: what it needs is not safe."""
    arn = f"acs:kms:cn-hangzhou:{kms_key}"
    text = sealed_under(repository, "db", f"{arn}:key/b", "b1")
    repository._control_plane.kubectl("delete", "encryptedsecret", "db", "--namespace", repository.namespace)
    repository._control_plane.kubectl("apply", "--filename", "-", stdin=text)
    done = run("keys", "--kubeconfig", str(reader))
    (line,) = (line for line in done.stdout.splitlines() if f"{kms_key}:alias/app" in line)
    assert line.endswith(f"   {arn}:key/a")
    assert f"{arn}:key/b version b1 is needed by 1 object in the cluster, which the operator has not counted" in (
        done.stderr
    )
    (key,) = (
        key
        for key in json.loads(run("keys", "--kubeconfig", str(reader), "-o", "json").stdout)["keys"]
        if kms_key in key["key"]
    )
    assert key["safeToDisable"] == [{"keyId": f"{arn}:key/a"}]
    assert key["neededByCluster"] == [{"keyId": f"{arn}:key/b", "keyVersionId": "b1", "objects": 1}]


def test_a_key_comes_into_git_only_where_a_kmskey_says_so(
    run: Run, repository: Repository, reader: Path, kms_key: str
) -> None:
    """A status that names somebody's own key would have new values sealed to it; --allow-key is said on purpose."""
    arn, cluster = f"acs:kms:cn-hangzhou:{kms_key}", ("--from-cluster", "--kubeconfig", str(reader))
    text = sealed_under(repository, "db", f"{arn}:key/a", "a1")
    repository._control_plane.kubectl("apply", "--filename", "-", stdin=text)
    (data_key,) = repository.data_keys("db")
    (wrapping,) = data_key.wrappings

    def stand_in(key_id: str) -> None:
        newer = wrapping.to_dict() | {"keyId": key_id, "keyVersionId": "b2"}
        item = {"dataKeyId": data_key.id, "digest": digest(wrapping), "wrapping": newer}
        repository.set_status("encryptedsecret", "db", {"rewrapped": [item]})

    theirs = "acs:kms:cn-hangzhou:666:key/theirs"
    stand_in(theirs)
    done = run("rewrap", *cluster, "db.yaml", fails=3)
    assert f"has a wrapping under {theirs}, and no KMSKey says that this key takes over from {arn}:key/a" in done.stderr
    assert Path("db.yaml").read_text() == text
    done = run("rewrap", "--dry-run", *cluster, "--allow-key", theirs, "db.yaml")
    assert f"would change: {arn}:key/a version a1 -> {theirs} version b2\n" in done.stderr
    stand_in(f"{arn}:key/b")
    assert f"{arn}:key/a version a1 -> {arn}:key/b version b2" in run("rewrap", *cluster, "db.yaml").stderr


def test_a_file_that_is_behind_what_is_applied_is_told(run: Run, repository: Repository, reader: Path) -> None:
    """Git has brought the newer wrappings there already, and this branch has not got them."""
    repository.seal("db")
    old = Path("db.yaml").read_bytes()
    repository.rotate()
    run("rewrap", "db.yaml")
    repository._control_plane.kubectl("apply", "--filename", "db.yaml")
    cluster = ("--from-cluster", "--kubeconfig", str(reader))
    assert run("rewrap", "--check", *cluster, "db.yaml").stderr == "1 up to date (1 file)\n"
    Path("db.yaml").write_bytes(old)
    done = run("rewrap", "--check", *cluster, "db.yaml", fails=7)
    assert "db: is behind the cluster: the same data keys, under older wrappings than there\n" in done.stderr
    assert run("rewrap", *cluster, "db.yaml").stderr.endswith("1 behind the cluster (1 file)\n")
    run("rewrap", "--add-key", "local:other", "db.yaml")
    run("rewrap", "db.yaml")
    assert "1 different in the cluster" in run("rewrap", "--check", *cluster, "db.yaml").stderr


def test_each_stale_object_is_listed(run: Run, repository: Repository, reader: Path, kms_key: str) -> None:
    """In the cluster, in what the cluster has of Git, and in files."""
    arn = f"acs:kms:cn-hangzhou:{kms_key}"
    manifests = {
        "old": sealed_under(repository, "old", f"{arn}:key/a", "a1"),
        "new": sealed_under(repository, "new", f"{arn}:key/b", "b2"),
        "half": sealed_under(repository, "half", f"{arn}:key/b", "b1"),
    }
    for name, text in manifests.items():
        repository._control_plane.kubectl("delete", "encryptedsecret", name, "--namespace", repository.namespace)
        repository._control_plane.kubectl("apply", "--filename", "-", stdin=text)
    (data_key,) = repository.data_keys("half")
    (wrapping,) = data_key.wrappings
    newer = wrapping.to_dict() | {"keyVersionId": "b2"}
    item = {"dataKeyId": data_key.id, "digest": digest(wrapping), "wrapping": newer}
    repository.set_status("encryptedsecret", "half", {"rewrapped": [item]})
    done = run("keys", "--kubeconfig", str(reader), "--stale", "--git", "old.yaml", "new.yaml", "-o", "json")
    found = [item for item in json.loads(done.stdout)["stale"] if item["namespace"] == repository.namespace]
    assert sorted(
        (item["where"], item["name"], item.get("file", ""), item["to"]["keyVersionId"]) for item in found
    ) == [
        ("Cluster", "old", "", "b2"),
        ("File", "old", "old.yaml", "b2"),
        ("Git", "half", "", "b2"),
        ("Git", "old", "", "b2"),
    ]
    table = run("keys", "--kubeconfig", str(reader), "--stale").stdout
    assert re.search(rf"Git +{repository.namespace} +half +{arn}:key/b +b1 +b2\n", table)


def test_the_documents_kubeconfig_works(control_plane: ControlPlane, run: Run, reader: Path) -> None:
    """The commands that make it, as they stand in the document; it lists KMSKeys and may read no Secret."""
    programs = Path(control_plane.programs.kubectl).parent
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks("bash")[0]],
        check=True,
        capture_output=True,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(control_plane.kubeconfig),
            "HOME": str(Path.cwd()),
        },
    )
    assert Path("kmseal-git.kubeconfig").stat().st_mode & 0o077 == 0
    assert run("keys", "--kubeconfig", "kmseal-git.kubeconfig").stdout.startswith("KEY ")
    answer = control_plane.kubectl(
        "auth", "can-i", "--list", "--no-headers", kubeconfig=Path("kmseal-git.kubeconfig").resolve()
    )
    assert "secrets " not in re.sub(r"encryptedsecrets\.kmseal\.dev", "", answer)


def test_every_command_of_the_document_is_one(run: Run, tmp_path: Path) -> None:
    """Its options are parsed as the program parses them; the workflows are YAML."""
    for text in blocks("yaml"):
        assert list(yaml.safe_load_all(text))
    commands = re.findall(
        r"^[ -]*(kmseal (?:rewrap|keys)[^\n#|]*?)(?: 2> .*| \|\| .*)?$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(commands) >= 7
    for command in commands:
        words = shlex.split(os.path.expandvars(command))[1:]
        context = click.Context(cli, info_name="kmseal")
        name, subcommand, rest = cli.resolve_command(context, words)
        assert subcommand is not None
        made = subcommand.make_context(name, list(rest), parent=context)
        assert made.params.get("paths") == ("clusters/prod",)
