"""Which files are meant by paths, folders and globs, and which of them are left out on purpose.

Used by ``rewrap`` and ``rotate``, which look for manifests, and by ``keys``, which must not pass over anything that
somebody could apply: hidden folders, odd names and broken links included. It opens no file.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

import click

from kmseal.cli import files
from kmseal.envelope import shorten
from kmseal.errors import Malformed

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_VERSION_CONTROL: Final = ".git"


def exclude_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--exclude``."""
    return click.option(
        "--exclude",
        "excluded",
        multiple=True,
        metavar="GLOB",
        help="Leave out files and folders whose path ends like this, as 'charts' or 'app/*.tpl'. Repeatable.",
    )(function)


@dataclass(slots=True)
class FileTree:
    """Files in the order in which they are met, each once, and what was left out by ``--exclude``, folders as such."""

    files: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)


def find_files(arguments: Sequence[str], excluded: Sequence[str] = (), *, everything: bool = False) -> FileTree:
    """The files that the arguments mean, in their order.

    A folder is searched for YAML and JSON, but not in hidden folders; with ``everything``, for all that is in it but
    what Git keeps for itself. Folders that were met already, as through a circle of links, are passed over. Raises
    Malformed for an argument that means no file, because it is a typing error.
    """
    for pattern in excluded:
        if not PurePath(pattern).name:
            raise Malformed(
                f"{shorten(pattern, 200)} names no file and no folder",
                field="--exclude",
                reason="Exclude",
                remedy="write the end of a path, as 'charts' or 'app/*.tpl'",
            )
    search = _Search(excluded, everything)
    found: dict[str, str] = {}
    for argument in arguments:
        for path in search.expand(argument):
            found.setdefault(os.path.realpath(path), path)
    return FileTree(list(found.values()), list(dict.fromkeys(search.left_out)))


def is_manifest(path: str) -> bool:
    """Whether a file calls itself YAML or JSON."""
    return path.lower().endswith(_SUFFIXES)


class _Search:
    def __init__(self, excluded: Sequence[str], everything: bool) -> None:
        self._excluded = excluded
        self._everything = everything
        self.left_out: list[str] = []

    def expand(self, argument: str) -> Iterator[str]:
        if argument == files.STANDARD:
            raise Malformed("standard input cannot be edited", reason="StandardInput", remedy="name files or folders")
        # What is there goes before what it would mean as a pattern: names with brackets are possible.
        matches = [argument] if os.path.lexists(argument) else self._glob(argument)
        if not matches:
            raise Malformed(
                f"{shorten(argument, 200)} means no file",
                reason="NoSuchFile",
                remedy="check its spelling; globs are relative to the current folder",
            )
        for match in matches:
            # Folders above it as well: a glob may match what is below an excluded folder without ever meeting that.
            if any(self._leaves_out(part) for part in _with_parents(match)):
                continue
            if os.path.isdir(match):
                yield from self._search(match, set())
            else:
                yield match

    def _leaves_out(self, path: str) -> bool:
        if not any(PurePath(path).match(pattern) for pattern in self._excluded):
            return False
        self.left_out.append(path)
        return True

    def _glob(self, pattern: str) -> list[str]:
        """What a pattern matches. ``**`` does not follow links; hidden names are met where they are named, or all."""
        anchor = Path(pattern).anchor
        named = Path(pattern).parts
        return sorted(
            str(path)
            for path in Path(anchor or ".").glob(pattern.removeprefix(anchor))
            if not any(self._is_hidden(part) and part not in named for part in path.parts)
        )

    def _is_hidden(self, name: str) -> bool:
        return name == _VERSION_CONTROL if self._everything else name.startswith(".")

    def _search(self, folder: str, seen: set[str]) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        try:
            # Links last, so that a file is called by the path where it really is.
            entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            raise Malformed(
                f"{shorten(folder, 200)} cannot be searched: {(error.strerror or type(error).__name__).lower()}",
                reason="Unreadable",
                remedy="check the folder's permissions",
            ) from None
        for entry in entries:
            path = str(Path(folder, entry.name))
            if _is_folder(entry):
                if not self._is_hidden(entry.name) and not self._leaves_out(path):
                    yield from self._search(path, seen)
            elif self._is_wanted(entry) and not self._leaves_out(path):
                yield path

    def _is_wanted(self, entry: "os.DirEntry[str]") -> bool:
        if self._everything:
            return entry.name != _VERSION_CONTROL
        return is_manifest(entry.name) and os.path.isfile(entry.path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link that leads to itself.


def _with_parents(path: str) -> Iterator[str]:
    pure = PurePath(os.path.normpath(path))
    yield from (str(part) for part in reversed(pure.parents) if part.name)
    yield str(pure)
