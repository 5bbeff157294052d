"""The program around the commands: help, start-up, errors and exit codes."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kmseal.cli.lazy import Program, verbose_option
from kmseal.cli.main import cli
from kmseal.cli.report import STALE_EXIT_CODE
from kmseal.errors import AccessDenied, KmsealError, Malformed, Misconfigured, Unavailable

COMMANDS = ["create", "encrypt", "set", "unset", "decrypt", "rewrap", "rotate", "keys", "dev"]
HEAVY = {"aiohttp", "alibabacloud_kms20160120", "asyncio", "cryptography", "ruamel", "json", "kmseal.manifest", "Tea"}


def imported_by(*arguments: str) -> set[str]:
    """The modules that a run of the program imports."""
    program = (
        "import sys\n"
        "from kmseal.cli.main import cli\n"
        f"code = cli.main({list(arguments)!r}, prog_name='kmseal', standalone_mode=False)\n"
        "print(code, *sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    return set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()])
def test_the_list_of_commands_imports_none_of_them(arguments: tuple[str, ...]) -> None:
    """Start-up stays far under 0.3 s because nothing heavy is imported, which is what is tested."""
    modules = imported_by(*arguments)
    assert not modules & (HEAVY | {f"kmseal.cli.{name}" for name in COMMANDS})


@pytest.mark.parametrize("command", ["create", "encrypt", "set", "decrypt", "rewrap", "rotate", "keys"])
def test_the_help_of_a_command_imports_no_key_service(command: str) -> None:
    """Neither the SDK nor an HTTP client is needed to read help."""
    assert not imported_by(command, "--help") & {"aiohttp", "alibabacloud_kms20160120", "Tea", "kmseal.kms.keyring"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_purpose_in_one_line(command: str) -> None:
    """The line of the list and the first line of the command's own help are the same."""
    listed = CliRunner().invoke(cli, ["--help"], terminal_width=200).stdout
    own = CliRunner().invoke(cli, [command, "--help"], terminal_width=200).stdout.splitlines()[0]
    assert f"{own}\n" in listed


@pytest.mark.parametrize("command", ["create", "encrypt", "set", "unset", "decrypt", "rewrap", "rotate", "keys"])
def test_help_has_the_parts_of_kubectl_in_their_order(command: str) -> None:
    """Purpose, examples, options, usage."""
    text = CliRunner().invoke(cli, [command, "--help"]).stdout
    parts = [text.index(part) for part in ("\nExamples:\n", "\nOptions:\n", "\nUsage:\n")]
    assert parts == sorted(parts)
    assert f"  kmseal {command} [OPTIONS]" in text.replace("cli", "kmseal")


def test_help_documents_every_exit_code() -> None:
    """The codes of the error tree are those of the help."""
    text = CliRunner().invoke(cli, ["--help"]).stdout
    for error in (KmsealError, Malformed, AccessDenied, Unavailable, Misconfigured):
        assert f"\n  {error.exit_code}  " in text
    assert "\n  130  " in text
    assert f"\n  {STALE_EXIT_CODE}  " in text


