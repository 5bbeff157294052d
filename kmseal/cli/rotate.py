"""``kmseal rotate``: new data keys for the objects in a repository's files, and their values encrypted anew."""

import click

from kmseal.cli.bulk import IN_FLIGHT, Treated, progress, run_and_report, treat_files
from kmseal.cli.documents import Edit
from kmseal.cli.filetree import exclude_option, find_files
from kmseal.cli.inflight import InFlight
from kmseal.cli.keyset import key_set_of, lost_keys, public_key_option, require_key_set
from kmseal.cli.lazy import Command
from kmseal.cli.options import Connection, connection_options
from kmseal.cli.output import warn
from kmseal.cli.report import Change, Outcome, Report
from kmseal.cli.sealing import KeyService, KeySet, open_object, seal
from kmseal.holdings import KeyUse
from kmseal.manifest import DataKey, EncryptedSecret

_EXAMPLES = """
# After somebody left who could decrypt: new data keys for everything in a folder
kmseal rotate clusters/prod/

# Under other keys than before
kmseal rotate --key $KEY --key $OTHER_KEY clusters/prod/

# What would happen, without any request
kmseal rotate --dry-run clusters/
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ARN",
    help="KMS key that wraps the new data keys. Repeatable.  [default: the keys that each object has]",
)
@public_key_option(environment=False)
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of objects that name none.")
@exclude_option
@click.option("--dry-run", is_flag=True, help="Write nothing and ask for nothing, and say what would change.")
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="One report for programs.")
@connection_options
def command(
    *,
    paths: tuple[str, ...],
    keys: tuple[str, ...],
    public_key_files: tuple[str, ...],
    namespace: str | None,
    excluded: tuple[str, ...],
    dry_run: bool,
    form: str | None,
    connection: Connection,
) -> None:
    """Give the objects in files new data keys, and encrypt their values anew.

    All data keys of an object become one. The values stay what they are: whoever knows them from before still does,
    so replace them at their source where that matters. PATHs are files, folders and globs, as for kmseal rewrap.

    Needs the right Decrypt for each data key, and what kmseal set needs for the new one: GenerateDataKey, and Encrypt
    for each further key. Values and data keys are in the memory of this process only.
    """
    chosen = require_key_set(keys, public_key_files) if keys or public_key_files else None
    found = find_files(paths, excluded).files
    report = Report(len(found), dry_run=dry_run)

    async def run() -> None:
        async with connection.open() as service:
            treatment = Rotation(InFlight(service, IN_FLIGHT), chosen, dry_run=dry_run)
            with progress(len(found), "Rotating") as advance:
                await treat_files(found, treatment, report, namespace=namespace, advance=advance)

    run_and_report(run, report, form, check=False)


class Rotation:
    """Treats objects with a new data key under ``chosen``, or under the keys that they have."""

    needs_namespace = False

    def __init__(self, service: KeyService, chosen: KeySet | None, *, dry_run: bool) -> None:
        self._service = service
        self._chosen = chosen
        self._dry_run = dry_run

    async def treat(self, encrypted: EncryptedSecret) -> Treated:
        """Opens all values of the object, or changes nothing of it."""
        chosen = self._chosen or key_set_of(encrypted, (), ())
        if lost := lost_keys(encrypted, chosen):
            warn(f"{encrypted.namespace}/{encrypted.name}: what is encrypted anew will not open with {lost}, as it did")
        if self._dry_run:
            named = [*chosen.keys, *(public.key_id for public in chosen.public)]
            added = [Change("", None, KeyUse(key), whole=True) for key in named]
            return Treated(Outcome.CHANGED, (*added, *_dropped(encrypted.data_keys)))
        values = await open_object(self._service, encrypted)
        taken = [data_key.id for data_key in encrypted.data_keys]
        sealed = await seal(self._service, chosen, encrypted.place, values, taken=taken)
        new = [
            Change(sealed.data_key.id, None, KeyUse.of(wrapping), whole=True) for wrapping in sealed.data_key.wrappings
        ]
        edit = Edit(values=sealed.lines, data_key=sealed.data_key.to_dict(), drop_data_keys=taken)
        return Treated(Outcome.CHANGED, (*new, *_dropped(encrypted.data_keys)), edit)


def _dropped(data_keys: tuple[DataKey, ...]) -> list[Change]:
    return [Change(item.id, KeyUse.of(wrapping), None, whole=True) for item in data_keys for wrapping in item.wrappings]
