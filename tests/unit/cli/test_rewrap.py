"""kmseal rewrap on files, with a key file: what changes, what is said, and what is left alone."""

import contextlib
import difflib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmseal.manifest import EncryptedSecret

CANARY = "canary-7f3a9c"


@pytest.fixture
def tree(run: Any, tmp_path: Path) -> Path:
    """A repository with two objects under local:dev, of which one is also under local:other, and other files."""
    Path("apps/db").mkdir(parents=True)
    db = run(
        *("create", "db", "-n", "prod", "--key", "local:dev", "--key", "local:other"),
        *("--from-literal", "user=app", "--from-literal", "password=old"),
    ).stdout
    web = run("create", "web", "-n", "prod", "--key", "local:dev", "--from-literal", "a=b", "-o", "json").stdout
    Path("apps/db/db.yaml").write_text(f"# Owner: platform\n{db}---\nkind: ConfigMap # other\n")
    Path("apps/web.json").write_text(web)
    Path("apps/chart.yaml").write_text("{{ .Values.x }}\n")
    return tmp_path


def rotate(run: Any, name: str = "dev") -> None:
    """A new primary version."""
    run("dev", "local-key", os.environ["KMSEAL_LOCAL_KEY_FILE"], "--name", name, "--rotate")


def snapshot() -> dict[str, bytes]:
    """All files and what they hold."""
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def parsed(path: str = "apps/db/db.yaml") -> EncryptedSecret:
    """The first object of a file."""
    return EncryptedSecret.parse(next(yaml.safe_load_all(Path(path).read_text())))


def keys(path: str = "apps/db/db.yaml") -> list[tuple[str, str]]:
    """Key and version of the wrappings of the first data key."""
    return [(item.key_id, item.key_version_id) for item in parsed(path).data_keys[0].wrappings]


def opens(run: Any) -> bool:
    """Whether all values are still there."""
    found = [run("decrypt", "apps/db/db.yaml", name).stdout for name in ("user", "password")]
    return [*found, run("decrypt", "apps/web.json", "a").stdout] == ["app", "old", "b"]


def test_older_versions_are_wrapped_anew_and_nothing_else_changes(run: Any, tree: Path) -> None:
    """Two lines for each wrapping; values, comments, JSON layout and other files stay."""
    before = snapshot()
    rotate(run)
    done = run("rewrap", "apps")
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "apps/db/db.yaml: prod/db: local:dev version 1 -> 2",
        "apps/web.json: prod/web: local:dev version 1 -> 2",
        "2 changed (3 files)",
    ]
    after = snapshot()
    for name in ("apps/db/db.yaml", "apps/web.json"):
        lines = list(difflib.ndiff(before[name].decode().splitlines(), after[name].decode().splitlines()))
        came = [line[2:].split(":")[0].strip(' "') for line in lines if line.startswith("+ ")]
        assert came == ["keyVersionId", "wrapped"]
        assert sum(line.startswith("- ") for line in lines) == 2
    assert before["apps/chart.yaml"] == after["apps/chart.yaml"]
    assert keys() == [("local:dev", "2"), ("local:other", "1")]
    assert opens(run)


def test_a_second_run_writes_nothing(run: Any, tree: Path) -> None:
    """No file is even touched."""
    rotate(run)
    run("rewrap", "apps")
    stats = [path.stat() for path in sorted(Path().rglob("*.*"))]
    assert run("rewrap", "apps").stderr == "2 up to date (3 files)\n"
    again = [path.stat() for path in sorted(Path().rglob("*.*"))]
    assert [(stat.st_ino, stat.st_mtime_ns) for stat in stats] == [(stat.st_ino, stat.st_mtime_ns) for stat in again]


def test_a_dry_run_says_what_would_change(run: Any, tree: Path) -> None:
    """And exits with 0; with --check it exits with 7."""
    rotate(run)
    before = snapshot()
    lines = [
        "apps/db/db.yaml: prod/db: would change: local:dev version 1 -> 2",
        "apps/web.json: prod/web: would change: local:dev version 1 -> 2",
        "2 would change (3 files)",
    ]
    assert run("rewrap", "--dry-run", "apps").stderr.splitlines() == lines
    assert run("rewrap", "--check", "apps", fails=7, errors=0).stderr.splitlines() == lines
    assert snapshot() == before
    run("rewrap", "apps")
    assert run("rewrap", "--check", "apps").stderr == "2 up to date (3 files)\n"