def test_the_documents_exit_codes_are_those_of_the_help() -> None:
    """With what the help says of each."""
    document = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = document.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE)
    text = CliRunner().invoke(cli, ["--help"]).stdout.partition("\nExit codes:\n")[2].partition("\nWhere several")[0]
    assert rows == re.findall(r"^  (\d+)  (.+)$", text, re.MULTILINE)
    assert len(rows) == 9


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frobnicate"], "error: no such command 'frobnicate'; see kmseal --help"),
        (["create"], "error: missing argument 'NAME'; see kmseal create --help"),
        (["create", "db"], "error: missing option '-n' / '--namespace'; see kmseal create --help"),
        (["create", "db", "hunter2"], "error: unexpected extra arguments; see kmseal create --help"),
        (["create", "db", "-n", "x"], "error: missing option '--key', and KMSEAL_KEY is not set; see kmseal create"),
        (["create", "db", "--frob=hunter2"], "error: no such option '--frob'; see kmseal create --help"),
        (["encrypt", "-f", "x"], "error: missing option '--key'"),
        (["encrypt", "--in-place", "--key", "local:a"], "error: --in-place needs -f FILE, and no -w"),
        (["rewrap"], "error: missing argument 'PATH...'; see kmseal rewrap --help"),
        (["rewrap", "x", "--from-cluster", "--to-key", "local:a"], "error: --from-cluster takes what is there"),
        (["rewrap", "x", "--kubeconfig", "y"], "error: --kubeconfig and --context go with --from-cluster"),
        (["rewrap", "x", "--from-key", "local:a"], "error: --from-key goes with --to-key"),
        (["rewrap", "x", "--to-key", "local:a", "--add-key", "local:b"], "error: --to-key goes neither with"),
        (
            ["rewrap", "x", "--to-key", "local:a", "--from-key", "local:a"],
            "error: --from-key and --to-key name the same",
        ),
        (["rewrap", "x", "--add-key", "local:a", "--remove-key", "local:a"], "error: --add-key and --remove-key both"),
        (["rewrap", "x", "--allow-key", "local:a"], "error: --allow-key goes with --from-cluster"),
        (["keys", "--exclude", "x"], "error: --exclude goes with --git"),
        (["keys", "public", "--key", "local:a", "-o", "json"], "error: no such option '-o'"),
        (["keys", "--git"], "error: option '--git' requires an argument"),
        (["keys", "public"], "error: missing option '--key'"),
        (["decrypt", "x", "-o", "raw"], "error: -o raw goes with NAME, and no other output does"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    """Extra arguments are not quoted: one may be a value."""
    done = CliRunner().invoke(cli, arguments, prog_name="kmseal", env={"KMSEAL_KEY": None})
    assert done.exit_code == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.output


@click.group(cls=Program)
@verbose_option
def broken() -> None:
    """A program of commands that fail."""


@broken.command
@verbose_option
def fault() -> None:
    """Fails in a way that nobody thought of."""
    raise RuntimeError("hunter2")


@broken.command
def interrupted() -> None:
    """Is interrupted."""
    raise KeyboardInterrupt


@broken.command
@verbose_option
def denied() -> None:
    """Is refused."""
    raise AccessDenied("no right\non this key", field="key", remedy="ask", request_id="r-1")


@broken.command
@verbose_option
def parallel() -> None:
    """Fails inside a task of a group."""

    async def fail() -> None:
        raise RuntimeError("hunter2")

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    asyncio.run(run())


@broken.command
def disk() -> None:
    """Meets the operating system."""
    raise OSError(28, "No space left on device")


def test_an_unexpected_error_shows_its_class_and_nothing_else() -> None:
    """Its text may hold a value, and a traceback may as well."""
    done = CliRunner().invoke(broken, ["fault"])
    assert done.exit_code == 1
    assert done.output == "error: unexpected RuntimeError, which is a fault of kmseal; -v shows where\n"


def test_an_error_in_a_task_group_is_called_by_its_own_class() -> None:
    """And not by the group's."""
    done = CliRunner().invoke(broken, ["parallel"])
    assert (done.exit_code, done.stderr) == (
        1,
        "error: unexpected RuntimeError, which is a fault of kmseal; -v shows where\n",
    )


def test_verbose_shows_where_it_was_and_no_text() -> None:
    """Files, lines and functions, but no message."""
    done = CliRunner().invoke(broken, ["fault", "-v"])
    assert done.exit_code == 1
    assert "in fault" in done.output
    assert "hunter2" not in done.output


def test_an_interruption_is_quiet_and_130() -> None:
    """As a shell expects it."""
    done = CliRunner().invoke(broken, ["interrupted"])
    assert done.exit_code == 130
    assert done.output.strip() == ""


def test_an_error_of_ours_is_one_line_with_its_exit_code() -> None:
    """With field and remedy; the request id only when asked for."""
    done = CliRunner().invoke(broken, ["denied"])
    assert (done.exit_code, done.output) == (4, "error: key: no right on this key; ask\n")
    assert CliRunner().invoke(broken, ["denied", "-v"]).output.endswith("request id: r-1\n")


def test_an_error_of_the_operating_system_is_one_line() -> None:
    """A full disk under standard output, for example."""
    done = CliRunner().invoke(broken, ["disk"])
    assert (done.exit_code, done.output) == (1, "error: no space left on device\n")
