"""The layout of the volume: what readers see, crashes and errors at every step, and what others may have planted."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal_agent import files
from kmseal_agent.errors import Terminal

OLD = {"password": b"old", "user": b"old", "gone": b"old"}
NEW = {"password": b"new", "user": b"new", "fresh": b"new"}
CALLS = ["open", "close", "mkdir", "fchmod", "fstat", "stat", "write", "read", "symlink", "rename", "readlink",
         "listdir", "unlink", "rmdir"]  # fmt: skip


class Crash(BaseException):
    """The process is gone: nothing that would still run may do anything."""


class CountingOs:
    """The module ``os``, whose n-th call fails: once with an error, or with a crash and all that follow with it."""

    def __init__(self, fails_at: int, failure: BaseException) -> None:
        self.calls = 0
        self._fails_at = fails_at
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in CALLS else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            crashed = self.calls > self._fails_at and isinstance(self._failure, Crash)
            if name == "close":
                # A dead process holds no descriptor, and the test must not lose one.
                real(*arguments, **options)
            if self.calls == self._fails_at or crashed:
                raise self._failure
            return None if name == "close" else real(*arguments, **options)

        return call


def fail_everywhere(
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[[], BaseException],
    prepare: Callable[[], Path],
    act: Callable[[Path], object],
) -> Iterator[Path]:
    """Runs ``act`` in new volumes, failing at its first call of the system, its second, and so on to its last."""
    for step in range(1, 1000):
        root = prepare()
        counting = CountingOs(step, failure())
        with monkeypatch.context() as patch, suppress(Crash, Terminal):
            patch.setattr(files, "os", counting)
            act(root)
        yield root
        if counting.calls < step:
            assert step > 10, "nothing was counted"
            return
    raise AssertionError("it does not end")


def no_space() -> OSError:
    return OSError(28, "No space left on device")


@pytest.fixture
def volumes(tmp_path: Path) -> Callable[[], Path]:
    """Makes new volumes."""
    count = 0

    def make() -> Path:
        nonlocal count
        count += 1
        root = tmp_path / str(count)
        root.mkdir()
        return root

    return make


@pytest.fixture
def root(volumes: Callable[[], Path]) -> Path:
    """A volume."""
    return volumes()


def through_data(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "files/db/..data").iterdir()}


def visible(root: Path) -> dict[str, bytes]:
    folder = root / "files/db"
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("..")}


def assert_clean(root: Path, expected: Mapping[str, bytes]) -> None:
    """Exactly these files, one generation, and nothing left over."""
    folder = root / "files/db"
    assert visible(root) == through_data(root) == expected
    assert set(os.listdir(folder)) == {"..data", os.readlink(folder / "..data"), *expected}
    assert {os.readlink(folder / name) for name in expected} == {f"..data/{name}" for name in expected}


def test_the_layout(root: Path) -> None:
    """The kubelet's layout: a generation, ``..data`` to it, a link for each file, readable folders."""
    assert files.write_files(root.as_posix(), "db", OLD, 0o440) is True
    assert_clean(root, OLD)
    generation = root / "files/db" / os.readlink(root / "files/db/..data")
    for folder in (root / "files", root / "files/db", generation):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in generation.iterdir()} == {0o440}


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o640, 0o775])
def test_the_mode_ignores_the_umask(root: Path, mode: int) -> None:
    """The asked mode is the mode."""
    umask = os.umask(0o077)
    try:
        files.write_files(root.as_posix(), "db", OLD, mode)
        files.write_env(root.as_posix(), "db", b"A='b'\n", mode)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((root / "files/db/password").stat().st_mode) == mode
    assert stat.S_IMODE((root / "env/db.env").stat().st_mode) == mode