def test_a_report_for_programs(run: Any, tree: Path) -> None:
    """One document on standard output, with every change and every failure."""
    rotate(run)
    Path("apps/bad.yaml").write_text("kind: EncryptedSecret\nmetadata: {name: bad, namespace: prod}\n")
    Path("apps/broken.yaml").write_text("kind: EncryptedSecret\n\t- x\n")
    done = run("rewrap", "apps", "-o", "json", fails=3, errors=2, report=True)
    report = json.loads(done.stdout)
    assert (report["dryRun"], report["files"]) == (False, 5)
    (change,) = report["objects"][1]["changes"]
    assert change == {
        "dataKeyId": parsed().data_keys[0].id,
        "wholeDataKey": False,
        "from": {"keyId": "local:dev", "keyVersionId": "1"},
        "to": {"keyId": "local:dev", "keyVersionId": "2"},
    }
    assert [(item["file"], item["namespace"], item["name"], item["outcome"]) for item in report["objects"]] == [
        ("apps/bad.yaml", "prod", "bad", "Failed"),
        ("apps/db/db.yaml", "prod", "db", "Changed"),
        ("apps/web.json", "prod", "web", "Changed"),
    ]
    assert [(item["file"], item["field"], item["reason"], item["exitCode"]) for item in report["failures"]] == [
        ("apps/bad.yaml", "apiVersion", "MissingField", 3),
        ("apps/broken.yaml", "", "Syntax", 3),
    ]


def test_wrappings_move_to_another_key(run: Any, tree: Path) -> None:
    """Where there is one wrapping, without being asked which."""
    done = run("rewrap", "--to-key", "local:other", "apps/web.json")
    assert done.stderr.splitlines()[0] == "apps/web.json: prod/web: local:dev version 1 -> local:other version 1"
    assert keys("apps/web.json") == [("local:other", "1")]
    assert opens(run)


def test_of_several_wrappings_one_has_to_be_named(run: Any, tree: Path) -> None:
    """The object is named, its neighbour is moved all the same; with --from-key, only that one moves."""
    run("dev", "local-key", "more", "--name", "new")
    both = json.loads(Path(os.environ["KMSEAL_LOCAL_KEY_FILE"]).read_text())
    both["keys"] |= json.loads(Path("more").read_text())["keys"]
    Path(os.environ["KMSEAL_LOCAL_KEY_FILE"]).write_text(json.dumps(both))
    before = Path("apps/db/db.yaml").read_bytes()
    done = run("rewrap", "--to-key", "local:new", "apps", fails=3)
    assert "error: apps/db/db.yaml: prod/db: spec.dataKeys: has wrappings under 2 keys: local:dev, local:other; " in (
        done.stderr
    )
    assert Path("apps/db/db.yaml").read_bytes() == before
    assert keys("apps/web.json") == [("local:new", "1")]
    run("rewrap", "--to-key", "local:new", "--from-key", "local:other", "apps")
    assert keys() == [("local:dev", "1"), ("local:new", "1")]
    assert keys("apps/web.json") == [("local:new", "1")]
    assert opens(run)


def test_a_wrapping_that_moves_to_where_another_is_goes(run: Any, tree: Path) -> None:
    """Two wrappings by one key are not possible, and the one that is there opens."""
    done = run("rewrap", "--to-key", "local:other", "--from-key", "local:dev", "apps/db/db.yaml")
    assert "apps/db/db.yaml: prod/db: - local:dev version 1" in done.stderr
    assert keys() == [("local:other", "1")]
    assert opens(run)


def test_a_key_is_added_and_removed(run: Any, tree: Path) -> None:
    """Where it is there already, or is not there, nothing happens; both at once are possible."""
    done = run("rewrap", "--add-key", "local:other", "apps")
    assert done.stderr.splitlines() == [
        "apps/web.json: prod/web: + local:other version 1",
        "1 changed, 1 up to date (3 files)",
    ]
    assert keys("apps/web.json") == [("local:dev", "1"), ("local:other", "1")]
    done = run("rewrap", "--remove-key", "local:dev", "apps")
    assert done.stderr.splitlines()[:2] == [
        "apps/db/db.yaml: prod/db: - local:dev version 1",
        "apps/web.json: prod/web: - local:dev version 1",
    ]
    run("rewrap", "--add-key", "local:dev", "--remove-key", "local:other", "apps")
    assert keys() == keys("apps/web.json") == [("local:dev", "1")]
    assert opens(run)


