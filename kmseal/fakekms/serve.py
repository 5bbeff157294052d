"""The fake as a process of its own: what the command ``kmseal dev kms`` runs.

:func:`run` blocks until SIGTERM or SIGINT. It makes sure of three identities, ``admin`` (everything), ``developer``
(seals, cannot open) and ``operator`` (opens and re-wraps), writes their environment files, and tells the caller through
a hook when clients may come. It prints nothing itself, and no secret is in what it tells.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal.fakekms.account import ACCOUNT
from kmseal.fakekms.admin import AdminApi
from kmseal.fakekms.certificates import TlsFiles
from kmseal.fakekms.environments import write_environments
from kmseal.fakekms.identities import DEVELOPER_ACTIONS, OPERATOR_ACTIONS
from kmseal.fakekms.oidc import PublicKey, load_public_keys
from kmseal.fakekms.quotas import REAL_LIMITS
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.server import FakeKms

IDENTITIES: Final = {"admin": ("*",), "developer": DEVELOPER_ACTIONS, "operator": OPERATOR_ACTIONS}
"""Name → allowed actions of the identities that every served fake has."""

OIDC_PROVIDER: Final = "cluster"
OPERATOR_ROLE: Final = "kmseal-operator"

Summary = dict[str, object]
"""What is told when clients may come; JSON-able: see :func:`summarize`."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve.

    :param instances: id → region of instances that get a gateway of their own beside the shared one
    :param port: port of the first region; further regions, then instances, take the ports after it; 0 takes free ones
    :param admin_port: port of the switches, on loopback; 0 takes a free one, None leaves them out
    :param names: further DNS names and addresses that the certificate covers
    :param folder: where certificates are kept; ``tls`` beside the state, or a temporary folder, by default
    :param ca_file: with ``certificate_file`` and ``key_file``: a certificate of one's own
    :param env_file: file for the administrator's environment; ``.developer`` and ``.operator`` appended for the others
    :param aliases: a key is made for each of these in every region, unless it is there
    :param allow_symmetric_versions: CreateKeyVersion rotates, as on a software instance
    :param dedicated_gateway: behave like an instance's own gateway: no ReEncrypt, no management
    :param quotas: refuse calls beyond the real limits
    :param oidc_keys: JWKS document or PEM public key of the cluster's issuer; without, signatures are not checked
    :param oidc_issuer: the issuer that tokens must name; any by default
    :param oidc_subjects: patterns of the subjects that may assume the operator's role
    """

    regions: tuple[str, ...] = ("cn-hangzhou",)
    instances: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int | None = 0
    tls: bool = True
    names: tuple[str, ...] = ()
    folder: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    state: Path | None = None
    audit: Path | None = None
    env_file: Path | None = None
    account: str = ACCOUNT
    aliases: tuple[str, ...] = ()
    allow_symmetric_versions: bool = False
    dedicated_gateway: bool = False
    quotas: bool = False
    oidc_keys: Path | None = None
    oidc_issuer: str = ""
    oidc_subjects: tuple[str, ...] = ("*",)


def run(options: ServeOptions, ready: Callable[[Summary], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises Misconfigured when it cannot start.

    :param ready: called once, with the summary, when clients may come
    """
    asyncio.run(serve(options, ready))


