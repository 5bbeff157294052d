"""Options that several commands share, and the way from them to a key service.

Used by every command that seals or opens. The key service is imported when it is opened: a command that fails before,
or only prints its help, never pays for it.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kmseal.cli.lazy import verbose_option
from kmseal.envelope import Scope
from kmseal.manifest import Delivery

if TYPE_CHECKING:
    from kmseal.kms.keyring import Keyring


@dataclass(frozen=True, slots=True)
class Connection:
    """Which key service to talk to, as far as the options say; the environment says the rest."""

    kms_endpoint: str | None
    kms_ca_file: str | None
    local_key_file: str | None

    def open(self) -> "Keyring":
        """The key service, to be used as an asynchronous context manager. Raises Misconfigured."""
        from kmseal.kms.keyring import Keyring
        from kmseal.kms.settings import KmsSettings

        options = {
            "KMSEAL_KMS_ENDPOINT": self.kms_endpoint,
            "KMSEAL_KMS_CA_FILE": self.kms_ca_file,
            "KMSEAL_LOCAL_KEY_FILE": self.local_key_file,
        }
        environment = dict(os.environ) | {name: given for name, given in options.items() if given}
        return Keyring(KmsSettings.from_environment(environment), environment)


def connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the key service; the command gets them as one ``connection``."""

    @click.option(
        "--kms-endpoint",
        metavar="HOST[:PORT]",
        envvar="KMSEAL_KMS_ENDPOINT",
        help="KMS endpoint; by default the one of the key's region.",
    )
    @click.option(
        "--kms-ca-file",
        metavar="FILE",
        envvar="KMSEAL_KMS_CA_FILE",
        help="Certificate authority of the KMS endpoint, in PEM.",
    )
    @click.option(
        "--local-key-file",
        metavar="FILE",
        envvar="KMSEAL_LOCAL_KEY_FILE",
        help="Key file of local:<name> keys, for development.",
    )
    @verbose_option
    @functools.wraps(function)
    def with_connection(
        *args: Any, kms_endpoint: str | None, kms_ca_file: str | None, local_key_file: str | None, **kwargs: Any
    ) -> Any:
        return function(*args, connection=Connection(kms_endpoint, kms_ca_file, local_key_file), **kwargs)

    return with_connection


key_option = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ARN",
    envvar="KMSEAL_KEY",
    help="KMS key that wraps: acs:kms:<region>:<account>:key/<id> or …:alias/<name>, or local:<name>. Repeat it to let "
    "any one of several keys open; the first needs the right GenerateDataKey, each further one Encrypt.",
)


namespace_option = click.option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of the object.")

delivery_option = click.option(
    "--delivery",
    type=click.Choice([delivery.value for delivery in Delivery], case_sensitive=False),
    default=Delivery.SECRET.value,
    show_default=True,
    metavar="|".join(delivery.value for delivery in Delivery),
    help="How the values reach their users: as a native Secret, or in annotated pods only.",
)

scope_option = click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope], case_sensitive=False),
    default=Scope.STRICT.value,
    show_default=True,
    metavar="|".join(scope.value for scope in Scope),
    help="Where the ciphertext may be used: under this name, in this namespace, or anywhere.",
)
