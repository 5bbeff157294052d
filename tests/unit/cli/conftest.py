"""Runners of the command line: with a key file of the local provider, and with a fake KMS."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kmseal.cli.main import cli
from kmseal.fakekms.identities import Identity
from kmseal.fakekms.server import FakeKms

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

    def run(
        *arguments: str, stdin: str | bytes | None = None, fails: int = 0, errors: int = 1, report: bool = False
    ) -> Result:
        done = runner.invoke(cli, arguments, input=stdin, prog_name="kmseal")
        _require_rules(done, fails, errors, report=report)
        return done

    return run


def _require_rules(done: Result, fails: int, errors: int, *, report: bool) -> None:
    """A failing run says so in lines, and has no result but perhaps a report; no run shows the canary."""
    assert done.exit_code == fails, done.output
    assert CANARY not in done.stderr
    if fails:
        assert report or done.stdout == ""
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == errors
        assert done.stderr.count("error: ") == errors
        assert "Traceback" not in done.stderr


@dataclass(frozen=True, slots=True)
class Cloud:
    """A fake KMS of two regions, and the program that runs against it in this process, as an identity."""

    kms: FakeKms
    key: str
    """In the first region, with the alias ``app``."""
    far_key: str
    """In the second region."""

    async def __call__(
        self,
        identity: Identity,
        *arguments: str,
        stdin: str = "",
        fails: int = 0,
        errors: int = 1,
        report: bool = False,
        more: Mapping[str, str] | None = None,
    ) -> Result:
        """Runs to the end, in a thread of its own, because the fake lives in this one."""
        endpoints = ",".join(f"{region}={self.kms.endpoint(region)}" for region in self.kms.regions)
        environment = {
            "KMSEAL_KMS_ENDPOINT": endpoints,
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }
        done = await asyncio.to_thread(
            CliRunner().invoke, cli, arguments, input=stdin, env=environment | dict(more or {}), prog_name="kmseal"
        )
        _require_rules(done, fails, errors, report=report)
        assert identity.access_key_secret not in done.output
        return done

    def can(self, *actions: str) -> Identity:
        """Somebody who may do this and nothing else."""
        return self.kms.add_identity(f"user-{len(actions)}-{os.urandom(4).hex()}", actions)


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """Two keys in two regions, in an empty folder."""
    for name in list(os.environ):
        if name.startswith(("KMSEAL_", "ALIBABA_CLOUD_")):
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    async with FakeKms(("cn-hangzhou", "cn-shanghai"), folder=tmp_path / "tls") as kms:
        yield Cloud(kms, kms.create_key(alias="app"), kms.create_key(region="cn-shanghai"))
