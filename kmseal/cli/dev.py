"""``kmseal dev``: the group of commands that give a developer something to seal with."""

import click

from kmseal.cli.lazy import LazyGroup, verbose_option


@click.group(
    cls=LazyGroup,
    lazy={
        "kms": ("kmseal.cli.dev_kms", "Run a fake of Alibaba Cloud KMS and STS on this machine."),
        "key": ("kmseal.cli.dev_key", "Create, list and switch the keys of a running fake."),
        "local-key": ("kmseal.cli.dev_local_key", "Make or rotate the keys of a key file, for use without any KMS."),
    },
)
@verbose_option
def command() -> None:
    """Key services to develop and demonstrate with.

    Nothing here is for real secrets: the fake keeps its keys in memory or in clear on disk, and whoever can read a key
    file can open everything that was sealed with it.
    """
