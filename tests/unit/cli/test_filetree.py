"""Which files are met: everything for the gate, and without what is left out on purpose."""

import os
from pathlib import Path

import pytest

from kmseal.cli.filetree import find_files
from kmseal.errors import Malformed


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that a search for manifests passes over, beside some that it meets."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("a/one.yaml", "a/UPPER.YAML", "a/x.yaml.tpl", ".deploy/hidden.yaml", ".git/index", "a/sub/.git/config"),
        *("charts/app/templates/t.yaml", "charts/app/values.yaml", "a/.git-is-not-this"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    os.symlink("nowhere", "a/broken.yaml")
    os.symlink("itself", "a/itself")
    os.mkfifo("a/pipe.yaml")
    return tmp_path


def test_everything_but_git_is_met(tree: Path) -> None:
    """Hidden folders, odd names, broken links and pipes: what is passed over in silence looks safe."""
    assert sorted(find_files(["."], everything=True).files) == [
        *(".deploy/hidden.yaml", "a/.git-is-not-this", "a/UPPER.YAML", "a/broken.yaml", "a/itself", "a/one.yaml"),
        *("a/pipe.yaml", "a/x.yaml.tpl", "charts/app/templates/t.yaml", "charts/app/values.yaml"),
    ]
    assert min(find_files(["**/*.yaml"], everything=True).files) == ".deploy/hidden.yaml"


def test_manifests_are_met_whatever_the_case_of_their_name(tree: Path) -> None:
    """And nothing that cannot be read as a file."""
    assert sorted(find_files(["a"]).files) == ["a/UPPER.YAML", "a/one.yaml"]


@pytest.mark.parametrize(
    ("arguments", "excluded", "files", "left_out"),
    [
        (["."], ["charts"], ["a/UPPER.YAML", "a/one.yaml"], ["charts"]),
        (["."], ["templates/", "*.YAML"], ["a/one.yaml", "charts/app/values.yaml"],
         ["a/UPPER.YAML", "charts/app/templates"]),
        (["charts"], ["app/*.yaml"], ["charts/app/templates/t.yaml"], ["charts/app/values.yaml"]),
        (["**/*.yaml"], ["./charts"], ["a/one.yaml"], ["charts"]),
        (["a/one.yaml", "charts"], ["one.yaml"], ["charts/app/templates/t.yaml", "charts/app/values.yaml"],
         ["a/one.yaml"]),
    ],
)  # fmt: skip
def test_what_is_excluded_is_left_out_and_told(
    tree: Path, arguments: list[str], excluded: list[str], files: list[str], left_out: list[str]
) -> None:
    """By the end of the path of a file or of a folder, which is then not searched."""
    os.unlink("a/broken.yaml")
    os.unlink("a/pipe.yaml")
    found = find_files(arguments, excluded)
    assert (sorted(found.files), sorted(found.excluded)) == (files, left_out)


@pytest.mark.parametrize("pattern", ["", ".", "/"])
def test_a_pattern_that_names_nothing_is_refused(tree: Path, pattern: str) -> None:
    """Left out would be all, or nothing: neither is meant."""
    with pytest.raises(Malformed):
        find_files(["."], [pattern])
