"""The installed program against the real fake KMS over TLS: rights, faults, and nothing secret anywhere."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kmseal.fakekms.faults import Fault, FaultKind
from kmseal.fakekms.identities import DEVELOPER_ACTIONS, Identity
from kmseal.fakekms.server import FakeKms

CANARY = "canary-e2e-51d0"
PROGRAM = Path(sys.executable).with_name("kmseal")


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of the program left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs the program in a folder, as an identity."""

    kms: FakeKms
    folder: Path
    key: str

    def environment(self, identity: Identity) -> dict[str, str]:
        """Everything the program needs, and nothing of the test's own environment that could matter."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONWARNINGS": "error",
            "KMSEAL_KMS_ENDPOINT": self.kms.endpoint(),
            "KMSEAL_KMS_CA_FILE": str(self.kms.ca_file),
            "ALIBABA_CLOUD_ACCESS_KEY_ID": identity.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": identity.access_key_secret,
        }

    async def __call__(
        self, identity: Identity, *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None
    ) -> Done:
        """Runs to the end. No argument and no failing run shows the canary or the credentials."""
        assert not any(CANARY in argument for argument in arguments)
        process = await self.start(identity, *arguments, more=more)
        out, err = await process.communicate(stdin.encode())
        done = Done(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in done.err
        for secret in (CANARY, identity.access_key_secret):
            assert secret not in done.err
        if done.code:
            assert done.out == ""
            assert done.err.startswith("error: ")
            assert done.err.count("\n") == 1
        return done

    async def start(
        self, identity: Identity, *arguments: str, more: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Starts the program."""
        return await asyncio.create_subprocess_exec(
            PROGRAM,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
            env=self.environment(identity) | dict(more or {}),
        )

    def read(self, name: str = "db.yaml") -> str:
        """A file of the folder."""
        return (self.folder / name).read_text()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    """A fake KMS with one key, and a folder to work in."""
    (tmp_path / "work").mkdir()
    async with FakeKms(folder=tmp_path / "tls") as kms:
        yield Shell(kms, tmp_path / "work", kms.create_key(alias="app"))


@pytest.fixture
def developer(shell: Shell) -> Identity:
    """Somebody with the right GenerateDataKey and no other."""
    assert DEVELOPER_ACTIONS == ("GenerateDataKey",)
    return shell.kms.add_identity("developer", DEVELOPER_ACTIONS)


@pytest.fixture
def operator(shell: Shell) -> Identity:
    """Somebody who may open."""
    return shell.kms.add_identity("operator", ("Decrypt",))


async def create(shell: Shell, identity: Identity, *arguments: str) -> Done:
    """An EncryptedSecret with the canary as its password."""
    (shell.folder / "user").write_text("app")
    sources = ("--from-file", "user", "--from-file", "password=-")
    keys = () if "--key" in arguments else ("--key", shell.key)
    return await shell(
        identity, "create", "db", "-n", "prod", *keys, *sources, *arguments, "-w", "db.yaml", stdin=CANARY
    )


async def test_a_developer_with_generate_data_key_alone_creates_and_sets(
    shell: Shell, developer: Identity, operator: Identity
) -> None:
    """One call each, however many values; whoever may decrypt finds what was put in."""
    assert (await create(shell, developer)).code == 0
    assert shell.kms.calls.by_action() == {"GenerateDataKey": {"Success": 1}}
    done = await shell(developer, "set", "db.yaml", "user=@user", "token=-", stdin=f"{CANARY} 2")
    assert (done.code, done.err) == (0, "db.yaml: set user, token\n")
    assert shell.kms.calls.by_action() == {"GenerateDataKey": {"Success": 2}}
    assert CANARY not in shell.read()
    opened = [await shell(operator, "decrypt", "db.yaml", name) for name in ("user", "password", "token")]
    assert [done.out for done in opened] == ["app", CANARY, f"{CANARY} 2"]
    # Two data keys are in use, and each is opened once in a run.
    assert shell.kms.calls["Decrypt", "Success"] == 6


