"""The program ``kmseal-operator``: reads flags, sets up logs, and runs the operator inside a kopf process.

kopf owns the process: signals, start and stop. What the operator watches has feeds of its own: see docs/decisions.
"""

import asyncio
import logging
import os
import sys
from typing import Any

import click
import kopf

from kmseal.cluster.keys import Mode
from kmseal.cluster.logs import set_up_logs
from kmseal.errors import KmsealError
from kmseal.kms.settings import KmsSettings
from kmseal_operator.runtime import Operator
from kmseal_operator.settings import OperatorSettings

_log = logging.getLogger("kmseal_operator.main")
_DEFAULTS = OperatorSettings()


@click.command(context_settings={"auto_envvar_prefix": "KMSEAL", "help_option_names": ["-h", "--help"]})
@click.option("--kubeconfig", default=None, help="A kubeconfig; default: the pod's ServiceAccount, then KUBECONFIG.")
@click.option("--namespace", "namespaces", multiple=True, help="Serve this namespace only; repeatable. Default: all.")
@click.option("--workers", default=_DEFAULTS.workers, show_default=True, help="Objects worked on at once.")
@click.option("--retry-base", default=_DEFAULTS.retry_base, show_default=True, help="Seconds before the first retry.")
@click.option("--retry-cap", default=_DEFAULTS.retry_cap, show_default=True, help="Longest seconds between retries.")
@click.option("--listen", default=_DEFAULTS.listen, show_default=True, help="Address of health and metrics.")
@click.option("--silence", default=_DEFAULTS.silence, show_default=True, help="Seconds of silence until unhealthy.")
@click.option(
    "--keys",
    default=_DEFAULTS.keys,
    show_default=True,
    type=click.Choice([mode.value for mode in Mode]),
    help="Which keys may open objects: any, those that a KMSKey names, or any without reading KMSKeys.",
)
@click.option("--rewrap-workers", default=_DEFAULTS.rewrap_workers, show_default=True, help="Re-wrapped at once.")
@click.option(
    "--status-pause", default=_DEFAULTS.status_pause, show_default=True, help="Seconds between writes of a KMSKey."
)
@click.option("--own-namespace", default=_DEFAULTS.own_namespace, show_default=True, help="Where KMSKeys' Secrets are.")
@click.option(
    "--log-level",
    default=_DEFAULTS.log_level,
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.version_option(package_name="kmseal")
def main(
    kubeconfig: str | None, namespaces: tuple[str, ...], workers: int, retry_base: float, retry_cap: float,
    listen: str, silence: float, keys: str, rewrap_workers: int, status_pause: float, own_namespace: str,
    log_level: str,
) -> None:  # fmt: skip
    """Turn EncryptedSecrets into Secrets.

    KMS and its credentials are set by environment variables: see docs/operations.md.
    """
    set_up_logs(log_level)
    settings = OperatorSettings(
        kubeconfig=kubeconfig, namespaces=namespaces, workers=workers, retry_base=retry_base, retry_cap=retry_cap,
        listen=listen, silence=silence, keys=keys, rewrap_workers=rewrap_workers, status_pause=status_pause,
        own_namespace=own_namespace, log_level=log_level,
    )  # fmt: skip
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig  # Where kopf looks.
    try:
        kms = KmsSettings.from_environment(os.environ)
        asyncio.run(_serve(Operator(settings, kms, os.environ), settings))
    except KmsealError as error:
        _log.error("%s", error, extra={"reason": error.reason})
        sys.exit(error.exit_code)


async def _serve(operator: Operator, settings: OperatorSettings) -> None:
    """Runs the operator, and kopf once the API server has been reached, until kopf is told to stop or ours fails."""
    # kopf gives up after a minute without an API server, and on its way out cancels every task that was made after its
    # start. So ours runs first, through any outage, and kopf joins when all of our tasks are there.
    ours = asyncio.create_task(operator.run())
    ready = asyncio.create_task(operator.ready.wait())
    await asyncio.wait({ours, ready}, return_when=asyncio.FIRST_COMPLETED)
    stop = asyncio.Event()
    tasks = [ours]
    if ours.done():
        ready.cancel()
    else:
        ours.add_done_callback(lambda _: stop.set())
        tasks.append(asyncio.create_task(_run_kopf(settings, stop)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    ours.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseExceptionGroup):
            known, _ = error.split(KmsealError)
            raise known.exceptions[0] if known else error
        if isinstance(error, Exception):
            raise error


async def _run_kopf(settings: OperatorSettings, stop: asyncio.Event) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: object) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        # Logs go through our formatter only.
        logging.getLogger("kopf").setLevel(logging.WARNING)

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if settings.kubeconfig is None and (found := kopf.login_with_service_account(**kwargs)):
            return found
        return kopf.login_with_kubeconfig(**kwargs)

    await kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=list(settings.namespaces),
        stop_flag=stop,
    )