def test_the_group_of_the_pod(root: Path) -> None:
    """A volume with an fsGroup hands its group down: the set-group-id bit stays on every folder."""
    os.chown(root, -1, os.getgid())
    root.chmod(0o2777)
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    for folder in (root / "files", root / "files/db", root / "files/db" / os.readlink(root / "files/db/..data")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2755


def test_the_mode_is_there_before_the_content(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every write of content the file has its final mode already, and nobody can enter its folder."""
    modes = []

    class Watching(CountingOs):
        def __getattr__(self, name: str) -> Any:
            if name == "write":

                def write(file: int, content: bytes) -> int:
                    folder = os.path.dirname(os.readlink(f"/proc/self/fd/{file}"))
                    modes.append((stat.S_IMODE(os.fstat(file).st_mode), stat.S_IMODE(os.stat(folder).st_mode)))
                    return os.write(file, content)

                return write
            return getattr(os, name)  # fmt: skip

    monkeypatch.setattr(files, "os", Watching(0, no_space()))
    files.write_files(root.as_posix(), "db", OLD, 0o444)
    assert modes == [(0o444, 0o700)] * 3


def test_short_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a byte at a time gets all of them."""

    class Slow:
        def __getattr__(self, name: str) -> Any:
            if name == "write":
                return lambda file, content: os.write(file, bytes(content[:1]))
            return getattr(os, name)

    monkeypatch.setattr(files, "os", Slow())
    files.write_files(root.as_posix(), "db", OLD, 0o444)
    assert_clean(root, OLD)


@pytest.mark.parametrize("other", [{**OLD, "user": b"xld"}, {**OLD, "user": b"longer"}, {"user": b"old"}, NEW, {}])
def test_changes(root: Path, other: dict[str, bytes]) -> None:
    """Another value, another length, a name more or less: a change; the same again: none, and nothing is touched."""
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    before = os.readlink(root / "files/db/..data")
    assert files.write_files(root.as_posix(), "db", OLD, 0o440) is False
    assert os.readlink(root / "files/db/..data") == before
    assert files.write_files(root.as_posix(), "db", other, 0o440) is True
    assert_clean(root, other)


def test_another_mode_is_a_change(root: Path) -> None:
    """The same values with another mode are written anew."""
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    assert files.write_files(root.as_posix(), "db", OLD, 0o400) is True
    assert stat.S_IMODE((root / "files/db/user").stat().st_mode) == 0o400


def test_the_folder_stays(root: Path) -> None:
    """The folder that containers have mounted is never replaced, by changes or by a wipe and a return."""
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    number = (root / "files/db").stat().st_ino
    files.write_files(root.as_posix(), "db", NEW, 0o440)
    files.wipe(root.as_posix(), "db")
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    assert (root / "files/db").stat().st_ino == number
    assert_clean(root, OLD)


names = st.sampled_from(["a", "b", "c", ".d", "e.f", "-"])


@given(st.lists(st.dictionaries(names, st.binary(max_size=3), max_size=4) | st.none(), max_size=6))
def test_any_history(tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, bytes] | None]) -> None:
    """After any sequence of writes and wipes the folder holds exactly the last content."""
    root = tmp_path_factory.mktemp("volume")
    for content in history:
        if content is None:
            files.wipe(root.as_posix(), "db")
            assert not (root / "files/db").exists() or visible(root) == {}
        else:
            files.write_files(root.as_posix(), "db", content, 0o400)
            assert_clean(root, content)