async def test_a_developer_is_denied_to_decrypt(shell: Shell, developer: Identity) -> None:
    """Exit code 4, one line, and the file as it was."""
    await create(shell, developer)
    before = shell.read()
    done = await shell(developer, "decrypt", "db.yaml")
    assert done.code == 4
    assert done.err.startswith("error: db.yaml: spec.dataKeys[0]: ")
    assert shell.kms.calls["Decrypt", "Success"] == 0
    assert shell.kms.calls["Decrypt"] > 0
    assert shell.read() == before


async def test_encrypt_takes_one_call_for_each_secret(shell: Shell, developer: Identity, operator: Identity) -> None:
    """A manifest from kubectl, through the whole way and back."""
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": CANARY, "b": "x"}}
        for name in ("one", "two")
    ]
    done = await shell(
        developer, "encrypt", "-n", "prod", "--key", shell.key, "-w", "all.yaml", stdin=yaml.safe_dump_all(secrets)
    )
    assert done.code == 0
    assert shell.kms.calls.by_action() == {"GenerateDataKey": {"Success": 2}}
    assert (await shell(operator, "decrypt", "all.yaml", "a", "--object", "prod/two")).out == CANARY


async def test_an_alias_is_resolved_when_sealing(shell: Shell, developer: Identity) -> None:
    """What is stored is the key itself, because an alias may move."""
    account = shell.key.split(":")[3]
    assert (await create(shell, developer, "--key", f"acs:kms:cn-hangzhou:{account}:alias/app")).code == 0
    (wrapping,) = yaml.safe_load(shell.read())["spec"]["dataKeys"][0]["wrappings"]
    assert wrapping["keyId"] == shell.key


async def test_a_second_key_needs_encrypt_and_says_so(shell: Shell, developer: Identity, operator: Identity) -> None:
    """The missing right and the key are named, nothing is written; with the right it works."""
    second = shell.kms.create_key()
    done = await create(shell, developer, "--key", shell.key, "--key", second)
    assert done.code == 4
    assert second in done.err
    assert done.err.endswith("ask for the right kms:Encrypt on this key\n")
    assert not (shell.folder / "db.yaml").exists()
    shell.kms.set_policy(developer, ("GenerateDataKey", "Encrypt"))
    assert (await create(shell, developer, "--key", shell.key, "--key", second)).code == 0
    shell.kms.disable(shell.key)
    assert (await shell(operator, "decrypt", "db.yaml", "password")).out == CANARY


async def test_a_copied_object_is_refused_without_a_call(shell: Shell, developer: Identity, operator: Identity) -> None:
    """The difference is named; KMS is not asked."""
    await create(shell, developer)
    (shell.folder / "db.yaml").write_text(shell.read().replace("namespace: prod", "namespace: dev"))
    shell.kms.calls.clear()
    for identity, arguments in ((operator, ("decrypt", "db.yaml")), (developer, ("set", "db.yaml", "user=@user"))):
        done = await shell(identity, *arguments)
        assert done.code == 3
        assert 'spec.dataKeys[0].sealedFor: sealed for namespace "prod", this object is in "dev"' in done.err
    assert shell.kms.calls.total == 0


async def test_an_edited_statement_does_not_help(shell: Shell, developer: Identity, operator: Identity) -> None:
    """Who rewrites sealedFor as well runs into the check of the value's name and place, or into KMS."""
    await create(shell, developer)
    text = shell.read().replace("namespace: prod", "namespace: dev").replace("sealedFor: prod/db", "sealedFor: dev/db")
    (shell.folder / "db.yaml").write_text(text)
    done = await shell(operator, "decrypt", "db.yaml")
    assert done.code == 3
    assert "was sealed under another value name, or for another place" in done.err


