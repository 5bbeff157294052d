"""``kmseal dev local-key``: key files of the local provider."""

from pathlib import Path

import click

from kmseal.cli.lazy import Command, verbose_option
from kmseal.cli.output import note, result

_EXAMPLES = """
# A key file, and a Secret sealed with it
kmseal dev local-key ./keys
KMSEAL_LOCAL_KEY_FILE=./keys kmseal create db -n prod --key local:dev --prompt password

# A new primary version
kmseal dev local-key ./keys --name dev --rotate
"""


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--name",
    "names",
    multiple=True,
    default=("dev",),
    metavar="NAME",
    help="Name of a key, which is then local:<name>. Repeatable.  [default: dev]",
)
@click.option("--rotate", is_flag=True, help="Give keys of an existing file a new primary version.")
@verbose_option
def command(*, file: Path, names: tuple[str, ...], rotate: bool) -> None:
    """Make or rotate the keys of a key file, for use without any KMS.

    Prints the names of the keys. The file opens everything that is sealed with it: keep it out of Git.
    """
    from kmseal.kms.local import PREFIX, add_version, create_key_file

    if rotate:
        for name in names:
            note(f"{PREFIX}{name}: version {add_version(file, name)} is primary")
    else:
        create_key_file(file, names)
        note(f"{file}: made; keep it out of Git, and keep a copy")
    result("".join(f"{PREFIX}{name}\n" for name in names))
