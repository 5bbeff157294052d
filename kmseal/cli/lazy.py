"""Commands that are imported only when they run, and help and errors in kubectl's manner.

Used by ``main`` and by groups below it. The group knows a line about each command, so that ``kmseal --help`` imports
none of them. All errors leave through :class:`Program`: one line on standard error and a documented exit code, never a
traceback, which may show values.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from kmseal.cli.output import describe, note, result
from kmseal.errors import KmsealError

SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_VERBOSE: Final = "kmseal.verbose"
_INTERRUPTED: Final = 130


class Command(click.Command):
    """A command whose help has kubectl's order: purpose, examples, options, usage."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _format_purpose(self, formatter)
        _format_examples(self.examples, formatter)
        self.format_options(ctx, formatter)
        _format_usage(self, ctx, formatter)


class LazyGroup(click.Group):
    """A group of commands given as ``{name: (module, purpose)}``; each module has the command as ``command``."""

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, examples: str = "", **kwargs: Any
    ) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        command = importlib.import_module(self._lazy[cmd_name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101  # A wrong entry of our own table.
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, purpose) for name, (_, purpose) in self._lazy.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            rows.append((name, command.get_short_help_str(limit=100) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _format_purpose(self, formatter)
        _format_examples(self.examples, formatter)
        self.format_commands(ctx, formatter)
        super(click.Group, self).format_options(ctx, formatter)
        _format_usage(self, ctx, formatter)
        if self.epilog:
            formatter.write(f"\n{inspect.cleandoc(self.epilog)}\n")


class Program(LazyGroup):
    """The outermost group: the border at which every error becomes a line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the program and exits, or returns the exit code where ``standalone_mode`` is off."""
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.Abort:
            code = _INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            result(f"{error.format_message()}\n")
            code = 0
        except click.ClickException as error:
            code = error.exit_code
            note(f"error: {_usage_line(error)}")
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except KmsealError as error:
            note(f"error: {describe(error)}")
            if ctx.meta.get(_VERBOSE) and error.request_id:
                note(f"request id: {error.request_id}")
            raise click.exceptions.Exit(error.exit_code) from None
        except Exception as wrapped:  # noqa: BLE001  # The border: whatever it is, its text may hold a value.
            fault = _innermost(wrapped)
            if isinstance(fault, OSError):
                note(f"error: {(fault.strerror or type(fault).__name__).lower()}")
                raise click.exceptions.Exit(1) from None
            verbose = ctx.meta.get(_VERBOSE)
            more = "" if verbose else "; -v shows where"
            note(f"error: unexpected {type(fault).__name__}, which is a fault of kmseal{more}")
            if verbose:
                for frame in traceback.extract_tb(fault.__traceback__):
                    note(f"  {frame.filename}:{frame.lineno} in {frame.name}")
            raise click.exceptions.Exit(1) from None


def _innermost(fault: Exception) -> Exception:
    """What went wrong first, where task groups have wrapped it."""
    while isinstance(fault, ExceptionGroup):
        fault = fault.exceptions[0]
    return fault


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-v``, possible at every command."""

    def remember(ctx: click.Context, _parameter: click.Parameter, given: bool) -> None:
        if given:
            ctx.meta[_VERBOSE] = True
            import logging

            logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
            logging.getLogger("kmseal").setLevel(logging.DEBUG)

    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=remember, help="Say more on standard error."
    )(function)


def program_name() -> str:
    """How help calls the program: as a kubectl plug-in it is spelt as its users type it."""
    name = os.path.basename(sys.argv[0]) if sys.argv else "kmseal"
    return "kubectl kmseal" if name == "kubectl-kmseal" else "kmseal"


def _format_purpose(command: click.Command, formatter: click.HelpFormatter) -> None:
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        formatter.write_text(paragraph.replace("\n", " "))
        formatter.write_paragraph()
    # The last paragraph's blank line is written by the next section.
    if formatter.buffer and formatter.buffer[-1] == "\n":
        formatter.buffer.pop()


def _format_examples(examples: str, formatter: click.HelpFormatter) -> None:
    if examples:
        formatter.write("\nExamples:\n")
        formatter.write("".join(f"  {line}".rstrip() + "\n" for line in inspect.cleandoc(examples).split("\n")))


def _format_usage(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    with formatter.section("Usage"):
        formatter.write_text(" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]))


def _usage_line(error: click.ClickException) -> str:
    message = error.format_message().replace("\n", " ").rstrip(".")
    if message.startswith("Got unexpected extra argument"):
        message = "unexpected extra arguments"  # Not quoted: one may be a value.
    message = message[:1].lower() + message[1:]
    ctx = getattr(error, "ctx", None)
    return f"{message}; see {ctx.command_path} --help" if isinstance(ctx, click.Context) else message