async def test_a_disabled_key_is_4_and_heals(shell: Shell, developer: Identity) -> None:
    """Nothing is written until it is enabled."""
    shell.kms.disable(shell.key)
    assert (await create(shell, developer)).code == 4
    assert not (shell.folder / "db.yaml").exists()
    shell.kms.enable(shell.key)
    assert (await create(shell, developer)).code == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.RESET),
        Fault(FaultKind.BAD_GATEWAY),
        Fault(FaultKind.HTML),
        Fault(FaultKind.TRUNCATE),
        Fault(FaultKind.ERROR, status=429, code="Rejected.Throttling", message=f"{CANARY} too fast"),
        Fault(FaultKind.ERROR, status=500, code="InternalFailure", message=f"{CANARY} broke"),
    ],
    ids=lambda fault: f"{fault.kind.value}-{fault.status}",
)
async def test_what_may_pass_is_5_and_leaves_the_file(shell: Shell, developer: Identity, fault: Fault) -> None:
    """Try again; the server's words are not repeated."""
    await create(shell, developer)
    before = shell.read()
    shell.kms.faults.add(fault)
    done = await shell(
        developer, "set", "db.yaml", "password=-", stdin=CANARY, more={"KMSEAL_KMS_DEADLINE_SECONDS": "1"}
    )
    assert done.code == 5
    assert done.err.startswith("error: db.yaml: ")
    assert shell.read() == before
    assert sorted(path.name for path in shell.folder.iterdir()) == ["db.yaml", "user"]


async def test_a_service_that_is_down_is_5(shell: Shell, developer: Identity) -> None:
    """Whoever listens there: nobody."""
    await shell.kms.stop_listening()
    done = await create(shell, developer)
    assert done.code == 5
    assert not (shell.folder / "db.yaml").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KMSEAL_KMS_ENDPOINT", "not a host"),
        ("KMSEAL_KMS_CA_FILE", "missing.pem"),
        ("KMSEAL_KMS_DEADLINE_SECONDS", "soon"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", ""),
    ],
)
async def test_a_wrong_configuration_is_6(shell: Shell, developer: Identity, name: str, value: str) -> None:
    """Named by its variable, with what to do."""
    (shell.folder / "value").write_text(CANARY)
    done = await shell(
        developer, "create", "db", "-n", "prod", "--key", shell.key, "--from-file", "value", more={name: value}
    )
    assert done.code == 6
    assert "; " in done.err


async def test_an_option_wins_over_the_environment(shell: Shell, developer: Identity) -> None:
    """A wrong variable does not matter where the option is right."""
    done = await shell(
        developer,
        *("create", "db", "-n", "prod", "--key", shell.key, "--from-file", "value=-"),
        *("--kms-endpoint", shell.kms.endpoint(), "--kms-ca-file", str(shell.kms.ca_file)),
        stdin=CANARY,
        more={"KMSEAL_KMS_ENDPOINT": "not a host", "KMSEAL_KMS_CA_FILE": "missing.pem"},
    )
    assert done.code == 0


async def test_refused_credentials_are_4(shell: Shell, developer: Identity) -> None:
    """A secret that does not belong to the access key."""
    (shell.folder / "value").write_text("x")
    done = await shell(
        developer,
        *("create", "db", "-n", "prod", "--key", shell.key, "--from-file", "value"),
        more={"ALIBABA_CLOUD_ACCESS_KEY_SECRET": f"{CANARY}x"},
    )
    assert done.code == 4


async def test_two_aliases_of_one_key_are_refused(shell: Shell) -> None:
    """They show to be one only when they have wrapped; nothing is written."""
    both = shell.kms.add_identity("both", ("GenerateDataKey", "Encrypt"))
    account = shell.key.split(":")[3]
    done = await create(shell, both, "--key", shell.key, "--key", f"acs:kms:cn-hangzhou:{account}:alias/app")
    assert done.code == 3
    assert "repeats the keyId of item 0" in done.err
    assert not (shell.folder / "db.yaml").exists()


