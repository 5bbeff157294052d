"""What the program says: results on standard output, everything else on standard error, one line each.

Used by every command. An error is ``error: <file>: <field>: <what>; <remedy>``; the file is a note on the exception,
which ``about`` puts there, because the library that raises knows fields and not files.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from kmseal.errors import KmsealError


@contextmanager
def about(source: str) -> Iterator[None]:
    """Names the file, or the part of one, that an error raised inside is about."""
    try:
        yield
    except KmsealError as error:
        error.add_note(source)
        raise


def describe(error: KmsealError) -> str:
    """An error in one line, the outermost source first."""
    sources = reversed(getattr(error, "__notes__", []))
    return ": ".join([*sources, str(error)]).replace("\n", " ")


def note(text: str) -> None:
    """Tells something that needs no action."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Tells something that the caller should do differently."""
    click.echo(f"warning: {text}", err=True)


def result(content: str | bytes) -> None:
    """Writes a result to standard output as it is."""
    click.echo(content, nl=False)
