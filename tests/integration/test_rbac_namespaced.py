"""operator/rbac-namespaced.yaml against a real API server: what an operator of single namespaces may do."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError

MANIFEST = Path(__file__).parents[2] / "operator" / "rbac-namespaced.yaml"


def home_of(namespace: str) -> str:
    """The operator's own namespace in the test of ``namespace``. Short: the user's name must fit a certificate."""
    return namespace.replace("test", "home")


@pytest.fixture
def may(control_plane: ControlPlane, crds: None, namespace: str) -> Callable[..., bool]:
    """Whether the operator of ``namespace`` may do what kubectl is told. The roles get names of their own."""
    home = home_of(namespace)
    operator = home.replace("home", "operator")
    control_plane.kubectl("create", "namespace", home)
    text = MANIFEST.read_text().replace("kmseal-operator", operator).replace("kmseal-system", home)
    text = text.replace("prod", namespace)
    control_plane.kubectl("apply", "--filename", "-", stdin=text)
    kubeconfig = control_plane.kubeconfig_for(f"system:serviceaccount:{home}:{operator}")

    def allowed(*arguments: str) -> bool:
        try:
            control_plane.kubectl(*arguments, kubeconfig=kubeconfig)
        except ControlPlaneError as error:
            # Whatever else may be wrong with a request, it was allowed.
            return "Forbidden" not in str(error) and "forbidden" not in str(error)
        return True

    deadline = time.monotonic() + 10
    while not allowed("get", "kmskeys"):  # The authorizer learns of new roles a moment later.
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return allowed


def test_the_labels_of_a_served_namespace_can_be_followed(may: Callable[..., bool], namespace: str) -> None:
    """List and watch are granted by name, to requests with that field selector, and for no other namespace."""
    assert may("get", "namespaces", f"--field-selector=metadata.name={namespace}")
    assert may(
        "get", "--raw", f"/api/v1/namespaces?fieldSelector=metadata.name%3D{namespace}&watch=true&timeoutSeconds=1"
    )
    assert not may("get", "namespaces", "--field-selector=metadata.name=kube-system")
    assert not may("get", "namespaces")


def test_kmskeys_are_obeyed_and_not_written(may: Callable[..., bool]) -> None:
    """Several such operators must not fight over a KMSKey's status, nor register keys for the whole cluster."""
    patch = '--patch={"status": {"objects": 1}}'
    assert not may("patch", "kmskey", "some", "--type=merge", "--subresource=status", patch)
    assert not may("create", "--raw", "/apis/kmseal.dev/v1alpha1/kmskeys", "--filename", str(MANIFEST))


def test_access_keys_are_read_by_name_at_home_only(may: Callable[..., bool], namespace: str) -> None:
    """In its own namespace it reads the Secrets that KMSKeys name and lists none; elsewhere it reads none."""
    home = home_of(namespace)
    assert may("get", "secret", "access", "--namespace", home)
    assert not may("get", "secrets", "--namespace", home)
    assert not may("get", "secret", "access", "--namespace", "default")
