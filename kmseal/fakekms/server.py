"""FakeKms: the fake as one object, with its listeners, for tests and for ``serve``.

::

    async with FakeKms(regions=("cn-hangzhou",)) as kms:
        arn = kms.create_key(alias="alias/app")
        developer = kms.add_identity("developer", actions=("GenerateDataKey",))
        ...  # talk to kms.endpoint("cn-hangzhou") over TLS with kms.ca_file
        assert kms.calls["Decrypt"] == 0

Every region listens on a port of its own, on loopback unless told otherwise, and all share one state. Everything that
an administrator could do to the real service, tests do here directly; what a client does goes over the wire. This is a
fake: it keeps key material in memory and, if asked to, on disk in clear. Never put a real secret under its keys.
"""

import asyncio
import os
import random
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal.fakekms import state
from kmseal.fakekms.audit import AuditTrail, CallCounter
from kmseal.fakekms.certificates import TlsFiles, ensure_certificates
from kmseal.fakekms.faults import Faults
from kmseal.fakekms.identities import Identities, Identity, Policy
from kmseal.fakekms.keys import Key, KeyStore
from kmseal.fakekms.oidc import OidcProvider, PublicKey
from kmseal.fakekms.quotas import Quotas
from kmseal.fakekms.service import Service
from kmseal.fakekms.states import KeyState
from kmseal.fakekms.sts import Role, TokenService
from kmseal.fakekms.wire import LINE_LIMIT, Wire, quiet_logger

ACCOUNT: Final = "1000000000000001"