def test_the_last_wrapping_is_not_removed(run: Any, tree: Path) -> None:
    """Nothing could open the values any more."""
    before = snapshot()
    done = run("rewrap", "--remove-key", "local:dev", "apps/web.json", fails=3)
    assert "spec.dataKeys[0].wrappings: would have no wrapping left; add another key first" in done.stderr
    assert snapshot() == before


def test_a_key_is_removed_without_any_key_service(run: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be opened for it."""
    monkeypatch.delenv("KMSEAL_LOCAL_KEY_FILE")
    run("rewrap", "--remove-key", "local:other", "apps/db")
    assert keys() == [("local:dev", "1")]


def test_what_fails_does_not_stop_its_neighbours(run: Any, tree: Path) -> None:
    """Not even in the same file, and the file is written with what could be done."""
    rotate(run)
    text = Path("apps/db/db.yaml").read_text()
    moved = text.replace("name: db", "name: moved").partition("---")[0]
    Path("apps/db/db.yaml").write_text(f"{text}---\n{moved}")
    done = run("rewrap", "apps", fails=3)
    assert 'error: apps/db/db.yaml: prod/moved: spec.dataKeys[0].sealedFor: sealed for name "db"' in done.stderr
    assert "2 changed, 1 failed" in done.stderr
    after = Path("apps/db/db.yaml").read_text()
    assert after.endswith(f"---\n{moved}")
    assert keys() == [("local:dev", "2"), ("local:other", "1")]


def test_a_layout_that_cannot_be_edited_does_not_stop_its_neighbours(run: Any, tree: Path) -> None:
    """Two objects share text by an anchor; the third one of the file is written."""
    rotate(run)
    first = Path("apps/db/db.yaml").read_text().partition("---")[0]
    raw = json.loads(Path("apps/web.json").read_text())
    (data_key,) = raw["spec"].pop("dataKeys")
    wrappings = json.dumps(data_key.pop("wrappings"))
    twin = "{id: twin2222, sealedFor: prod/web, wrappings: *w}"
    keys_text = f"[{json.dumps(data_key)[:-1]}, wrappings: &w {wrappings}}}, {twin}]"
    second = json.dumps(raw)[:-2] + f', "dataKeys": {keys_text}}}}}\n'
    Path("apps/shared.yaml").write_text(f"{first}---\n{second}")
    done = run("rewrap", "apps/shared.yaml", fails=3)
    assert "apps/shared.yaml: prod/db: local:dev version 1 -> 2" in done.stderr
    assert "error: apps/shared.yaml: prod/web: spec: has a layout that cannot be edited in place" in done.stderr
    assert "1 changed, 1 failed" in done.stderr
    assert keys("apps/shared.yaml") == [("local:dev", "2"), ("local:other", "1")]
    assert Path("apps/shared.yaml").read_text().endswith(f"---\n{second}")


def test_a_wrapping_that_fails_does_not_stop_the_others_of_its_object(run: Any, tree: Path) -> None:
    """A key that is gone: its wrapping stays as it is, the other one is wrapped anew, and the run says so."""
    rotate(run)
    file = Path(os.environ["KMSEAL_LOCAL_KEY_FILE"])
    content = json.loads(file.read_text())
    del content["keys"]["other"]
    file.write_text(json.dumps(content))
    done = run("rewrap", "apps", fails=4)
    assert "prod/db: local:dev version 1 -> 2" in done.stderr
    assert "error: apps/db/db.yaml: prod/db: spec.dataKeys[0].wrappings[1]: " in done.stderr
    assert keys() == [("local:dev", "2"), ("local:other", "1")]


def test_an_unused_data_key_is_wrapped_anew_as_well(run: Any, tree: Path) -> None:
    """Or its old version would never be free."""
    content = json.loads(Path("apps/web.json").read_text())
    (first,) = content["spec"]["dataKeys"]
    content["spec"]["dataKeys"].append(first | {"id": "unused22"})
    Path("apps/web.json").write_text(json.dumps(content))
    rotate(run)
    run("rewrap", "apps/web.json")
    found = parsed("apps/web.json").data_keys
    assert [(item.id, item.wrappings[0].key_version_id) for item in found] == [(first["id"], "2"), ("unused22", "2")]


def test_manifests_without_a_namespace(run: Any, tree: Path) -> None:
    """Kustomize puts it in: what they were sealed for counts, and --namespace may say it."""
    rotate(run)
    text = Path("apps/db/db.yaml").read_text().replace("  namespace: prod\n", "")
    Path("apps/db/db.yaml").write_text(text)
    assert "db.yaml: prod/db: local:dev version 1 -> 2" in run("rewrap", "apps/db").stderr
    run("rewrap", "apps/db", "-n", "prod")
    done = run("rewrap", "apps/db", "-n", "dev", fails=3)
    assert 'sealed for namespace "prod", this object is in "dev"' in done.stderr


def test_a_file_that_changes_meanwhile_is_not_overwritten(
    run: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody saved while it was being worked on; the other files are written."""
    from kmseal.cli.documents import Stream

    rotate(run)
    edit = Stream.edit_all

    def edit_slowly(self: Stream, *arguments: Any) -> Stream:
        if "platform" in self.text:
            Path("apps/db/db.yaml").write_text("saved by an editor")
        return edit(self, *arguments)

    monkeypatch.setattr(Stream, "edit_all", edit_slowly)
    done = run("rewrap", "apps", fails=5)
    assert "error: apps/db/db.yaml: prod/db: changed while it was being edited; run the command again" in done.stderr
    assert Path("apps/db/db.yaml").read_text() == "saved by an editor"
    assert keys("apps/web.json") == [("local:dev", "2")]


@pytest.mark.parametrize(
    "bury",
    [
        lambda text: "extraObjects:\n-\n" + "".join(f"  {line}\n" for line in text.splitlines()),
        lambda text: "kind: ConfigMap\ndata:\n  db: |\n" + "".join(f"    {line}\n" for line in text.splitlines()),
        lambda text: json.dumps([{"op": "add", "value": yaml.safe_load(text)["spec"]["dataKeys"][0]["wrappings"][0]}]),
    ],
    ids=["values", "text", "patch"],
)
def test_wrappings_that_are_not_met_as_objects_are_told(run: Any, tree: Path, bury: Any) -> None:
    """They are not brought up to date, and silence would say that they are; --exclude leaves them out."""
    text = Path("apps/db/db.yaml").read_text().partition("---")[0]
    Path("apps/values.yaml").write_text(bury(text))
    done = run("rewrap", "--check", "apps", fails=3)
    assert "error: apps/values.yaml: has wrappings outside of EncryptedSecrets" in done.stderr
    assert run("rewrap", "--check", "apps", "--exclude", "values.yaml").stderr == "2 up to date (3 files)\n"


def test_an_object_whose_kind_is_escaped_is_one(run: Any, tree: Path) -> None:
    """JSON and YAML may write any character by its number."""
    rotate(run)
    text = Path("apps/web.json").read_text().replace("EncryptedSecret", "\\u0045ncryptedSecret")
    Path("apps/web.json").write_text(text)
    assert "apps/web.json: prod/web: local:dev version 1 -> 2" in run("rewrap", "apps").stderr


def test_a_manifest_in_utf_16_is_not_passed_over(run: Any, tree: Path) -> None:
    """kubectl reads it; here it is refused."""
    Path("apps/web.json").write_bytes(Path("apps/web.json").read_text().encode("utf-16"))
    assert "apps/web.json: is not UTF-8 text" in run("rewrap", "--check", "apps", fails=3).stderr


@pytest.mark.parametrize("command", [("rewrap", "--check"), ("rotate", "--dry-run")])
def test_what_is_excluded_is_left_alone(run: Any, tree: Path, command: tuple[str, ...]) -> None:
    """One template of a chart does not keep a whole tree from being checked."""
    Path("charts/templates").mkdir(parents=True)
    Path("charts/templates/db.yaml").write_text("kind: EncryptedSecret\n{{ if }}\n")
    assert "charts/templates/db.yaml: is not valid YAML" in run(*command, "apps", "charts", fails=3).stderr
    assert run(*command, "apps", "charts", "--exclude", "templates").stderr.endswith("(3 files)\n")


def test_a_pipe_is_not_waited_for(run: Any, tree: Path) -> None:
    """Nobody may ever write into it."""
    os.mkfifo("pipe.yaml")
    assert "pipe.yaml: is not a regular file" in run("rewrap", "pipe.yaml", fails=3).stderr


def test_a_large_file_without_an_object_is_none_of_our_business(run: Any, tree: Path) -> None:
    """Data stand in repositories as well; one that has an object is refused."""
    with Path("apps/data.json").open("wb") as file:
        file.truncate(70_000_000)
    assert run("rewrap", "--check", "apps").stderr == "2 up to date (4 files)\n"
    with Path("apps/data.json").open("ab") as file:
        file.write(b"kind: EncryptedSecret")
    assert "apps/data.json: is larger than" in run("rewrap", "--check", "apps", fails=3).stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--remove-key", "local:typo"), "--remove-key: no object that was read has a wrapping under local:typo"),
        (
            ("--from-key", "local:typo", "--to-key", "local:other"),
            "--from-key: no object that was read has a wrapping under local:typo",
        ),
    ],
)
def test_a_key_that_no_object_has_is_told(run: Any, tree: Path, arguments: tuple[str, ...], line: str) -> None:
    """It is a typing error, which would look like success."""
    done = run("rewrap", "apps", *arguments)
    assert f"warning: {line}\n" in done.stderr
    assert "2 up to date" in done.stderr
    assert "warning" not in run("rewrap", "apps", "--remove-key", "local:other").stderr


