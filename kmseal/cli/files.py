"""Reading input files and writing results: whole or not at all.

Used by every command. A file is replaced by renaming a finished one over it, so that a reader, a crash or a full disk
never meets half of one; its mode stays, and a symbolic link keeps pointing to its target. Errors of the operating
system become errors of ours here, with the file's name and never with content.
"""

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from kmseal.errors import Conflict, Malformed, Misconfigured

STANDARD: Final = "-"
"""The name that stands for standard input and output."""
_PIECE_BYTES: Final = 1_048_576


def display(path: str) -> str:
    """How messages call a file."""
    return "standard input" if path == STANDARD else path


def read(path: str, *, limit: int) -> bytes:
    """The content of a file or of standard input. Raises Malformed (Unreadable, TooLarge)."""
    try:
        if path == STANDARD:
            raw = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(limit + 1)
    except OSError as error:
        raise Malformed(
            f"cannot be read: {_explain(error)}", reason="Unreadable", remedy="check its name and its permissions"
        ) from None
    if len(raw) > limit:
        raise Malformed(f"is larger than {limit} bytes", reason="TooLarge", remedy="pass a smaller file")
    return raw


def find(path: str, wanted: Collection[bytes]) -> set[bytes]:
    """Which of these stand anywhere in a file of any size, which is read in pieces. Raises Malformed (Unreadable)."""
    overlap = max(map(len, wanted), default=1) - 1
    found: set[bytes] = set()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # Opening a pipe would wait for whoever writes into it.
            raise Malformed("is not a regular file", reason="Unreadable", remedy="leave it out with --exclude")
        with Path(path).open("rb") as file:
            kept = b""
            while len(found) < len(wanted) and (piece := file.read(_PIECE_BYTES)):
                text = kept + piece
                found.update(item for item in wanted if item not in found and item in text)
                kept = text[len(text) - overlap :] if overlap else b""
    except OSError as error:
        raise Malformed(
            f"cannot be read: {_explain(error)}",
            reason="Unreadable",
            remedy="check its name and its permissions, or leave it out with --exclude",
        ) from None
    return found


def size(path: str) -> int:
    """Of a file, in bytes; 0 where it is not there."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def write(path: str, content: bytes, *, replaces: bytes | None = None, mode: int | None = None) -> None:
    """Puts ``content`` in the place of the file ``path``, or creates it.

    :param replaces: what the file held when it was read; a file that changed since is not overwritten
    :param mode: the mode of a new file, where it must be narrower than the umask says
    :raises Conflict: when the file changed in the meantime
    :raises Misconfigured: when it cannot be written
    """
    # A symbolic link is followed, or renaming would replace the link and leave its target as it was.
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)  # A pipe or a device: there is nothing to replace.
            return
        if replaces is not None and target.read_bytes() != replaces:
            raise Conflict("changed while it was being edited", remedy="run the command again")
        _replace(target, content, mode)
    except OSError as error:
        raise Misconfigured(
            f"cannot be written: {_explain(error)}", reason="Unwritable", remedy="check the folder and its permissions"
        ) from None


def _replace(target: Path, content: bytes, mode: int | None) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(handle, _mode(target) if mode is None else mode)
            file.flush()
            os.fsync(handle)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # The rename itself has to survive a power cut.
    finally:
        os.close(folder)


def _mode(target: Path) -> int:
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def _explain(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
