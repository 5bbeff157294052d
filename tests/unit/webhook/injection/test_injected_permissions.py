"""Who the agent runs as, who can read its files, and whom it can signal."""

from typing import Any

import pytest

Json = dict[str, Any]


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": f"{name}:1", **fields}


def context(**fields: Any) -> Json:
    return {"securityContext": fields}


@pytest.mark.parametrize(
    ("spec", "user", "group", "mode"),
    [
        ({}, 65532, 65532, "0444"),
        (context(runAsUser=1000), 1000, 65532, "0400"),
        (context(runAsUser=1000, runAsGroup=3000, fsGroup=2000), 1000, 3000, "0400"),
        (context(fsGroup=2000), 65532, 65532, "0440"),
        (context(fsGroup=0), 65532, 65532, "0440"),
        (context(runAsUser=0), 65532, 65532, "0444"),
        (context(runAsUser=0, runAsGroup=0), 65532, 0, "0444"),
        ({"containers": [container(**context(runAsUser=7))], **context(runAsUser=1000)}, 7, 65532, "0400"),
        (
            {"containers": [container("a", **context(runAsUser=7)), container("b")], **context(runAsUser=8)},
            65532,
            65532,
            "0444",
        ),
        ({"containers": [container("a", **context(runAsUser=7)), container("b")]}, 65532, 65532, "0444"),
    ],
)
def test_user_and_mode(bench: Any, spec: Json, user: int, group: int, mode: str) -> None:
    """Where all chosen containers are known to run as one user, the agent is that user and nobody else may read."""
    asked = bench.pod(spec, inject="db")
    agent = bench.spec_of(asked)["initContainers"][0]["securityContext"]
    assert (agent["runAsUser"], agent["runAsGroup"], bench.config_of(asked)["secrets"][0]["mode"]) == (
        user,
        group,
        mode,
    )
    assert bench.injected(asked).warnings == ()


def test_users_of_containers_that_are_not_chosen_do_not_count(bench: Any) -> None:
    """A container that gets no secrets has no say in who the agent runs as."""
    bodies = [container("app", **context(runAsUser=7)), container("mesh", **context(runAsUser=1337))]
    assert (
        bench.config_of(bench.pod({"containers": bodies}, inject="db", containers="app"))["secrets"][0]["mode"]
        == "0400"
    )


def test_a_mode_that_surely_shuts_out(bench: Any) -> None:
    """A mode under which a container of a known user could not read is refused with the user and a remedy."""
    bodies = [container("a", **context(runAsUser=7)), container("b", **context(runAsUser=8))]
    error = bench.refusal(bench.pod({"containers": bodies}, inject="db", mode__db="0400"))
    assert error.field == "metadata.annotations[kmseal.dev/mode.db]"
    assert '"0400" lets the user 65532 read, and the container "a" runs as 7' in error.message
    assert "fsGroup" in error.remedy


@pytest.mark.parametrize(
    "more",
    [{"fsGroup": 2000}, {"runAsGroup": 3000}, {"supplementalGroups": [65532]}],
    ids=lambda more: next(iter(more)),
)
def test_a_mode_for_the_group(bench: Any, more: Json) -> None:
    """Reading as the group is enough where the agent's files belong to a group of the containers."""
    bodies = [container("a", **context(runAsUser=7)), container("b", **context(runAsUser=8))]
    asked = bench.pod({"containers": bodies, **context(**more)}, inject="db", mode="0440")
    assert bench.config_of(asked)["secrets"][0]["mode"] == "0440"
    assert bench.injected(asked).warnings == ()


def test_a_mode_that_perhaps_shuts_out(bench: Any) -> None:
    """Where the image decides the user, a tight mode is a warning."""
    (warning,) = bench.injected(bench.pod(inject="db", mode="0440")).warnings
    assert warning.startswith('metadata.annotations[kmseal.dev/mode]: "app" may be unable to read db; set runAsUser')


def test_a_mode_without_files_does_not_matter(bench: Any) -> None:
    """What becomes variables only is read by the kubelet."""
    assert bench.injected(bench.pod(inject="db", mode="0400", **{"as": "env"})).warnings == ()


SHARED = {"shareProcessNamespace": True}


def signalled(bench: Any, spec: Json) -> Json:
    asked: Json = bench.pod(spec, inject="db", refresh="5m", reload="signal:HUP:nginx")
    return asked


def test_a_signal(bench: Any) -> None:
    """A signal is possible within a shared process namespace, from and to one user."""
    assert bench.injected(signalled(bench, {**SHARED, **context(runAsUser=101)})).warnings == ()
    (warning,) = bench.injected(signalled(bench, SHARED)).warnings
    assert "set runAsUser" in warning


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (context(runAsUser=101), "cannot reach a process of another container"),
        ({**SHARED, **context(runAsUser=0)}, "run as root or as several users"),
        (
            {**SHARED, "containers": [container("a", **context(runAsUser=1)), container("b", **context(runAsUser=2))]},
            "run as root or as several users",
        ),
    ],
)
def test_a_signal_that_cannot_be_sent(bench: Any, spec: Json, message: str) -> None:
    """What the kernel would refuse later is refused now."""
    error = bench.refusal(signalled(bench, spec))
    assert error.field == "metadata.annotations[kmseal.dev/reload]"
    assert message in error.message