async def serve(options: ServeOptions, ready: Callable[[Summary], None]) -> None:
    """As :func:`run`, on the running event loop of the main thread."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _fake(options) as kms:
        _furnish(kms, options)
        runner = None if options.admin_port is None else await _start_admin(kms, options.admin_port)
        try:
            env_files = {} if options.env_file is None else write_environments(kms, IDENTITIES, options.env_file)
            ready(summarize(kms, options, runner, env_files))
            await stop.wait()
        finally:
            if runner is not None:
                await runner.cleanup()


def summarize(kms: FakeKms, options: ServeOptions, runner: web.AppRunner | None, env_files: dict[str, Path]) -> Summary:
    """Where everything is: endpoints by region, files, keys by alias and region. No secrets."""
    return {
        "endpoints": {region: kms.endpoint(region) for region in kms.regions},
        "instances": {instance: kms.endpoint(instance) for instance in options.instances},
        "instanceCaFiles": {name: str(kms.gateways[name].ca_file) for name in options.instances if options.tls},
        "tls": options.tls,
        "caFile": str(kms.ca_file) if options.tls else None,
        "admin": None if runner is None else "http://{}:{}".format(*runner.addresses[0][:2]),
        "envFiles": {name: str(path) for name, path in env_files.items()},
        "keys": {
            f"{alias.region}:{alias.name}": f"acs:kms:{alias.region}:{alias.account}:key/{alias.key_id}"
            for alias in kms.store.aliases()
        },
        "roleArn": kms.tokens.role_arn(OPERATOR_ROLE),
        "oidcProviderArn": kms.tokens.provider_arn(OIDC_PROVIDER),
        "state": None if options.state is None else str(options.state),
    }


def _fake(options: ServeOptions) -> FakeKms:
    folder = options.folder
    if folder is None and options.state is not None:
        folder = (options.state if options.state.is_dir() else options.state.parent) / "tls"
    ways = (*options.regions, *options.instances)
    ports = {way: options.port + index if options.port else 0 for index, way in enumerate(ways)}
    return FakeKms(
        options.regions,
        instances=options.instances,
        tls=options.tls,
        host=options.host,
        ports=ports,
        names=options.names,
        folder=folder,
        tls_files=_own_certificate(options),
        state_path=options.state,
        audit_file=options.audit,
        account=options.account,
        allow_symmetric_versions=options.allow_symmetric_versions,
        dedicated_gateway=options.dedicated_gateway,
    )


def _own_certificate(options: ServeOptions) -> TlsFiles | None:
    files = (options.ca_file, options.certificate_file, options.key_file)
    if all(path is None for path in files):
        return None
    ca_file, certificate_file, key_file = files
    if ca_file is None or certificate_file is None or key_file is None:
        raise Misconfigured(
            "a certificate of one's own needs three files",
            reason="Certificate",
            remedy="name the authority, the certificate and its key, or none of them",
        )
    return TlsFiles(ca_file, certificate_file, key_file)


def _furnish(kms: FakeKms, options: ServeOptions) -> None:
    """Makes sure of identities, role, identity provider and keys; what a saved state holds stays."""
    for name, actions in IDENTITIES.items():
        if kms.identities.named(name) is None:
            kms.add_identity(name, actions)
    keys = None if options.oidc_keys is None else _read_keys(options.oidc_keys)
    kms.add_oidc_provider(OIDC_PROVIDER, issuer=options.oidc_issuer, keys=keys)
    kms.add_role(OPERATOR_ROLE, OPERATOR_ACTIONS, subjects=options.oidc_subjects, provider=OIDC_PROVIDER)
    for region in kms.regions:
        there = {alias.name for alias in kms.store.aliases(region)}
        for alias in options.aliases:
            name = alias if alias.startswith("alias/") else f"alias/{alias}"
            if name not in there:
                _create_key(kms, name, region)
    if options.quotas:
        kms.quotas.limit(REAL_LIMITS)


def _create_key(kms: FakeKms, alias: str, region: str) -> None:
    try:
        kms.create_key(alias, region)
    except Refusal as refusal:
        raise Misconfigured(refusal.message, reason="Alias", remedy="choose another alias") from None


def _read_keys(path: Path) -> dict[str, PublicKey]:
    try:
        return load_public_keys(path.read_bytes())
    except (OSError, ValueError):
        raise Misconfigured(
            f"{path} cannot be read as a JWKS document or a PEM public key",
            reason="OidcKeys",
            remedy="name the output of: kubectl get --raw /openid/v1/jwks",
        ) from None


async def _start_admin(kms: FakeKms, port: int) -> web.AppRunner:
    runner = web.AppRunner(AdminApi(kms).application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        await runner.cleanup()
        raise Misconfigured(
            f"cannot listen on 127.0.0.1:{port} ({os.strerror(error.errno or 0)})",
            reason="Listen",
            remedy="choose another admin port, or 0 for a free one",
        ) from None
    return runner