@pytest.mark.parametrize("failure", [Crash, no_space])
def test_a_failure_at_every_step_of_a_change(
    volumes: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    """After a crash or an error at any call, readers see the old files or the new ones, and the next run repairs."""

    def prepare() -> Path:
        root = volumes()
        files.write_files(root.as_posix(), "db", OLD, 0o440)
        return root

    for root in fail_everywhere(
        monkeypatch, failure, prepare, lambda root: files.write_files(root.as_posix(), "db", NEW, 0o440)
    ):
        content = through_data(root)
        assert content in (OLD, NEW)
        for name in OLD.keys() & NEW.keys():
            assert (root / "files/db" / name).read_bytes() == content[name]
        files.write_files(root.as_posix(), "db", NEW, 0o440)
        assert_clean(root, NEW)


@pytest.mark.parametrize("failure", [Crash, no_space])
def test_a_failure_at_every_step_of_the_first_write(
    volumes: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    """The same where there is nothing yet: all files or none behind ``..data``."""
    for root in fail_everywhere(
        monkeypatch, failure, volumes, lambda root: files.write_files(root.as_posix(), "db", NEW, 0o440)
    ):
        if (root / "files/db/..data").exists():
            assert through_data(root) == NEW
        files.write_files(root.as_posix(), "db", NEW, 0o440)
        assert_clean(root, NEW)


@pytest.mark.parametrize("failure", [Crash, no_space])
def test_a_failure_at_every_step_of_the_env_file(
    volumes: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    """The env file is the old one or the new one, and the next run leaves it alone in its folder."""

    def prepare() -> Path:
        root = volumes()
        files.write_env(root.as_posix(), "db", b"A='old'\n", 0o400)
        return root

    for root in fail_everywhere(
        monkeypatch, failure, prepare, lambda root: files.write_env(root.as_posix(), "db", b"A='new'\n", 0o400)
    ):
        assert (root / "env/db.env").read_bytes() in {b"A='old'\n", b"A='new'\n"}
        files.write_env(root.as_posix(), "db", b"A='new'\n", 0o400)
        assert os.listdir(root / "env") == ["db.env"]
        assert (root / "env/db.env").read_bytes() == b"A='new'\n"


@pytest.mark.parametrize("failure", [Crash, no_space])
def test_a_failure_at_every_step_of_a_wipe(
    volumes: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    """After a crash or an error at any call of a wipe, the next one leaves no file of the secret anywhere."""

    def prepare() -> Path:
        root = volumes()
        files.write_files(root.as_posix(), "db", OLD, 0o440)
        files.write_env(root.as_posix(), "db", b"A='old'\n", 0o400)
        return root

    for root in fail_everywhere(monkeypatch, failure, prepare, lambda root: files.wipe(root.as_posix(), "db")):
        files.wipe(root.as_posix(), "db")
        assert [path for path in root.rglob("*") if path.is_file()] == []
        assert_clean(root, {})
        assert files.wipe(root.as_posix(), "db") is False


def test_a_wipe_with_no_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume in which nothing can be made any more is emptied all the same."""
    files.write_files(root.as_posix(), "db", OLD, 0o440)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return self.refuse if name in {"mkdir", "symlink"} else getattr(os, name)

        def refuse(self, *arguments: Any, **options: Any) -> None:
            raise no_space()

    monkeypatch.setattr(files, "os", Full())
    assert files.wipe(root.as_posix(), "db") is True
    assert os.listdir(root / "files/db") == []


def test_a_wipe_of_one_secret(root: Path) -> None:
    """A wipe leaves the other secrets alone, and there is nothing to wipe where nothing was written."""
    assert files.wipe(root.as_posix(), "db") is False
    assert os.listdir(root) == []
    for secret in ("db", "cache"):
        files.write_files(root.as_posix(), secret, OLD, 0o440)
        files.write_env(root.as_posix(), secret, b"A='b'\n", 0o440)
    assert files.wipe(root.as_posix(), "cache") is True
    assert_clean(root, OLD)
    assert os.listdir(root / "env") == ["db.env"]


def test_presence(root: Path) -> None:
    """A secret is present when all that the pod wants of it lies there with content."""

    def present(*, env: bool) -> bool:
        return files.is_present(root.as_posix(), "db", files=True, env=env)

    assert not present(env=False)
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    assert present(env=False)
    assert not present(env=True)
    files.write_env(root.as_posix(), "db", b"A='b'\n", 0o440)
    assert present(env=True)
    files.wipe(root.as_posix(), "db")
    assert not present(env=False)


def test_no_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full volume is told with its secret and the remedy, and takes no half-written generation with it."""
    files.write_files(root.as_posix(), "db", OLD, 0o440)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return self.refuse if name == "write" else getattr(os, name)

        def refuse(self, *arguments: Any) -> None:
            raise no_space()

    monkeypatch.setattr(files, "os", Full())
    with pytest.raises(Terminal, match=r"^db: its files cannot be written: No space left on device; check") as caught:
        files.write_files(root.as_posix(), "db", NEW, 0o440)
    assert caught.value.reason == "VolumeUnwritable"
    assert_clean(root, OLD)


@pytest.mark.parametrize("planted", ["files", "files/db", "env"])
def test_a_planted_link_to_a_folder(root: Path, tmp_path: Path, planted: str) -> None:
    """A link in place of one of our folders is refused, and nothing is written or removed behind it."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "db").mkdir(parents=True)
    for name in ("theirs", "db/theirs", "..theirs", "db.env"):
        (elsewhere / name).write_text("kept")
    (root / planted).parent.mkdir(exist_ok=True)
    (root / planted).symlink_to(elsewhere, target_is_directory=True)

    def write() -> None:
        files.write_files(root.as_posix(), "db", OLD, 0o400)
        files.write_env(root.as_posix(), "db", b"A='b'\n", 0o400)

    with pytest.raises(Terminal):
        write()
    with pytest.raises(Terminal):
        files.wipe(root.as_posix(), "db")
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["..theirs", "db", "db.env", "theirs", "theirs"]


@pytest.mark.parametrize("target", ["/etc", "../../elsewhere", "..", "plain", "..x/../../elsewhere"])
def test_a_planted_data_link(root: Path, target: str) -> None:
    """A ``..data`` that leads elsewhere is replaced and never followed."""
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    for name, content in OLD.items():
        (elsewhere / name).write_bytes(content)
        (elsewhere / name).chmod(0o440)
    folder = root / "files/db"
    folder.mkdir(parents=True)
    (folder / "..data").symlink_to(target)
    assert files.write_files(root.as_posix(), "db", OLD, 0o440) is True
    assert_clean(root, OLD)
    assert len(list(elsewhere.iterdir())) == 3


def test_planted_entries(root: Path, tmp_path: Path) -> None:
    """Links, pipes, files and folders among ours are replaced or removed, and what they point at is left alone."""
    outside = tmp_path / "outside"
    outside.write_text("kept")
    files.write_files(root.as_posix(), "db", OLD, 0o440)
    folder = root / "files/db"
    (folder / "user").unlink()
    (folder / "user").symlink_to(outside)
    (folder / "password").unlink()
    (folder / "password").write_text("planted")
    (folder / "extra").mkdir()
    (folder / "extra/deep").mkdir()
    (folder / "extra/deep/link").symlink_to(outside)
    os.mkfifo(folder / "..pipe")
    generation = folder / os.readlink(folder / "..data")
    (generation / "gone").unlink()
    os.mkfifo(generation / "gone")
    (root / "env").mkdir()
    (root / "env/db.env").symlink_to(outside)
    assert files.write_files(root.as_posix(), "db", OLD, 0o440) is True
    assert files.write_env(root.as_posix(), "db", b"A='b'\n", 0o440) is True
    assert_clean(root, OLD)
    assert not (root / "env/db.env").is_symlink()
    assert outside.read_text() == "kept"


def test_a_folder_of_somebody_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another user made is not written into: its owner could change it under us."""

    class Somebody:
        def __getattr__(self, name: str) -> Any:
            return (lambda: os.geteuid() + 1) if name == "geteuid" else getattr(os, name)

    (root / "files/db").mkdir(parents=True)
    monkeypatch.setattr(files, "os", Somebody())
    with pytest.raises(Terminal, match="Operation not permitted"):
        files.write_files(root.as_posix(), "db", OLD, 0o440)
    assert os.listdir(root / "files/db") == []


def test_no_descriptor_is_lost(root: Path) -> None:
    """Many rounds open and close alike."""
    before = len(os.listdir("/proc/self/fd"))
    for index in range(50):
        files.write_files(root.as_posix(), "db", {"a": str(index).encode()}, 0o440)
        files.write_env(root.as_posix(), "db", b"A='%d'\n" % index, 0o440)
        files.wipe(root.as_posix(), "db")
    assert len(os.listdir("/proc/self/fd")) == before
