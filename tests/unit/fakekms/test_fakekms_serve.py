"""The process: its summary, its files, its end on a signal; and the fake in a thread."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import Misconfigured
from kmseal.fakekms import FakeKms
from kmseal.fakekms.background import in_background
from kmseal.fakekms.serve import ServeOptions, run, serve

PROGRAM = """
import json, logging, sys
from pathlib import Path
from kmseal.fakekms.serve import ServeOptions, run
logging.basicConfig(level=logging.DEBUG)
options = json.loads(sys.argv[1])
for name in ("env_file", "state", "audit"):
    options[name] = Path(options[name])
options["aliases"], options["regions"] = tuple(options["aliases"]), tuple(options["regions"])
run(ServeOptions(**options), lambda summary: print(json.dumps(summary), flush=True))
"""


@contextmanager
def serving(folder: Path, end: signal.Signals = signal.SIGTERM, **options: Any) -> Iterator[dict[str, Any]]:
    """The summary of a process that serves; at the end it is told to stop and must do so well and silently."""
    given = {
        "env_file": str(folder / "env"),
        "state": str(folder / "state.json"),
        "audit": str(folder / "audit.jsonl"),
        "aliases": ["alias/demo"],
        "regions": ["cn-hangzhou"],
    } | options
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(end)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, ""), errors
    assert "Traceback" not in errors
    assert "CiphertextBlob=" not in errors


def environment(path: str) -> dict[str, str]:
    """The variables that a shell gets from the file."""
    script = f"set -a; . {path}; env -0"
    output = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, env={}).stdout
    wanted = ("KMSEAL_", "ALIBABA_CLOUD_")
    return dict(line.split("=", 1) for line in output.split("\0") if line.startswith(wanted))


async def test_serving_and_a_restart(tmp_path: Path, sdk: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Clients work with what the environment files say, and a data key opens after a restart with the same state."""
    with serving(tmp_path) as summary:
        files = summary["envFiles"]
        assert set(files) == {"admin", "developer", "operator"}
        assert {Path(path).stat().st_mode & 0o777 for path in files.values()} == {0o600}
        variables = {name: environment(path) for name, path in files.items()}
        assert variables["admin"]["KMSEAL_KMS_ENDPOINT"] == summary["endpoints"]["cn-hangzhou"]
        assert variables["admin"]["KMSEAL_KMS_CA_FILE"] == summary["caFile"]
        assert all(
            secrets["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] not in json.dumps(summary) for secrets in variables.values()
        )
        fresh = await ask(_client(variables["developer"]), "GenerateDataKey", key_id="alias/demo")
        assert f"key/{fresh.key_id}" in summary["keys"]["cn-hangzhou:alias/demo"]
        counted = await asyncio.to_thread(_get, f"{summary['admin']}/calls")
        assert counted["actions"] == {"GenerateDataKey": {"Success": 1}}
    with serving(tmp_path, signal.SIGINT) as again:
        assert again["caFile"] == summary["caFile"]
        assert again["keys"] == summary["keys"]
        operator = environment(again["envFiles"]["operator"])
        assert operator["ALIBABA_CLOUD_ACCESS_KEY_ID"] == variables["operator"]["ALIBABA_CLOUD_ACCESS_KEY_ID"]
        opened = await ask(_client(operator), "Decrypt", ciphertext_blob=fresh.ciphertext_blob)
        assert opened.plaintext == fresh.plaintext
    actions = [json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert actions == ["GenerateDataKey", "Decrypt"]


def _get(url: str) -> Any:
    with urllib.request.urlopen(url) as response:  # noqa: S310  (loopback)
        return json.loads(response.read())


def _client(variables: dict[str, str]) -> Any:
    from alibabacloud_kms20160120.client import Client
    from alibabacloud_tea_openapi import utils_models

    return Client(
        utils_models.Config(
            access_key_id=variables["ALIBABA_CLOUD_ACCESS_KEY_ID"],
            access_key_secret=variables["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
            region_id="cn-hangzhou",
            endpoint=variables["KMSEAL_KMS_ENDPOINT"],
            protocol="https",
            ca=variables["KMSEAL_KMS_CA_FILE"],
        )
    )


def test_several_regions_and_plain_http(tmp_path: Path) -> None:
    """With several regions the endpoint variable names each; without TLS it says so and there is no CA."""
    with serving(tmp_path, regions=["cn-hangzhou", "cn-beijing"], tls=False, admin_port=None) as summary:
        assert (summary["tls"], summary["caFile"], summary["admin"]) == (False, None, None)
        variables = environment(summary["envFiles"]["admin"])
        here, there = summary["endpoints"]["cn-hangzhou"], summary["endpoints"]["cn-beijing"]
        assert variables["KMSEAL_KMS_ENDPOINT"] == f"cn-hangzhou=http://{here},cn-beijing=http://{there}"
        assert "KMSEAL_KMS_CA_FILE" not in variables
        assert set(summary["keys"]) == {"cn-hangzhou:alias/demo", "cn-beijing:alias/demo"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"env_file": "none/env"}, "EnvFile"),
        ({"audit": "none/audit"}, "AuditFile"),
        ({"state": "none/state"}, "StateFile"),
        ({"oidc_keys": "none"}, "OidcKeys"),
        ({"ca_file": "ca.pem"}, "Certificate"),
        ({"ca_file": "a", "certificate_file": "b", "key_file": "c"}, "Certificate"),
    ],
)
def test_what_stops_the_start(tmp_path: Path, options: dict[str, str], reason: str) -> None:
    """Files that cannot be used are said as Misconfigured before anything is served."""
    paths: dict[str, Any] = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(Misconfigured) as caught:
        run(ServeOptions(**paths), lambda _: pytest.fail("it must not become ready"))
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_other_things_that_stop_the_start() -> None:
    """An alias that cannot be is said as well."""
    with pytest.raises(Misconfigured, match="AliasName"):
        run(ServeOptions(aliases=("alias/no good",)), lambda _: pytest.fail("it must not become ready"))


