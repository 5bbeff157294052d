"""Fixtures of the integration tests: one real control plane for the whole session, one namespace for each test.

Nothing cleans up between tests, because without a controller manager a deleted namespace never goes away: a test
works in its own ``namespace`` and counts its own user or user agent.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest hands every conftest the items of the whole run.
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, shared by all tests; one that restarts the API server leaves it running."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    # The first run compiles for minutes: its progress must be seen, or it looks hung.
    with capture.global_and_fixture_disabled():
        binaries = find_binaries()
    with ControlPlane(binaries=binaries) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """The name of a fresh namespace."""
    name = f"test-{secrets.token_hex(5)}"
    answer = control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert answer.status == 201, answer.body
    return name
