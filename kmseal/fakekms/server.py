"""FakeKms: the fake as one object, with its gateways, for tests and for ``serve``.

::

    async with FakeKms(regions=("cn-hangzhou",)) as kms:
        arn = kms.create_key(alias="alias/app")
        developer = kms.add_identity("developer", actions=("GenerateDataKey",))
        ...  # talk to kms.endpoint("cn-hangzhou") over TLS with kms.ca_file
        assert kms.calls["Decrypt"] == 0

        instance = await kms.open_instance("kst-one")   # instance.endpoint, instance.ca_file
        kms.clock.advance(30 * 86400)                   # for keys; clients live on real time

Every region has its shared gateway on a port of its own, on loopback unless told otherwise; instances have gateways
with authorities of their own; all share one account. This is a fake: it keeps key material in memory and, if asked to,
on disk in clear. Never put a real secret under its keys.
"""

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from kmseal.errors import Misconfigured
from kmseal.fakekms.account import ACCOUNT, Account
from kmseal.fakekms.certificates import TlsFiles, ensure_certificates
from kmseal.fakekms.gateways import Gateway
from kmseal.fakekms.wire import Wire

_INSTANCE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


class FakeKms(Account):
    """A KMS and STS of one account in one or more regions. See :class:`Account` for what is not said here.

    :param regions: names of the regions; the first one is the default of the methods below
    :param instances: id of an instance → its region: each gets a gateway of its own beside the shared one
    :param tls: HTTPS with a certificate of ``tls_files``, or of an authority made in ``folder``; plain HTTP if False
    :param host: address to listen on
    :param ports: region or id of an instance → port; a free one where none is given
    :param names: further DNS names and addresses that the certificates are to cover
    :param folder: where certificates go; a temporary folder, removed at the end, by default
    :param audit_file: file that audit records are appended to, as JSON lines

    Raises Misconfigured when the state cannot be read or a port cannot be had.
    """

    def __init__(
        self,
        regions: Sequence[str] = ("cn-hangzhou",),
        *,
        instances: Mapping[str, str] | None = None,
        tls: bool = True,
        host: str = "127.0.0.1",
        ports: Mapping[str, int] | None = None,
        names: Sequence[str] = (),
        folder: Path | None = None,
        tls_files: TlsFiles | None = None,
        state_path: Path | None = None,
        audit_file: Path | None = None,
        account: str = ACCOUNT,
        allow_symmetric_versions: bool = False,
        dedicated_gateway: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(
            regions,
            state_path=state_path,
            account=account,
            allow_symmetric_versions=allow_symmetric_versions,
            dedicated_gateway=dedicated_gateway,
            clock=clock,
            monotonic=monotonic,
            random_bytes=random_bytes,
            chance=chance,
        )
        self._host = host
        self._ports = dict(ports or {})
        self._names = tuple(names)
        self._folder = folder
        self._temporary: str | None = None
        self.tls = tls
        self._tls_files = tls_files
        self._audit_file = audit_file
        self._audit_stream: TextIO | None = None
        self._gateways: dict[str, Gateway] = {}
        for region in self.regions:
            self._add_gateway(region, "")
        for instance, region in (instances or {}).items():
            self._add_instance(region, instance)

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Opens the audit file and the gateways, with new certificates where needed. Raises Misconfigured."""
        try:
            if self._audit_file is not None:
                self._audit_stream = _open_private(self._audit_file)
                self.audit.write_to(self._audit_stream.write)
            await self.start_listening()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the gateways and connections, and removes what was temporary."""
        await self.stop_listening()
        self.audit.write_to(None)
        if self._audit_stream is not None:
            self._audit_stream.close()
            self._audit_stream = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary)
            self._temporary = None

    async def open_instance(self, instance: str, region: str | None = None) -> Gateway:
        """Gives an instance of a region its own gateway, with an authority of its own, and opens it.

        Raises Misconfigured for an id that is none, or a region that is not played.
        """
        if instance not in self._gateways:
            self._add_instance(region or self.regions[0], instance)
        await self._gateways[instance].open()
        return self._gateways[instance]

    async def start_listening(self, name: str | None = None) -> None:
        """Opens the gateway of a region or an instance, or all, on the ports they had before."""
        for gateway in self._of(name):
            await gateway.open()

    async def stop_listening(self, name: str | None = None) -> None:
        """Closes the gateway of a region or an instance, or all, and their connections: KMS is down."""
        for gateway in self._of(name):
            await gateway.close()

    # -- for clients

    @property
    def gateways(self) -> Mapping[str, Gateway]:
        """Region or id of an instance → its gateway, open or not."""
        return self._gateways

    def endpoint(self, name: str | None = None) -> str:
        """``host:port`` of a gateway; known from the first start on, and kept when it is down."""
        return self._gateways[name or self.regions[0]].endpoint

    @property
    def ca_file(self) -> Path:
        """The authority of the shared gateways. Raises Misconfigured without TLS."""
        return self._gateways[self.regions[0]].ca_file

    @property
    def listening(self) -> tuple[str, ...]:
        """The regions and instances whose gateways are up."""
        return tuple(name for name, gateway in self._gateways.items() if gateway.is_open)

    # -- inside

    def _of(self, name: str | None) -> list[Gateway]:
        return list(self._gateways.values()) if name is None else [self._gateways[name]]

    def _add_instance(self, region: str, instance: str) -> None:
        # The id becomes the name of a folder.
        if not _INSTANCE.fullmatch(instance) or instance in self._gateways or region not in self.regions:
            raise Misconfigured(
                f"there cannot be an instance {instance} in region {region}",
                field="--instance",
                reason="Instance",
                remedy="name it by letters, digits and hyphens, as ID or ID=REGION with a region that is played",
            )
        self._add_gateway(region, instance)

    def _add_gateway(self, region: str, instance: str) -> None:
        def files() -> TlsFiles:
            return self._instance_files(instance) if instance else self._shared_files()

        name = instance or region
        wire = Wire(region, self.service, self.faults, instance)
        self._gateways[name] = Gateway(wire, self._host, self._ports.get(name, 0), files if self.tls else None)

    def _shared_files(self) -> TlsFiles:
        if self._tls_files is None:
            self._tls_files = ensure_certificates(self._certificate_folder(), self._names)
        return self._tls_files

    def _instance_files(self, instance: str) -> TlsFiles:
        name = f"{instance}.cryptoservice.kms.aliyuncs.com"
        return ensure_certificates(self._certificate_folder() / "instances" / instance, (*self._names, name))

    def _certificate_folder(self) -> Path:
        if self._folder is not None:
            return self._folder
        if self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="kmseal-fakekms-")
        return Path(self._temporary)


def _open_private(path: Path) -> TextIO:
    """A text file to append whole lines to, readable by its owner only. Raises Misconfigured."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"the audit file {path} cannot be written ({os.strerror(error.errno or 0)})",
            field="--audit",
            reason="AuditFile",
            remedy="name a file in a folder that is there and writable",
        ) from None
    return open(descriptor, "a", encoding="utf-8", buffering=1)
