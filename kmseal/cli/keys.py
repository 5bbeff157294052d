"""``kmseal keys``: which keys and versions are still needed, in the cluster and in files."""

import asyncio
import json
from typing import Any

import click

from kmseal.cli.census import Census, Holder, read_holdings, stale, take_census
from kmseal.cli.cluster import cluster, cluster_options, list_all
from kmseal.cli.keytable import KeyRow, Overview, render_table
from kmseal.cli.lazy import LazyGroup, verbose_option
from kmseal.cli.output import note, result
from kmseal.cli.report import Report
from kmseal.cli.repository import find_files

_EXAMPLES = """
# What the operator says of each key
kmseal keys

# Is the old version safe to disable, with what is in this repository?
kmseal keys --git clusters/ apps/

# Every object that still has a wrapping under an older version or a replaced key
kmseal keys --stale --git clusters/

# The public half of an asymmetric key, to be committed
kmseal keys public --key $KEY -o app.pub.yaml
"""


class KeysGroup(LazyGroup):
    """Lets ``--git`` take several paths at once, as globs of a shell bring them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        in_git = False
        for argument in args:
            if argument.startswith("-"):
                in_git = argument == "--git"
                spread += [] if in_git else [argument]
            else:
                spread += ["--git", argument] if in_git else [argument]
        if in_git and args[-1] == "--git":
            spread.append("--git")  # click says that its argument is missing.
        return super().parse_args(ctx, spread)


@click.group(
    cls=KeysGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    examples=_EXAMPLES,
    lazy={"public": ("kmseal.cli.keys_public", "Fetch the public half of an asymmetric key to a file.")},
)
@click.option(
    "--git", "paths", multiple=True, metavar="PATH...", help="Count what is in these files, folders and globs as well."
)
@click.option("--stale", "list_stale", is_flag=True, help="List each object that is stale, in the cluster or in files.")
@cluster_options
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of objects in files that name none.")
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="Form for programs.")
@verbose_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    list_stale: bool,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    form: str | None,
) -> None:
    """Show which keys and versions are still needed, and which are safe to disable.

    Lists the KMSKeys of the cluster with what the operator found: "stale in Git" are objects whose spec, as the cluster
    has it, holds a wrapping that should be under another version or key. With --git, wrappings in files are counted
    too, and what any file needs is not called safe; a file that cannot be read makes nothing safe.
    """
    if ctx.invoked_subcommand:
        return
    census = take_census(find_files(paths), namespace) if paths else None
    overview, holders = asyncio.run(_read(kubeconfig, context, census, objects=list_stale))
    if list_stale:
        _print_stale(overview, [*holders, *(census.holders if census else ())], form)
    else:
        _print_keys(overview, form)
    failures = Report(0, dry_run=True, objects=census.failures if census else [])
    failures.print_failures()
    if code := failures.exit_code():
        raise click.exceptions.Exit(code)


async def _read(
    kubeconfig: str | None, context: str | None, census: Census | None, *, objects: bool
) -> tuple[Overview, list[Holder]]:
    from kmseal.kube import ENCRYPTED_SECRETS, KMS_KEYS

    async with cluster(kubeconfig, context) as client:
        rows = [KeyRow.read(item) async for item in list_all(client, KMS_KEYS)]
        holders = []
        if objects:
            async for item in list_all(client, ENCRYPTED_SECRETS):
                metadata = item["metadata"]
                holders.append(Holder("", metadata["namespace"], metadata["name"], read_holdings(item)))
        return Overview(rows, census), holders


def _print_keys(overview: Overview, form: str | None) -> None:
    if form == "json":
        _print_json(overview, overview.to_dict())
        return
    if not overview.rows:
        note("the cluster has no KMSKey: the operator registers keys when it meets them")
    result(render_table(overview.table()))
    if overview.census:
        result("\n" + render_table(overview.version_table()))
    for row in overview.rows:
        if not row.observed:
            note(f"{row.name}: the operator has not looked at its present spec yet")
        for item, count in overview.blocked(row):
            note(f"{row.name}: {item} is needed by {count} objects in files: kmseal rewrap brings them up to date")


def _print_stale(overview: Overview, holders: list[Holder], form: str | None) -> None:
    found = list(stale(holders, overview.destinations()))
    if form == "json":
        items = [
            {
                "where": where,
                **({"file": holder.file} if holder.file else {}),
                "namespace": holder.namespace,
                "name": holder.name,
                "from": used.to_dict(),
                "to": target.to_dict(),
            }
            for where, holder, used, target in found
        ]
        _print_json(overview, {"stale": items})
        return
    lines = [["WHERE", "NAMESPACE", "NAME", "KEY", "VERSION", "SHOULD BE"]]
    for where, holder, used, target in found:
        wanted = target.version if target.key_id == used.key_id else str(target)
        lines.append([holder.file or where, holder.namespace, holder.name, used.key_id, used.version, wanted])
    if found:
        result(render_table(lines))
    else:
        note("nothing is stale")


def _print_json(overview: Overview, content: dict[str, Any]) -> None:
    failures = overview.census.failures if overview.census else []
    whole = content | {"failures": Report(0, dry_run=True, objects=failures).to_dict()["failures"]}
    result(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
