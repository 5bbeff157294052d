"""The entry point of ``kmseal`` and ``kubectl kmseal``: the list of commands, and nothing that takes time to import."""

import click

from kmseal import __version__
from kmseal.cli.lazy import Program, program_name, verbose_option

_EPILOG = """
Exit codes:
  0  done
  1  an unexpected fault of kmseal or of this machine
  2  wrong usage
  3  the input is wrong and stays wrong until it is changed
  4  a right, a credential or a usable key is missing
  5  try again: the key service or the network cannot answer now
  6  this program's configuration is wrong
  7  rewrap --check has found something stale
  130  interrupted
Where several objects fail, it is the code that asks most of you: 5 only where trying again is all that is needed.

Environment:
  KMSEAL_KEY              default of --key; several are separated by white space
  KMSEAL_PUBLIC_KEY       default of --public-key; several files are separated by colons
  KMSEAL_KMS_ENDPOINT     default of --kms-endpoint
  KMSEAL_KMS_CA_FILE      default of --kms-ca-file
  KMSEAL_LOCAL_KEY_FILE   default of --local-key-file
"""


@click.group(
    cls=Program,
    epilog=_EPILOG,
    lazy={
        "create": ("kmseal.cli.create", "Create an EncryptedSecret from files, .env files, prompts or standard input."),
        "encrypt": ("kmseal.cli.encrypt", "Turn Secret manifests into EncryptedSecrets."),
        "set": ("kmseal.cli.set", "Set values in a file, without the right to read the others."),
        "unset": ("kmseal.cli.unset", "Remove values from a file, without any key."),
        "decrypt": ("kmseal.cli.decrypt", "Show what is inside, for those who may."),
        "rewrap": (
            "kmseal.cli.rewrap",
            "Bring wrappings in files up to date after a rotation, move, add or remove them.",
        ),
        "rotate": ("kmseal.cli.rotate", "Give the objects in files new data keys, and encrypt their values anew."),
        "keys": ("kmseal.cli.keys", "Show which keys and versions are still needed, and which are safe to disable."),
        "dev": ("kmseal.cli.dev", "Key services to develop and demonstrate with."),
    },
)
@verbose_option
@click.version_option(__version__, "--version", message="kmseal %(version)s")
def cli() -> None:
    """Secrets in Git for Kubernetes, with every data key wrapped by Alibaba Cloud KMS.

    Values are encrypted on this machine. Whoever may call GenerateDataKey on a key can write them; only whoever may
    call Decrypt, as the operator in the cluster, can read them.
    """


def main() -> None:
    """Runs the program and exits."""
    cli.main(prog_name=program_name())
