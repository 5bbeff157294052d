"""The program ``kmseal-webhook``: reads flags, sets up logs, runs one replica, and ends it gracefully on SIGTERM."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from kmseal.cluster.keys import Mode
from kmseal.cluster.logs import set_up_logs
from kmseal.errors import KmsealError
from kmseal.kms.settings import KmsSettings
from kmseal_webhook.runtime import Webhook
from kmseal_webhook.settings import WebhookSettings

_log = logging.getLogger("kmseal_webhook.main")
_DEFAULTS = WebhookSettings()
_FILE = click.Path(path_type=Path)


@click.command(context_settings={"auto_envvar_prefix": "KMSEAL", "help_option_names": ["-h", "--help"]})
@click.option("--listen", default=_DEFAULTS.listen, show_default=True, help="Address for API servers (TLS).")
@click.option("--broker-listen", default=_DEFAULTS.broker_listen, show_default=True, help="Address for agents (TLS).")
@click.option(
    "--admission-client-ca",
    default=_DEFAULTS.admission_client_ca,
    type=_FILE,
    help="Authorities of the API servers' client certificates (PEM); without it, anybody may ask for reviews.",
)
@click.option("--health", default=_DEFAULTS.health, show_default=True, help="Address of health and metrics.")
@click.option(
    "--namespace-of-service",
    default=_DEFAULTS.namespace_of_service,
    show_default=True,
    help="Where the Service is, and the Secrets that KMSKeys name.",
)
@click.option(
    "--service", default=_DEFAULTS.service, show_default=True, help="The Service; its webhook configurations, too."
)
@click.option(
    "--certificates",
    default=_DEFAULTS.certificates,
    show_default=True,
    type=click.Choice(["own", "cert-manager", "files"]),
    help="Where the serving certificate comes from.",
)
@click.option("--tls-secret", default=_DEFAULTS.tls_secret, show_default=True, help="The Secret of own certificates.")
@click.option("--tls-cert", default=_DEFAULTS.tls_cert, show_default=True, type=_FILE, help="Certificate (PEM).")
@click.option("--tls-key", default=_DEFAULTS.tls_key, show_default=True, type=_FILE, help="Its private key (PEM).")
@click.option("--tls-ca", default=_DEFAULTS.tls_ca, show_default=True, type=_FILE, help="What it is checked by (PEM).")
@click.option("--agent-image", default=_DEFAULTS.agent_image, help="The image of the injected containers.")
@click.option("--agent-requests", default=_DEFAULTS.agent_requests, show_default=True, help="What they request.")
@click.option("--agent-limits", default=_DEFAULTS.agent_limits, show_default=True, help="What they may use.")
@click.option(
    "--keys",
    default=_DEFAULTS.keys,
    show_default=True,
    type=click.Choice([mode.value for mode in Mode]),
    help="Which keys may open objects; the same as the operator's.",
)
@click.option(
    "--missed",
    default=_DEFAULTS.missed,
    show_default=True,
    type=click.Choice(["report", "evict", "off"]),
    help="What happens to annotated pods that were not injected.",
)
@click.option("--dry-run-unwrap", is_flag=True, help="Open each new EncryptedSecret to see that it can be.")
@click.option(
    "--drain-seconds",
    default=_DEFAULTS.drain_seconds,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="How long the graceful end may take.",
)
@click.option("--silence", default=_DEFAULTS.silence, show_default=True, help="Seconds of silence until unhealthy.")
@click.option("--kubeconfig", default=None, help="A kubeconfig; default: the pod's ServiceAccount, then KUBECONFIG.")
@click.option(
    "--log-level",
    default=_DEFAULTS.log_level,
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.version_option(package_name="kmseal")
def main(**flags: Any) -> None:
    """Prepare annotated pods for their secrets, hand these to them, and check EncryptedSecrets.

    KMS and its credentials are set by environment variables: see docs/operations.md.
    """
    # Each flag is a setting of the same name: a test compares them.
    settings = WebhookSettings(**flags)
    set_up_logs(settings.log_level)
    try:
        asyncio.run(_serve(settings, KmsSettings.from_environment(os.environ)))
    except KmsealError as error:
        _fail(error)
    except BaseExceptionGroup as group:
        known, _ = group.split(KmsealError)
        if known is None:
            raise
        _fail(_first(known))


async def _serve(settings: WebhookSettings, kms: KmsSettings) -> None:
    webhook = Webhook(settings, kms, os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, webhook.stop)
    await webhook.run()


def _first(group: BaseExceptionGroup[KmsealError]) -> KmsealError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _fail(error: KmsealError) -> None:
    _log.error("%s", error, extra={"reason": error.reason})
    sys.exit(error.exit_code)