async def test_an_interruption_is_quiet_and_leaves_the_file(shell: Shell, developer: Identity) -> None:
    """Exit code 130 while the key service takes its time."""
    await create(shell, developer)
    before = shell.read()
    number = shell.kms.faults.add(Fault(FaultKind.LATENCY, seconds=20, times=1))
    slowly = {"KMSEAL_KMS_DEADLINE_SECONDS": "60", "KMSEAL_KMS_ATTEMPT_SECONDS": "50"}
    process = await shell.start(developer, "set", "db.yaml", "user=@user", more=slowly)
    async with asyncio.timeout(30):
        # The fault is used up when the request has arrived; the fake tells nobody.
        while number in shell.kms.faults.active:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130
    assert (out, err.strip()) == (b"", b"")
    assert shell.read() == before
    assert sorted(path.name for path in shell.folder.iterdir()) == ["db.yaml", "user"]


async def test_details_on_request_hold_no_secret(shell: Shell, developer: Identity) -> None:
    """-v tells the request id and logs, and still nothing that matters."""
    await create(shell, developer)
    process = await shell.start(developer, "decrypt", "db.yaml", "-v")
    _, err = await process.communicate()
    assert process.returncode == 4
    assert b"request id: " in err
    assert CANARY.encode() not in err
    assert developer.access_key_secret.encode() not in err


async def test_as_a_plug_in_it_is_called_as_its_users_type_it(shell: Shell) -> None:
    """kubectl finds it by the name kubectl-kmseal."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM.with_name("kubectl-kmseal"), "create", "--help", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert b"  kubectl kmseal create [OPTIONS] NAME" in out


async def test_the_fake_runs_as_a_command_with_everything_a_demo_needs(shell: Shell, developer: Identity) -> None:
    """Its environment files are all that a developer and an operator need; its keys are switched by a command."""
    process = await shell.start(
        developer, "dev", "kms", "--alias", "app", "--env-file", "kms.env", "--state", "state", "-o", "json"
    )
    try:
        assert process.stdout is not None
        summary = json.loads(await process.stdout.readline())
        (key,) = summary["keys"].values()

        async def bash(script: str, stdin: str = "") -> Done:
            run = await asyncio.create_subprocess_exec(
                "bash", "-euc", script,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=shell.folder,
                env={
                    "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
                    "KEY": key,
                    "KMSEAL_DEV_ADMIN": summary["admin"],
                    "http_proxy": "http://127.0.0.1:1",
                },
            )  # fmt: skip
            out, err = await run.communicate(stdin.encode())
            return Done(run.returncode or 0, out.decode(), err.decode())

        sealed = await bash(
            ". ./kms.env.developer; kmseal create db -n prod --key $KEY --from-file password=- -w db.yaml", CANARY
        )
        assert sealed.code == 0, sealed.err
        opened = await bash(". ./kms.env.operator; kmseal decrypt db.yaml password")
        assert opened.out == CANARY, opened.err
        version = await bash("kmseal dev key rotate $KEY")
        assert version.code == 0
        listed = await bash("kmseal dev key list")
        assert listed.out == f"{key}  Enabled  {version.out.strip()}  alias/app\n"
        assert (await bash("kmseal dev key disable $KEY")).err == f"{key}: disabled\n"
        assert json.loads((await bash("kmseal dev key list -o json")).out)[0]["state"] == "Disabled"
        assert (await bash(". ./kms.env.operator; kmseal decrypt db.yaml")).code == 4
        assert (await bash("kmseal dev key enable $KEY")).code == 0
        created = await bash("kmseal dev key create --alias other")
        assert created.out.startswith("acs:kms:cn-hangzhou:")
        refused = await bash("kmseal dev key disable nobody")
        assert refused.code == 3
        assert refused.err.startswith("error: --admin: the fake refuses: ")
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    assert process.returncode == 0
    down = await bash("kmseal dev key list")
    assert (down.code, down.err.count("\n")) == (5, 1)
