"""A runner of the command line with a key file of the local provider."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kmseal.cli.main import cli

CANARY = "canary-7f3a9c"
"""The secret of the tests: it must not show up where nobody asked for it."""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in an empty folder with the keys local:dev and local:other.

    Every failing run is held to the rules for errors: one line, no traceback, no secret.
    """
    runner = CliRunner()
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    key_file = tmp_path / "keys"
    for name in list(os.environ):
        if name.startswith(("KMSEAL_", "ALIBABA_CLOUD_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KMSEAL_LOCAL_KEY_FILE", str(key_file))
    made = runner.invoke(cli, ["dev", "local-key", str(key_file), "--name", "dev", "--name", "other"])
    assert made.exit_code == 0, made.output

    def run(*arguments: str, stdin: str | bytes | None = None, fails: int = 0) -> Result:
        done = runner.invoke(cli, arguments, input=stdin, prog_name="kmseal")
        assert done.exit_code == fails, done.output
        assert CANARY not in done.stderr
        if fails:
            assert done.stdout == ""
            assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] != []
            assert done.stderr.count("error: ") == 1
            assert "Traceback" not in done.stderr
        return done

    return run