class FakeKms:
    """A KMS and STS of one account in one or more regions.

    :param regions: names of the regions; the first one is the default of the methods below
    :param tls: HTTPS with a certificate of ``tls_files``, or of an authority made in ``folder``; plain HTTP if False
    :param host: address to listen on
    :param ports: region → port; a free one where none is given
    :param names: further DNS names and addresses that the certificate is to cover
    :param folder: where certificates go; a temporary folder, removed at the end, by default
    :param state_path: file, or folder, that the state is kept in; in memory only by default
    :param audit_file: file that audit records are appended to, as JSON lines
    :param allow_symmetric_versions: CreateKeyVersion rotates symmetric keys, as on a software instance
    :param dedicated_gateway: behave like the gateway of one instance, which has neither ReEncrypt nor management
    :param clock: seconds since 1970
    :param monotonic: seconds that never go back, for quotas

    Raises Misconfigured when the state cannot be read or a port cannot be had.
    """

    def __init__(
        self,
        regions: Sequence[str] = ("cn-hangzhou",),
        *,
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
        self.regions = tuple(regions)
        self._host = host
        self._ports = dict.fromkeys(self.regions, 0) | dict(ports or {})
        self._names = names
        self._folder = folder
        self._temporary: str | None = None
        self._tls = tls
        self._tls_files = tls_files
        self._ssl: ssl.SSLContext | None = None
        self._state_file = None if state_path is None else state.state_file(state_path)
        self._audit_file = audit_file
        self._audit_stream: TextIO | None = None
        self._listeners: dict[str, tuple[asyncio.Server, web.Server]] = {}

        self.store = KeyStore(account, clock, random_bytes, self._save)
        self.identities = Identities(clock, random_bytes, self._save)
        self.tokens = TokenService(account, self.identities, clock)
        self.audit = AuditTrail()
        self.quotas = Quotas(monotonic)
        self.faults = Faults(chance)
        self.service = Service(
            self.store,
            self.identities,
            self.tokens,
            self.audit,
            self.quotas,
            clock,
            allow_symmetric_versions,
            dedicated_gateway,
        )
        if self._state_file is not None:
            state.load(self._state_file, self.store, self.identities, self.tokens)
            # Saving at once shows a folder that cannot be written now, and not in the middle of a request.
            state.save(self._state_file, self.store, self.identities, self.tokens)

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Opens the audit file and the listeners, with new certificates where needed. Raises Misconfigured."""
        try:
            if self._audit_file is not None:
                self._audit_stream = _open_private(self._audit_file)
                self.audit.write_to(self._audit_stream.write)
            if self._tls:
                self._ssl = self._server_context()
            await self.start_listening()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the listeners and connections, and removes what was temporary."""
        await self.stop_listening()
        self.audit.write_to(None)
        if self._audit_stream is not None:
            self._audit_stream.close()
            self._audit_stream = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary)
            self._temporary = None

    async def start_listening(self, region: str | None = None) -> None:
        """Opens the listeners of one region, or of all, on the ports they had before."""
        for name in self._of(region):
            if name in self._listeners:
                continue
            http = web.Server(
                Wire(name, self.service, self.faults).handle,
                access_log=None,
                logger=quiet_logger,
                max_line_size=LINE_LIMIT,
                max_field_size=LINE_LIMIT,
            )
            try:
                listener = await asyncio.get_running_loop().create_server(
                    http, self._host, self._ports[name], ssl=self._ssl, family=socket.AF_UNSPEC, reuse_address=True
                )
            except OSError as error:
                raise Misconfigured(
                    f"cannot listen on {self._host}:{self._ports[name]} ({os.strerror(error.errno or 0)})",
                    reason="Listen",
                    remedy="choose another port, or 0 for a free one",
                ) from None
            self._ports[name] = listener.sockets[0].getsockname()[1]
            self._listeners[name] = (listener, http)

    async def stop_listening(self, region: str | None = None) -> None:
        """Closes the listeners of one region, or of all, and their connections: KMS is down."""
        for name in self._of(region):
            if name in self._listeners:
                listener, http = self._listeners.pop(name)
                listener.close()
                # Established connections go at once, answered or not: that is what an outage looks like.
                for connection in http.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
                await http.shutdown(timeout=0.05)
                await listener.wait_closed()
                # The loop closes the sockets of aborted connections in its next round.
                await asyncio.sleep(0)

    # -- for clients

    def endpoint(self, region: str | None = None) -> str:
        """``host:port`` of a region's listener; known from the first start on, and kept when it is down."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"{host}:{self._ports[region or self.regions[0]]}"

    @property
    def ca_file(self) -> Path:
        """The authority that clients have to trust. Raises Misconfigured without TLS."""
        if self._tls_files is None:
            raise Misconfigured("the fake KMS has no certificate authority: it speaks plain HTTP, or has not started")
        return self._tls_files.ca_file

    @property
    def listening(self) -> tuple[str, ...]:
        """The regions that are up."""
        return tuple(self._listeners)

    # -- for tests and administrators

    @property
    def calls(self) -> CallCounter:
        """``calls["Decrypt"]``, ``calls["Decrypt", "Success"]``."""
        return self.audit.calls

    def create_key(self, alias: str | None = None, region: str | None = None, *, origin: str = "Aliyun_KMS") -> str:
        """A new key, with an alias if one is named; its ARN."""
        key = self.store.create(region or self.regions[0], "admin", origin=origin)
        if alias is not None:
            self.store.create_alias(key, alias if alias.startswith("alias/") else f"alias/{alias}")
        return key.arn

    def key(self, arn: str) -> Key:
        """A key by its ARN or the ARN of an alias. Raises Refusal when there is none."""
        region = arn.split(":")[2] if arn.startswith("acs:kms:") else self.regions[0]
        return self.store.resolve(region, arn, alias_allowed=True)

    def rotate(self, arn: str) -> str:
        """Makes a new primary version; its id."""
        return self.store.rotate(self.key(arn)).primary.version_id

    def enable(self, arn: str) -> None:
        """Puts the key into the state Enabled, from any other."""
        self.store.set_state(self.key(arn), KeyState.ENABLED)

    def disable(self, arn: str) -> None:
        """Puts the key into the state Disabled, from any other."""
        self.store.set_state(self.key(arn), KeyState.DISABLED)

    def schedule_deletion(self, arn: str, delete_at: float) -> None:
        """Puts the key into the state PendingDeletion until the given time, in seconds since 1970."""
        self.store.set_state(self.key(arn), KeyState.PENDING_DELETION, delete_at=delete_at)

    def move_alias(self, alias: str, arn: str) -> None:
        """Points an alias of the key's region to the key."""
        key = self.key(arn)
        self.store.move_alias(self.store.alias(key.region, alias), key)

    def add_identity(self, name: str, actions: Sequence[str] = ("*",), keys: Sequence[str] = ("*",)) -> Identity:
        """A new access key that is allowed the actions on the keys."""
        return self.identities.add(name, Policy(tuple(actions), tuple(keys)))

    def add_temporary_identity(self, name: str, lifetime: float, actions: Sequence[str] = ("*",)) -> Identity:
        """A new temporary access key with a security token, as STS issues them. ``lifetime`` in seconds."""
        return self.identities.add_temporary(name, Policy(tuple(actions)), lifetime)

    def set_policy(self, identity: Identity, actions: Sequence[str], keys: Sequence[str] = ("*",)) -> None:
        """Grants an access key other rights than before, at once."""
        self.identities.replace(replace(identity, policy=Policy(tuple(actions), tuple(keys))))

    def add_role(
        self, name: str, actions: Sequence[str] = ("*",), *, subjects: Sequence[str] = ("*",), provider: str = ""
    ) -> str:
        """A role that AssumeRoleWithOIDC gives out to the subjects; its ARN."""
        return self.tokens.add_role(Role(name, Policy(tuple(actions)), tuple(subjects), provider))

    def add_oidc_provider(self, name: str, *, issuer: str = "", keys: Mapping[str, PublicKey] | None = None) -> str:
        """An identity provider whose tokens are taken; its ARN. Without keys, signatures are not checked."""
        arn = self.tokens.provider_arn(name)
        self.tokens.add_provider(OidcProvider(arn, issuer=issuer, keys=keys))
        return arn

    # -- inside

    def _of(self, region: str | None) -> tuple[str, ...]:
        return self.regions if region is None else (region,)

    def _server_context(self) -> ssl.SSLContext:
        try:
            if self._tls_files is None:
                self._tls_files = ensure_certificates(self._certificate_folder(), self._names)
            return self._tls_files.server_context()
        except (OSError, ValueError):
            # ssl.SSLError is an OSError; what these say may quote the file.
            raise Misconfigured(
                "the certificates cannot be made or read",
                reason="Certificate",
                remedy="name a folder that is writable, or PEM files that belong together",
            ) from None

    def _certificate_folder(self) -> Path:
        if self._folder is not None:
            return self._folder
        self._temporary = tempfile.mkdtemp(prefix="kmseal-fakekms-")
        return Path(self._temporary)

    def _save(self) -> None:
        if self._state_file is not None:
            state.save(self._state_file, self.store, self.identities, self.tokens)


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
