"""Files are replaced whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from kmseal.cli import files
from kmseal.errors import Conflict, Malformed, Misconfigured


def test_the_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    """Also where it is narrower than the umask says."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.write(str(path), b"new", replaces=b"old")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_gets_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    """As any program's file, unless the caller wants it narrower."""
    old = os.umask(0o027)
    try:
        files.write(str(tmp_path / "a"), b"")
        files.write(str(tmp_path / "b"), b"", mode=0o600)
    finally:
        os.umask(old)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")] == [0o640, 0o600]


def test_a_symbolic_link_keeps_pointing_to_its_target(tmp_path: Path) -> None:
    """The target is replaced, in its own folder."""
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    files.write(str(link), b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_file_that_changed_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    """An editor that saved while the key service was asked does not lose its work."""
    path = tmp_path / "file"
    path.write_bytes(b"edited")
    with pytest.raises(Conflict):
        files.write(str(path), b"new", replaces=b"old")
    assert path.read_bytes() == b"edited"


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk shows at fsync at the latest: before anything is renamed."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Misconfigured, match="cannot be written: no space left on device"):
        files.write(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No folder is made on the way."""
    with pytest.raises(Misconfigured, match="no such file or directory"):
        files.write(str(tmp_path / "missing" / "file"), b"")


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    """What is no file cannot be renamed over."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write(str(pipe), b"new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    """A device or a disk image is not read into memory."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read(str(path), limit=5) == b"12345"
    with pytest.raises(Malformed) as caught:
        files.read(str(path), limit=4)
    assert caught.value.reason == "TooLarge"


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, name: str) -> None:
    """Missing files and folders."""
    with pytest.raises(Malformed) as caught:
        files.read(str(tmp_path / name), limit=1)
    assert caught.value.reason == "Unreadable"
