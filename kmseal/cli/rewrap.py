"""``kmseal rewrap``: the wrappings in a repository's files brought up to date, moved, added and removed."""

import click

from kmseal.cli.bulk import IN_FLIGHT, progress, run_and_report, treat_files
from kmseal.cli.cluster import cluster, cluster_options
from kmseal.cli.filetree import exclude_option, find_files
from kmseal.cli.fromcluster import FromCluster
from kmseal.cli.inflight import InFlight
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options
from kmseal.cli.output import warn
from kmseal.cli.report import Report
from kmseal.cli.rewrapping import Request, Rewrapping
from kmseal.cli.sealing import require_key
from kmseal.manifest import require_key_id

_EXAMPLES = """
# After a rotation: wrap anew what stands under older versions, in all manifests of a folder
kmseal rewrap clusters/

# The same, from what the operator has done already: no right on any key is needed
kmseal rewrap --from-cluster clusters/prod/

# In CI: fail with exit code 7 where something is stale, and change nothing
kmseal rewrap --check clusters/

# Move everything to another key, or from one of two keys
kmseal rewrap --to-key $NEW_KEY clusters/
kmseal rewrap --from-key $OLD_KEY --to-key $NEW_KEY clusters/

# A second region that can open as well; and one less
kmseal rewrap --add-key $SHANGHAI_KEY 'apps/**/*.yaml'
kmseal rewrap --remove-key $SHANGHAI_KEY apps/
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--to-key", metavar="ARN", help="Move wrappings to this key or alias.")
@click.option("--from-key", metavar="ARN", help="Move only wrappings under this key: needed where there are several.")
@click.option(
    "--add-key", "add_keys", multiple=True, metavar="ARN", help="Add a wrapping by this key or alias. Repeatable."
)
@click.option(
    "--remove-key", "remove_keys", multiple=True, metavar="ARN", help="Remove wrappings by this key. Repeatable."
)
@click.option("--from-cluster", is_flag=True, help="Take newer wrappings from the cluster; no key service is asked.")
@click.option(
    "--allow-key",
    "allowed_keys",
    multiple=True,
    metavar="ARN",
    help="With --from-cluster, let this key take the place of another although no KMSKey says so. Repeatable.",
)
@cluster_options
@exclude_option
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of objects that name none.")
@click.option("--dry-run", is_flag=True, help="Write nothing, and say what would change.")
@click.option("--check", is_flag=True, help="As --dry-run, with exit code 7 where something would change.")
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="One report for programs.")
@connection_options
def command(
    *,
    paths: tuple[str, ...],
    to_key: str | None,
    from_key: str | None,
    add_keys: tuple[str, ...],
    remove_keys: tuple[str, ...],
    from_cluster: bool,
    allowed_keys: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    excluded: tuple[str, ...],
    namespace: str | None,
    dry_run: bool,
    check: bool,
    form: str | None,
    connection: Connection,
) -> None:
    """Bring wrappings in files up to date after a rotation, move, add or remove them.

    PATHs are files, folders (searched for *.yaml, *.yml and *.json, but not in hidden folders) and globs. Each
    EncryptedSecret in them is treated; everything else stays as it is, to the last byte, and of EncryptedSecrets only
    the lines of wrappings change. Values are not encrypted anew, and the data key stays inside KMS where it can.

    Without options that say otherwise, wrappings under older versions of their key are wrapped anew under its primary
    version: that needs the rights DescribeKey, ReEncryptFrom and ReEncryptTo. An object that fails is reported, and
    the others are treated all the same; running it again goes on with what is left.

    From the cluster, a wrapping under another key than the one in the file is taken only where the cluster's KMSKeys
    say that this key takes over: whoever can write a status must not choose the keys in Git.
    """
    request = Request(to_key or "", from_key or "", add_keys, remove_keys)
    usage = _wrong_combination(request, from_cluster, reached=bool(kubeconfig or context), allowed=bool(allowed_keys))
    if usage:
        raise click.UsageError(usage, click.get_current_context())
    if to_key:
        require_key(to_key, "--to-key")
    for key in add_keys:
        require_key(key, "--add-key")
    named = (("--from-key", (from_key,) if from_key else ()), ("--remove-key", remove_keys))
    for option, keys in (*named, ("--allow-key", allowed_keys)):
        for key in keys:
            require_key_id(key, option)
    found = find_files(paths, excluded).files
    report = Report(len(found), dry_run=dry_run or check)

    async def run() -> None:
        with progress(len(found), "Re-wrapping") as advance:
            if from_cluster:
                async with cluster(kubeconfig, context) as client:
                    taken = FromCluster(client, allowed_keys, dry_run=report.dry_run)
                    await treat_files(found, taken, report, namespace=namespace, advance=advance)
            else:
                async with connection.open() as service:
                    limited = InFlight(service, IN_FLIGHT)
                    asked = Rewrapping(limited, request, dry_run=report.dry_run)
                    await treat_files(found, asked, report, namespace=namespace, advance=advance)
                for option, keys in named:
                    for key in keys:
                        if key not in asked.met:
                            warn(f"{option}: no object that was read has a wrapping under {key}")

    run_and_report(run, report, form, check=check)


def _wrong_combination(request: Request, from_cluster: bool, *, reached: bool, allowed: bool) -> str:
    """What is wrong with the options together; empty where nothing is."""
    if from_cluster and request != Request():
        return "--from-cluster takes what is there: it goes with no other key"
    if reached and not from_cluster:
        return "--kubeconfig and --context go with --from-cluster"
    if allowed and not from_cluster:
        return "--allow-key goes with --from-cluster"
    if request.from_key and not request.to_key:
        return "--from-key goes with --to-key"
    if request.to_key and (request.add_keys or request.remove_keys):
        return "--to-key goes neither with --add-key nor with --remove-key"
    if request.to_key and request.to_key == request.from_key:
        return "--from-key and --to-key name the same key"
    if both := set(request.add_keys) & set(request.remove_keys):
        return f"--add-key and --remove-key both name {min(both)}"
    return ""
