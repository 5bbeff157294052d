"""The way to a cluster, for commands that read it: the options, the client, and lists page by page.

Used by ``rewrap --from-cluster`` and ``keys``. They list EncryptedSecrets and KMSKeys, which is all that their
ServiceAccount needs; no Secret is ever read, and nothing is written.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from kmseal import __version__
from kmseal.errors import AccessDenied

if TYPE_CHECKING:
    from kmseal.kube import KubeClient, Resource

Json = dict[str, Any]


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--kubeconfig`` and ``--context``."""
    for option in (
        click.option("--context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"),
        click.option("--kubeconfig", metavar="FILE", help="How to reach the cluster.  [default: as kubectl has it]"),
    ):
        function = option(function)
    return function


@asynccontextmanager
async def cluster(kubeconfig: str | None, context: str | None) -> AsyncIterator["KubeClient"]:
    """A client of the cluster. Raises Misconfigured."""
    from kmseal.kube import KubeClient
    from kmseal.kubeconfig import find_access_as_kubectl

    access = find_access_as_kubectl(os.environ, kubeconfig, context=context)
    async with KubeClient(access, user_agent=f"kmseal/{__version__}") as client:
        yield client


async def list_all(client: "KubeClient", resource: "Resource", namespace: str | None = None) -> AsyncIterator[Json]:
    """The objects of a kind. Raises AccessDenied saying which right is missing."""
    try:
        async for page in client.pages(resource, namespace):
            for item in page.items:
                yield item
    except AccessDenied as error:
        where = f" in namespace {namespace}" if namespace else ""
        error.field = resource.plural
        error.remedy = f"ask for the verb list on {resource.plural}.{resource.group}{where}"
        raise
