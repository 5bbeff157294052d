"""``kmseal dev kms``: the command line of the fake KMS; what it does is in ``kmseal.fakekms``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from kmseal.cli.lazy import Command, verbose_option
from kmseal.cli.output import result

if TYPE_CHECKING:
    from kmseal.fakekms.serve import Summary

_EXAMPLES: Final = """
# A KMS with one key, whose environment a shell can read
kmseal dev kms --alias app --env-file kms.env
. ./kms.env.developer
kmseal create db -n prod --key acs:kms:cn-hangzhou:1000000000000001:alias/app --prompt password

# Two regions, on ports of their own, with state that survives a restart
kmseal dev kms --region cn-hangzhou --region cn-shanghai --port 8443 --state ./kms

# An instance with its own gateway beside the shared one
kmseal dev kms --instance kst-one
"""
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


@click.command(cls=Command, examples=_EXAMPLES)
@click.option(
    "--region",
    "regions",
    multiple=True,
    default=("cn-hangzhou",),
    metavar="REGION",
    help="Region to play. Repeatable.  [default: cn-hangzhou]",
)
@click.option(
    "--instance",
    "instances",
    multiple=True,
    metavar="ID[=REGION]",
    help="Give an instance a gateway of its own, in the first region unless one is named. Repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port of the first region; further regions, then instances, take those after it.  [default: free ones]",
)
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port of the switches that kmseal dev key uses, on loopback.  [default: a free one]",
)
@click.option("--no-admin", is_flag=True, help="Leave the switches out.")
@click.option("--no-tls", is_flag=True, help="Speak plain HTTP.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Further name in the certificate. Repeatable.")
@click.option("--folder", type=_FOLDER, help="Where certificates are kept.  [default: beside the state, or nowhere]")
@click.option("--tls-ca", "ca_file", type=_FILE, help="Authority of a certificate of your own, in PEM.")
@click.option("--tls-cert", "certificate_file", type=_FILE, help="Certificate of your own, in PEM.")
@click.option("--tls-key", "key_file", type=_FILE, help="Its private key, in PEM.")
@click.option("--state", type=click.Path(path_type=Path), help="File or folder in which the state is kept, in clear.")
@click.option("--audit", type=_FILE, help="File to which audit records are appended, a JSON object a line.")
@click.option(
    "--env-file",
    type=_FILE,
    help="Write the administrator's environment here, and that of the others with .developer and .operator appended.",
)
@click.option("--account", default=None, metavar="ID", help="Account to play.")
@click.option("--alias", "aliases", multiple=True, metavar="ALIAS", help="Make a key with this alias. Repeatable.")
@click.option("--allow-symmetric-versions", is_flag=True, help="Let CreateKeyVersion rotate, as a KMS instance does.")
@click.option("--quotas", is_flag=True, help="Refuse calls beyond the real limits.")
@click.option("--oidc-keys", type=_FILE, help="JWKS document or PEM public key of the cluster's token issuer.")
@click.option("--oidc-issuer", default="", metavar="URL", help="Issuer that tokens must name.  [default: any]")
@click.option(
    "--oidc-subject",
    "oidc_subjects",
    multiple=True,
    default=("*",),
    metavar="PATTERN",
    help="Subject that may assume the operator's role. Repeatable.  [default: any]",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the summary.")
@verbose_option
def command(
    *,
    regions: tuple[str, ...],
    instances: tuple[str, ...],
    host: str,
    port: int,
    admin_port: int,
    no_admin: bool,
    no_tls: bool,
    names: tuple[str, ...],
    folder: Path | None,
    ca_file: Path | None,
    certificate_file: Path | None,
    key_file: Path | None,
    state: Path | None,
    audit: Path | None,
    env_file: Path | None,
    account: str | None,
    aliases: tuple[str, ...],
    allow_symmetric_versions: bool,
    quotas: bool,
    oidc_keys: Path | None,
    oidc_issuer: str,
    oidc_subjects: tuple[str, ...],
    output: str,
) -> None:
    """Run a fake of Alibaba Cloud KMS and STS on this machine.

    It checks signatures, rights, key states, encryption contexts and quotas as the real service documents them, and
    prints where it listens as soon as clients may come. It runs until it is interrupted. Never put a real secret under
    its keys.
    """
    from kmseal.fakekms.account import ACCOUNT
    from kmseal.fakekms.serve import ServeOptions, run

    options = ServeOptions(
        regions=regions,
        instances={name: region or regions[0] for name, _, region in (item.partition("=") for item in instances)},
        host=host,
        port=port,
        admin_port=None if no_admin else admin_port,
        tls=not no_tls,
        names=names,
        folder=folder,
        ca_file=ca_file,
        certificate_file=certificate_file,
        key_file=key_file,
        state=state,
        audit=audit,
        env_file=env_file,
        account=account or ACCOUNT,
        aliases=aliases,
        allow_symmetric_versions=allow_symmetric_versions,
        quotas=quotas,
        oidc_keys=oidc_keys,
        oidc_issuer=oidc_issuer,
        oidc_subjects=oidc_subjects,
    )
    run(options, lambda summary: result(_json(summary) if output == "json" else _text(summary)))


def _json(summary: "Summary") -> str:
    return json.dumps(summary) + "\n"


def _text(summary: "Summary") -> str:
    """The summary for people: a name and a value a line, nested names joined."""
    rows: list[tuple[str, str]] = []
    for name, value in summary.items():
        if isinstance(value, dict):
            rows += [(f"{name} {inner}", str(text)) for inner, text in value.items()]
        elif value is not None:
            rows.append((name, str(value)))
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:{width}}  {value}\n" for name, value in rows)
