"""Where values come from: files, standard input, prompts, ``.env`` files and, with a warning, arguments.

Used by ``create`` and ``set``. A value is Redacted as soon as it is read. Names are checked here, so that a wrong one
is refused beside the option that brought it; the text of an argument is never quoted in an error, because it may be a
value that stands where a name should.
"""

import sys
from pathlib import Path
from typing import Final

import click

from kmseal.cli import envfile, files
from kmseal.cli.output import about, note, warn
from kmseal.envelope import VALUES_BYTES_MAX, require_value_name
from kmseal.errors import Malformed
from kmseal.redacted import Redacted

_ENV_FILE_BYTES_MAX: Final = 2 * VALUES_BYTES_MAX  # Quotes, names and comments take room beside the values.


class Sources:
    """Collects the values of one command, each name once and standard input once."""

    def __init__(self) -> None:
        self.values: dict[str, Redacted] = {}
        self._standard_input_read = False

    def file(self, argument: str) -> None:
        """``[name=]path``, as kubectl has it: the file's name is the default, and a folder brings all its files."""
        name, equals, path = argument.partition("=")
        if not equals:
            name, path = "", argument
        if path == files.STANDARD and not name:
            raise Malformed("standard input has no name", reason="ValueName", remedy="write NAME=-")
        if path != files.STANDARD and Path(path).is_dir():
            self._folder(name, Path(path))
            return
        self._add(name or Path(path).name, self._read(path, VALUES_BYTES_MAX), path)

    def env_file(self, path: str) -> None:
        """All values of a ``.env`` file."""
        raw = self._read(path, _ENV_FILE_BYTES_MAX)
        with about(files.display(path)):
            values = envfile.parse(raw.reveal())
        for name, value in values.items():
            self._add(name, value, path)

    def literal(self, argument: str) -> None:
        """``NAME=VALUE``. The value has been seen by the process list and the shell's history: warns."""
        name, equals, value = argument.partition("=")
        if not equals:
            raise Malformed(
                "is not of the form NAME=VALUE",
                reason="Literal",
                remedy="better than an argument: --from-file NAME=-, which reads standard input",
            )
        self._add(name, Redacted(value.encode("utf-8", "surrogateescape")), "the argument")
        warn(
            f"the value of {name} was an argument, which process lists and the shell's history show; "
            "better: a file, standard input (NAME=-) or a prompt"
        )

    def prompt(self, name: str) -> None:
        """Asks for a value twice, without showing it."""
        try:
            self._require_new(name)
        except Malformed as error:
            # Not quoted: where somebody left out "NAME=", this is a value.
            error.message = "an argument without = has to be the name of a value, given once"
            error.field = ""
            raise
        if not sys.stdin.isatty():
            raise Malformed(
                "standard input is not a terminal, so there is nobody to ask for a value",
                reason="NoTerminal",
                remedy="read the value from standard input (NAME=-) or from a file",
            )
        value: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt="Once more", err=True)
        self.values[name] = Redacted(value.encode("utf-8", "surrogateescape"))

    def argument(self, argument: str) -> None:
        """An argument of ``set``: ``NAME`` prompts, ``NAME=@path`` and ``NAME=-`` read, ``NAME=VALUE`` warns."""
        name, equals, rest = argument.partition("=")
        if not equals:
            self.prompt(name)
        elif rest == files.STANDARD:
            self._add(name, self._read(rest, VALUES_BYTES_MAX), rest)
        elif rest.startswith("@"):
            self._add(name, self._read(rest[1:], VALUES_BYTES_MAX), rest[1:])
        else:
            self.literal(argument)

    def pair(self, values: dict[str, Redacted]) -> None:
        """Values that were read and checked elsewhere."""
        for name, value in values.items():
            self._add(name, value, "the certificate pair")

    def _folder(self, name: str, folder: Path) -> None:
        if name:
            raise Malformed(
                "is a folder, whose files bring their own names",
                field=str(folder),
                reason="ValueName",
                remedy="leave out the name, or pass a file",
            )
        for path in sorted(folder.iterdir()):
            # Like kubectl: plain files only, so that the links of a mounted volume are not taken twice.
            if path.is_file() and not path.is_symlink():
                self._add(path.name, self._read(str(path), VALUES_BYTES_MAX), str(path))

    def _read(self, path: str, limit: int) -> Redacted:
        if path == files.STANDARD:
            if self._standard_input_read:
                raise Malformed(
                    "standard input can be read only once",
                    reason="StandardInput",
                    remedy="read the other values from files",
                )
            self._standard_input_read = True
        with about(files.display(path)):
            return Redacted(files.read(path, limit=limit))

    def _add(self, name: str, value: Redacted, source: str) -> None:
        with about(files.display(source)):
            self._require_new(name)
        if source == files.STANDARD and value.reveal().endswith(b"\n") and value.reveal().count(b"\n") == 1:
            note(f"note: the value of {name} ends with a line end, as it came; printf '%s' or tr -d '\\n' leave it out")
        self.values[name] = value

    def _require_new(self, name: str) -> None:
        require_value_name(name)
        if name in self.values:
            raise Malformed("is given twice", field=name, reason="DuplicateValue", remedy="give each value one source")
