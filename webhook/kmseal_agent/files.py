"""The files of a secret under the pod's volume: all of them change at once, or none.

Called by ``rounds``. The layout is the kubelet's own for Secrets::

    files/<secret>/..data -> ..<time>.<random>/     one rename of this link swaps all files
    files/<secret>/<name> -> ..data/<name>
    env/<secret>.env                                replaced by one rename

A crash at any step leaves the old files or the new ones, and the next call clears away what is left over. Whoever else
has mounted the volume may have planted something: everything is opened relative to its folder, no link is followed,
and a folder or file that is not ours is never trusted. Nothing is synced to a disk, because the volume is memory.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from typing import Final

from kmseal_agent.errors import Terminal

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: a planted pipe must not hold us up.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DATA: Final = "..data"


def write_files(root: str, secret: str, files: Mapping[str, bytes], mode: int) -> bool:
    """Brings the folder of a secret to exactly these files; says whether their content, names or mode changed.

    Raises :class:`Terminal` where the volume cannot be written.
    """
    with _translated(secret), _below(root, "files", secret) as folder:
        current = _current(folder)
        changed = current is None or not _holds(folder, current, files, mode)
        if current is None or changed:
            current = _new_generation(folder, files, mode)
            _link(folder, _DATA, current)
        for name in files:
            if _target(folder, name) != f"{_DATA}/{name}":
                _link(folder, name, f"{_DATA}/{name}")
        # What cannot be removed now is met again the next time; the new files are in place already.
        with suppress(OSError):
            _clear(folder, keep={_DATA, current, *files})
        return changed


def write_env(root: str, secret: str, text: bytes, mode: int) -> bool:
    """Brings the env file of a secret to this text; says whether it changed.

    Raises :class:`Terminal` where the volume cannot be written.
    """
    with _translated(secret), _below(root, "env") as folder:
        name = f"{secret}.env"
        changed = _read(folder, name, mode, len(text)) != text
        if changed:
            fresh = _unused_name()
            try:
                _write(folder, fresh, text, mode)
                os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                _discard(folder, fresh)
                raise
        with suppress(OSError):
            _clear(folder, keep={entry for entry in os.listdir(folder) if not entry.startswith("..")})
        return changed


def wipe(root: str, secret: str) -> bool:
    """Removes all values of a secret, leaving an empty ``..data``; says whether there was anything.

    Raises :class:`Terminal` where something could not be removed; then as much as possible is gone.
    """
    with _translated(secret):
        # Both are tried, whatever becomes of the first.
        try:
            env = _wipe_env(root, secret)
        finally:
            files = _wipe_files(root, secret)
        return env or files


def is_present(root: str, secret: str, *, files: bool, env: bool) -> bool:
    """Whether the secret's values lie in the volume, as far as can be seen without having them."""
    try:
        if files:
            with _below(root, "files", secret, create=False) as folder:
                current = _current(folder)
                if current is None:
                    return False
                with _opened(current, folder) as generation:
                    if not os.listdir(generation):
                        return False
        if env:
            with _below(root, "env", create=False) as folder:
                return stat.S_ISREG(os.stat(f"{secret}.env", dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
    return True


def _wipe_files(root: str, secret: str) -> bool:
    try:
        with _below(root, "files", secret, create=False) as folder:
            current = _current(folder)
            if current is not None and set(os.listdir(folder)) == {_DATA, current}:
                with _opened(current, folder) as generation:
                    if not os.listdir(generation):
                        return False
            keep: set[str] = set()
            # A volume that is full has no room for the empty folder: then the link goes as well.
            with suppress(OSError):
                empty = _new_generation(folder, {}, 0)
                _link(folder, _DATA, empty)
                keep = {_DATA, empty}
            _clear(folder, keep=keep)
            return True
    except FileNotFoundError:
        return False


def _wipe_env(root: str, secret: str) -> bool:
    try:
        with _below(root, "env", create=False) as folder:
            entries = os.listdir(folder)
            # A half-written file of a crash holds values too.
            _clear(folder, keep={entry for entry in entries if entry != f"{secret}.env" and not entry.startswith("..")})
            return f"{secret}.env" in entries
    except FileNotFoundError:
        return False


def _new_generation(folder: int, files: Mapping[str, bytes], mode: int) -> str:
    """A new folder with the files, which nobody reads yet."""
    name = _unused_name()
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
        with _opened(name, folder) as generation:
            for file, content in files.items():
                _write(generation, file, content, mode)
            _let_read(generation)
    except OSError:
        _discard(folder, name)
        raise
    return name


def _write(folder: int, name: str, content: bytes, mode: int) -> None:
    # The mode comes before the content, so that nobody can open the file who could not open it later.
    file = os.open(name, _NEW_FILE, 0, dir_fd=folder)
    try:
        os.fchmod(file, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)


def _link(folder: int, name: str, target: str) -> None:
    """Puts a link in place of whatever has the name, by one rename."""
    fresh = _unused_name()
    try:
        os.symlink(target, fresh, dir_fd=folder)
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _discard(folder, fresh)
        raise


def _current(folder: int) -> str | None:
    """The folder that ``..data`` names, None where there is none or where it could lead elsewhere."""
    target = _target(folder, _DATA)
    return target if target and target.startswith("..") and target != ".." and "/" not in target else None


def _target(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _holds(folder: int, generation: str, files: Mapping[str, bytes], mode: int) -> bool:
    try:
        with _opened(generation, folder) as inside:
            return set(os.listdir(inside)) == files.keys() and all(
                _read(inside, name, mode, len(content)) == content for name, content in files.items()
            )
    except OSError:
        return False


def _read(folder: int, name: str, mode: int, size: int) -> bytes | None:
    """The content of a file of ours with this mode and size; None for anything else."""
    try:
        file = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        ours = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and found.st_uid == os.geteuid()
        if not ours or found.st_size != size:
            return None
        content = b""
        while len(content) < size and (more := os.read(file, size - len(content))):
            content += more
    except OSError:
        return None
    else:
        return content
    finally:
        os.close(file)


@contextmanager
def _below(root: str, *names: str, create: bool = True) -> Iterator[int]:
    """The folder at the end of the path; each on the way is ours and no link."""
    folder = os.open(root, _FOLDER)
    try:
        for name in names:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
            if os.fstat(folder).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the folder is somebody else's")
            if create:
                _let_read(folder)
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _let_read(folder: int) -> None:
    """Lets the pod's containers through; a set-group-id bit, by which files get the pod's fsGroup, stays."""
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & 0o777 != 0o755:
        os.fchmod(folder, mode & stat.S_ISGID | 0o755)


def _clear(folder: int, *, keep: Set[str]) -> None:
    """Removes every other entry; the first failure is raised after all were tried."""
    failures: list[OSError] = []
    for entry in os.listdir(folder):
        if entry not in keep:
            try:
                _remove(folder, entry)
            except OSError as error:
                failures.append(error)
    if failures:
        raise failures[0]


def _remove(folder: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        with _opened(name, folder) as inside:
            _clear(inside, keep=set())
        os.rmdir(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def _discard(folder: int, name: str) -> None:
    with suppress(OSError):
        _remove(folder, name)


def _unused_name() -> str:
    return time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + os.urandom(6).hex()


@contextmanager
def _translated(secret: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The file's name may be in the error's text, its content never; the number says enough.
        raise Terminal(
            "VolumeUnwritable", f"its files cannot be written: {os.strerror(error.errno or 0)}", field=secret,
            remedy="check that the volume kmseal-secrets has room and is written by the agent alone",
        ) from None  # fmt: skip
