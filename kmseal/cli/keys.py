"""``kmseal keys``: which keys and versions are still needed, in the cluster and in files."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import click

from kmseal.cli.census import Holder, Needs, stale, take_census
from kmseal.cli.cluster import cluster, cluster_options, list_all
from kmseal.cli.filetree import exclude_option, find_files
from kmseal.cli.keyrows import KeyRow, KeyRows
from kmseal.cli.keytable import Blocker, Overview, render_table
from kmseal.cli.lazy import LazyGroup, verbose_option
from kmseal.cli.output import note, result
from kmseal.cli.report import ObjectReport, Report
from kmseal.cli.traces import find_traces
from kmseal.holdings import read_holdings

_EXAMPLES = """
# What the operator says of each key
kmseal keys

# Is the old version safe to disable, with what is in this repository?
kmseal keys --git clusters/ apps/

# Every object that still has a wrapping under an older version or a replaced key
kmseal keys --stale --git clusters/

# The public half of an asymmetric key, to be committed
kmseal keys public --key $KEY -w app.pub.yaml
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
@exclude_option
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
    excluded: tuple[str, ...],
    list_stale: bool,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    form: str | None,
) -> None:
    """Show which keys and versions are still needed, and which are safe to disable.

    Lists the KMSKeys of the cluster with what the operator found: "stale in Git" are objects whose spec, as the cluster
    has it, holds a wrapping that should be under another version or key. What an object of the cluster needs at this
    moment is not called safe, whatever the operator said last.

    With --git, wrappings in files are counted too, and what any file needs is not called safe. Every file is searched,
    hidden ones included, but for .git. A manifest that cannot be read makes nothing safe; a file that names a version
    or key where it cannot be counted keeps that one from being safe.
    """
    if ctx.invoked_subcommand:
        return
    if excluded and not paths:
        raise click.UsageError("--exclude goes with --git", ctx)
    census = take_census(find_files(paths, excluded, everything=True), namespace) if paths else None
    keys, holders = asyncio.run(_read(kubeconfig, context))
    overview = Overview(keys, Needs(holders), census)
    if census and not list_stale:
        candidates = dict.fromkeys(use for row in keys.rows for use in overview.safe(row))
        overview = replace(overview, traces=tuple(find_traces(census.tree, candidates)))
    if list_stale:
        _print_stale(overview, [*holders, *(census.holders if census else ())], form)
    else:
        _print_keys(overview, form)
    if census:
        note(str(census))
        for path in census.tree.excluded:
            note(f"{path}: not counted, as --exclude says")
    failures = _failures(overview)
    failures.print_failures()
    if code := failures.exit_code():
        raise click.exceptions.Exit(code)


async def _read(kubeconfig: str | None, context: str | None) -> tuple[KeyRows, list[Holder]]:
    from kmseal.kube import ENCRYPTED_SECRETS, KMS_KEYS

    async with cluster(kubeconfig, context) as client:
        # In this order: what is called safe is older than the objects that it is held against.
        rows = KeyRows([KeyRow.read(item) async for item in list_all(client, KMS_KEYS)])
        holders = []
        async for item in list_all(client, ENCRYPTED_SECRETS):
            metadata = item["metadata"]
            holders.append(Holder("", metadata["namespace"], metadata["name"], read_holdings(item)))
        return rows, holders


def _print_keys(overview: Overview, form: str | None) -> None:
    if form == "json":
        _print_json(overview, overview.to_dict())
        return
    if not overview.keys.rows:
        note("the cluster has no KMSKey: the operator registers keys when it meets them")
    result(render_table(overview.table()))
    if overview.census:
        result("\n" + render_table(overview.version_table()))
    for row in overview.keys.rows:
        if not row.observed:
            note(f"{row.name}: the operator has not looked at its present spec yet")
        for use, blocker, count in overview.blocked(row):
            objects = f"{count} object{'' if count == 1 else 's'}"
            if blocker is Blocker.CLUSTER:
                note(f"{row.name}: {use} is needed by {objects} in the cluster, which the operator has not counted yet")
            elif blocker is Blocker.FILES:
                note(f"{row.name}: {use} is needed by {objects} in files: kmseal rewrap brings them up to date")


def _print_stale(overview: Overview, holders: list[Holder], form: str | None) -> None:
    found = list(stale(holders, overview.keys))
    if form == "json":
        items = [
            {
                "where": where,
                **({"file": holder.file} if holder.file else {}),
                "namespace": holder.namespace,
                "name": holder.name,
                "from": used.to_dict(),
                **({"to": target.to_dict()} if target else {}),
            }
            for where, holder, used, target in found
        ]
        _print_json(overview, {"stale": items})
        return
    lines = [["WHERE", "NAMESPACE", "NAME", "KEY", "VERSION", "SHOULD BE"]]
    for where, holder, used, target in found:
        lines.append(
            [holder.file or where, holder.namespace, holder.name, *used, "a circle of KMSKeys" if target is None
             else target.key_version_id if target.key_id == used.key_id else str(target)]
        )  # fmt: skip
    if found:
        result(render_table(lines))
    else:
        note("nothing is stale")


def _failures(overview: Overview) -> Report:
    """Files that could not be counted, or not all of them; each once, whatever it keeps from being safe."""
    report = Report(0, dry_run=True, objects=list(overview.census.failures) if overview.census else [])
    for file, error in {
        (trace.file, str(trace.error)): (trace.file, trace.error) for trace in overview.traces
    }.values():
        failed = ObjectReport(file)
        failed.fail(error)
        report.objects.append(failed)
    return report


def _print_json(overview: Overview, content: dict[str, Any]) -> None:
    whole = content | {"failures": _failures(overview).to_dict()["failures"]}
    if census := overview.census:
        tree = census.tree
        whole["files"] = {"count": len(tree.files), "objects": len(census.holders), "excluded": tree.excluded}
    result(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
