"""A rotation from end to end: the operator re-wraps, the command line brings it into Git, the gate opens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from kmseal.cli.main import cli


async def test_the_gate_does_not_believe_an_operator_that_has_stopped(
    cluster: Any, settled: Any, tmp_path: Path
) -> None:
    """It called the old version safe, was stopped, and an older manifest was applied from another branch."""
    key = cluster.kms.create_key()
    await cluster.create_key("git", key)
    operator = await cluster.start()
    before = await cluster.seal("one", {"a": b"b"}, key=key)
    await cluster.apply(before)
    old = (await cluster.key_shows("git", settled(1, 0)))["primaryVersion"]
    cluster.kms.rotate(key)
    await cluster.key_shows("git", settled(1, 1))
    await cluster.apply(await cluster.seal("one", {"a": b"b"}, key=key))
    wanted = {"keyId": key, "keyVersionId": old}
    await cluster.key_shows("git", lambda status: status["safeToDisable"] == [wanted])
    await operator.stop()

    async def gate() -> Any:
        arguments = ["keys", "-o", "json", "--kubeconfig", str(cluster.control_plane.kubeconfig)]
        done = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
        assert done.exit_code == 0, done.output
        (found,) = json.loads(done.stdout)["keys"]
        return found["safeToDisable"]

    assert await gate() == [wanted]
    await cluster.apply(before)
    assert await gate() == []
    assert (await cluster.key_status("git"))["safeToDisable"] == [wanted], "nobody has told the status"


@pytest.mark.parametrize("moved", [False, True], ids=["version", "alias"])
async def test_git_follows_the_cluster_and_then_the_gate_opens(
    cluster: Any, settled: Any, tmp_path: Path, moved: bool
) -> None:
    """After a new version, and after an alias moved; no call to KMS is made for it, and comments survive."""
    first = cluster.kms.create_key("alias/git")
    alias = f"{first.rsplit(':', 1)[0]}:alias/git"
    await cluster.create_key("git", alias)
    await cluster.start()
    manifests = await cluster.seal_many(["one", "two", "three"], key=first)
    for manifest in manifests:
        text = yaml.safe_dump(manifest, sort_keys=False)
        (tmp_path / f"{manifest['metadata']['name']}.yaml").write_text(f"# ours\n{text}")
    await cluster.apply_many(manifests)
    old = (await cluster.key_shows("git", settled(3, 0)))["primaryVersion"]
    wanted = {"keyId": first} if moved else {"keyId": first, "keyVersionId": old}
    reached = ("--kubeconfig", str(cluster.control_plane.kubeconfig))

    async def run(*arguments: str, code: int = 0) -> Result:
        done = await asyncio.to_thread(
            CliRunner().invoke, cli, [*arguments, *reached], env={"KMSEAL_KMS_ENDPOINT": "x:1"}
        )
        assert done.exit_code == code, done.output
        return done

    async def gate() -> tuple[Any, Any]:
        (key,) = json.loads((await run("keys", "--git", str(tmp_path), "-o", "json")).stdout)["keys"]
        return key["safeToDisable"], key["stale"]

    if moved:
        cluster.kms.move_alias("alias/git", cluster.kms.create_key())
    else:
        cluster.kms.rotate(first)
    await cluster.key_shows("git", settled(3, 3))
    assert await gate() == ([], {"inCluster": 0, "inGit": 3, "inFiles": 3})
    calls = cluster.kms.calls["ReEncrypt"], cluster.kms.calls["Decrypt"]

    await run("rewrap", "--check", "--from-cluster", str(tmp_path), code=7)
    done = await run("rewrap", "--from-cluster", str(tmp_path))
    assert done.stderr.endswith("3 changed (3 files)\n")
    assert await gate() == ([], {"inCluster": 0, "inGit": 3, "inFiles": 0}), "it is not applied yet"
    assert (cluster.kms.calls["ReEncrypt"], cluster.kms.calls["Decrypt"]) == calls
    texts = [(tmp_path / f"{name}.yaml").read_text() for name in ("one", "two", "three")]
    assert all(text.startswith("# ours\n") for text in texts)
    await cluster.apply_many([yaml.safe_load(text) for text in texts])
    await cluster.key_shows("git", settled(3, 0))
    assert await gate() == ([wanted], {"inCluster": 0, "inGit": 0, "inFiles": 0})

    # Somebody has an old branch at hand: what it holds closes the gate again.
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(manifests[0]))
    assert (await gate())[0] == []
    stale = json.loads((await run("keys", "--stale", "--git", str(tmp_path), "-o", "json")).stdout)["stale"]
    assert [(item["where"], item["name"]) for item in stale] == [("File", "one")]
