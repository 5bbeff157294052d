"""Fixtures of the integration tests: one real control plane for the whole session, one namespace for each test.

Nothing cleans up between tests, because without a controller manager a deleted namespace never goes away: a test
works in its own ``namespace`` and counts its own user or user agent.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane

HERE = Path(__file__).parent
CRDS = HERE.parents[1] / "crds"


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


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    """The CRDs, established."""
    control_plane.kubectl("apply", "--server-side", "--filename", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRDS))


@pytest.fixture(scope="session")
def custom_objects(control_plane: ControlPlane, crds: None) -> client.CustomObjectsApi:
    """The official client, as an independent observer of what the API server answers."""
    # The client's loader of kubeconfigs has no types; what it gives has.
    load: Callable[[str], client.ApiClient] = config.new_client_from_config
    return client.CustomObjectsApi(load(str(control_plane.kubeconfig)))


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Makes a call that the API server must refuse, and gives the message of its answer."""

    def refused(call: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(ApiException) as caught:
            call(*arguments)
        assert caught.value.status in (400, 422)
        return str(json.loads(caught.value.body or "{}")["message"])

    return refused