async def test_a_port_that_is_taken_stops_the_start() -> None:
    """A port of the service or of the switches that somebody else has is said, and what was opened is closed."""
    async with FakeKms(tls=False) as kms:
        port = int(kms.endpoint().rpartition(":")[2])
        for options in (ServeOptions(port=port), ServeOptions(admin_port=port)):
            with pytest.raises(Misconfigured, match="cannot listen") as caught:
                await serve(options, lambda _: pytest.fail("it must not become ready"))
            assert caught.value.reason == "Listen"


async def test_quotas_and_roles_are_set_up(tmp_path: Path) -> None:
    """The options reach the fake: real limits are in force, and the operator's role can be assumed."""
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(ServeOptions(quotas=True, tls=False), ready.set_result))
    summary = await ready
    assert summary["roleArn"] == "acs:ram::1000000000000001:role/kmseal-operator"
    assert summary["oidcProviderArn"] == "acs:ram::1000000000000001:oidc-provider/cluster"
    assert (await asyncio.to_thread(_get, f"{summary['admin']}/quotas"))["cryptographic"] == 1000
    os.kill(os.getpid(), signal.SIGTERM)
    await task


def test_a_fake_in_a_thread() -> None:
    """Programs that are not asynchronous get a running fake in a block, and what its start raises."""
    with in_background(FakeKms(tls=False)) as kms:
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(f"http://{kms.endpoint()}/"):
            pass
        caught.value.close()
        assert kms.calls.total == 1
        port = int(kms.endpoint().rpartition(":")[2])
        with pytest.raises(Misconfigured), in_background(FakeKms(tls=False, ports={"cn-hangzhou": port})):
            pass
    assert kms.listening == ()


async def test_an_instance_is_served_beside_the_shared_gateway(tmp_path: Path) -> None:
    """Its endpoint and authority are in the summary; one in a region that is not played stops the start."""
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    options = ServeOptions(instances={"kst-one": "cn-hangzhou"}, folder=tmp_path)
    task = asyncio.create_task(serve(options, ready.set_result))
    summary = await ready
    assert summary["instances"]["kst-one"] not in {"", summary["endpoints"]["cn-hangzhou"]}
    assert Path(summary["instanceCaFiles"]["kst-one"]).read_bytes() != Path(summary["caFile"]).read_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    for instances in (
        {"kst-one": "mars"},
        {"cn-hangzhou": "cn-hangzhou"},
        {"": "cn-hangzhou"},
        {"../x": "cn-hangzhou"},
    ):
        with pytest.raises(Misconfigured) as caught:
            await serve(ServeOptions(instances=instances), ready.set_result)
        assert caught.value.reason == "Instance"