def test_rotate_says_which_key_will_not_open_any_more(run: Any, tree: Path) -> None:
    """As kmseal set does: a region that is lost is noticed when the other one is down."""
    done = run("rotate", "--key", "local:dev", "apps")
    assert 'warning: prod/db: what is encrypted anew will not open with "local:other", as it did\n' in done.stderr
    assert done.stderr.count("warning: ") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("rewrap", "missing"), 3, '"missing" means no file'),
        (("rewrap", "-"), 3, "standard input cannot be edited"),
        (("rewrap", "apps", "--to-key", "nonsense"), 3, '--to-key: "nonsense" is not a key'),
        (("rewrap", "apps", "--add-key", "nonsense"), 3, '--add-key: "nonsense" is not a key'),
        (("rewrap", "apps", "--remove-key", "acs:kms:a-b:1:alias/x"), 3, "--remove-key: is not the id of a key"),
        (("rewrap", "apps/web.json", "--to-key", "local:gone"), 4, "local:gone"),
        (("rewrap", "apps/web.json", "--add-key", "local:gone"), 4, "local:gone"),
        (("rewrap", "apps", "--from-cluster", "--kubeconfig", "missing"), 6, "the kubeconfig missing cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_the_files(
    run: Any, tree: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    """Before any file is written."""
    before = snapshot()
    assert line in run(*arguments, fails=code).stderr
    assert snapshot() == before


def test_a_terminal_shows_progress_and_logs_do_not(run: Any, tree: Path) -> None:
    """At a real terminal; what is piped holds the lines only."""
    rotate(run)
    terminal, inside = pty.openpty()
    program = str(Path(sys.executable).with_name("kmseal"))
    try:
        done = subprocess.run(
            [program, "rewrap", "apps"], stdout=subprocess.PIPE, stderr=inside, check=True, timeout=60
        )
        os.close(inside)
        shown = b""
        with contextlib.suppress(OSError):  # The end of a terminal is an error.
            while piece := os.read(terminal, 4096):
                shown += piece
    finally:
        os.close(terminal)
    assert done.stdout == b""
    assert b"Re-wrapping" in shown
    assert b"100%" in shown
    assert shown.endswith(b"2 changed (3 files)\r\n")
    assert "Re-wrapping" not in run("rewrap", "apps").output


def test_no_object_is_no_failure(run: Any, tree: Path) -> None:
    """But it is said, because it may be a typing error."""
    assert run("rewrap", "apps/chart.yaml").stderr == "no EncryptedSecret found (1 file)\n"
