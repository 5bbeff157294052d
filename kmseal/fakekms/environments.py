"""Environment files of a served fake: what a client of each identity needs, to be read by a shell.

``serve`` writes them when it starts. They hold secrets, so only their owner can read them. They lead to the shared
gateways; where the gateway of an instance is, the summary says.
"""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from kmseal.errors import Misconfigured
from kmseal.fakekms.identities import Identity
from kmseal.fakekms.server import FakeKms


def write_environments(kms: FakeKms, names: Iterable[str], path: Path) -> dict[str, Path]:
    """One file for each identity that is there: the path for ``admin``, with ``.<name>`` appended for the others.

    Raises Misconfigured when one cannot be written.
    """
    written: dict[str, Path] = {}
    for name in names:
        identity = kms.identities.named(name)
        if identity is not None:
            written[name] = path if name == "admin" else path.with_name(f"{path.name}.{name}")
            _write_private(written[name], _environment(kms, identity))
    return written


def _environment(kms: FakeKms, identity: Identity) -> str:
    scheme = "" if kms.tls else "http://"
    endpoints = {region: scheme + kms.endpoint(region) for region in kms.regions}
    # With a single region every ARN is sent to it, so that a wrong one is refused by the fake, not by the network.
    several = ",".join(f"{region}={endpoint}" for region, endpoint in endpoints.items())
    variables = {"KMSEAL_KMS_ENDPOINT": several if len(endpoints) > 1 else endpoints[kms.regions[0]]}
    if kms.tls:
        variables["KMSEAL_KMS_CA_FILE"] = str(kms.ca_file)
    variables["ALIBABA_CLOUD_ACCESS_KEY_ID"] = identity.access_key_id
    variables["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = identity.access_key_secret
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _write_private(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.replace(path)
    except OSError as error:
        raise Misconfigured(
            f"the environment file {path} cannot be written ({os.strerror(error.errno or 0)})",
            field="--env-file",
            reason="EnvFile",
            remedy="name a file in a folder that is there and writable",
        ) from None
