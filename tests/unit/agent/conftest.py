"""Fixtures of the agent's tests: a CA, an HTTPS server that plays the broker, the agent's process, a fake time."""

import base64
import datetime
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kmseal_agent.config import Config, read_config
from kmseal_agent.schedule import Surroundings

SERVER_NAME = "kmseal-webhook.kmseal-system.svc"
TOKEN = "token-canary-9f2c"
Act = Callable[[ssl.SSLSocket], None]


class Authority:
    """A CA that signs certificates for the broker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
        self._certificate = self._sign(self._name, self._key, days=1, ca=True)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def serving(self, name: str = SERVER_NAME, *, days: int = 1) -> ssl.SSLContext:
        """A server's context with a new certificate for the name; it has expired where ``days`` is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([]), key, days=days, name=name)
        file = self._folder / f"{certificate.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int, name: str = "", ca: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            # Without these, a verifier that is given an old and a new CA of one name may try the wrong one only.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


class ActingBroker:
    """Answers each connection with the next of its acts; the last one stays."""

    def __init__(self, authority: Authority) -> None:
        self.context = authority.serving()
        self.acts: list[Act] = []
        self.tokens: list[str] = []
        self.bodies: list[Any] = []
        self.lines: list[str] = []
        self.versions: list[str | None] = []
        self.arrived: list[float] = []
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def play(self, *acts: Act) -> None:
        """What it does from now on."""
        self.acts = list(acts)

    def close(self) -> None:
        self._closing.set()
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    # What it can do.

    def grant(self, secrets: Mapping[str, Mapping[str, bytes]], lifetime: float = 600) -> Act:
        """The values."""
        return self.answer(
            200,
            {
                "expiresInSeconds": lifetime,
                "secrets": {
                    secret: {"values": {name: base64.b64encode(value).decode() for name, value in values.items()}}
                    for secret, values in secrets.items()
                },
            },
        )

    def refuse(self, status: int, reason: str, *, retry: bool = False, wipe: bool = False, after: str = "") -> Act:
        """One of the contract's errors."""
        headers = {"Retry-After": after} if after else {}
        return self.answer(
            status, {"reason": reason, "message": "the broker says no", "retry": retry, "wipe": wipe}, headers
        )

    def answer(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> Act:
        """Any status with any JSON, or with bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(_head(status, len(content), headers or {}) + content)

    def raw(self, message: bytes) -> Act:
        """These bytes, then the end."""

        def act(connection: ssl.SSLSocket) -> None:
            connection.sendall(message)

        return act

    def cut(self, message: bytes, missing: int) -> Act:
        """An answer whose end never comes."""
        return self.raw(_head(200, len(message) + missing, {}) + message)

    def reset(self, connection: ssl.SSLSocket) -> None:
        """The connection is reset after the request."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def silence(self, connection: ssl.SSLSocket) -> None:
        """Nothing comes, until the agent gives up or the test ends."""
        connection.settimeout(0.05)
        while not self._closing.is_set():
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    def drip(self, connection: ssl.SSLSocket) -> None:
        """One byte of an answer at a time."""
        connection.sendall(_head(200, 100_000, {}))
        while not self._closing.wait(0.02):
            connection.sendall(b" ")

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.arrived.append(time.monotonic())
            self._threads.append(threading.Thread(target=self._serve, args=(plain,)))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(10)
        # A client that refuses the certificate or goes away is the client's affair.
        with plain, suppress(OSError), self.context.wrap_socket(plain, server_side=True) as connection:
            with connection.makefile("rb") as file:
                self.lines.append(file.readline().decode().strip())
                headers = {}
                while line := file.readline().strip():
                    name, _, value = line.decode().partition(": ")
                    headers[name.lower()] = value
                if "content-length" not in headers:
                    return  # The agent's time was over in the middle of its request.
                self.bodies.append(json.loads(file.read(int(headers["content-length"]))))
            self.tokens.append(headers["authorization"])
            self.versions.append(connection.version())
            act = self.acts[0]
            if len(self.acts) > 1:
                self.acts.pop(0)
            act(connection)


def _head(status: int, length: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {length}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Pod:
    """The volumes of one pod, and its agent as a process."""

    def __init__(self, folder: Path, broker: ActingBroker, authority: Authority) -> None:
        self.root = folder / "kmseal"
        self.root.mkdir(mode=0o777)
        self.token = folder / "token"
        self.token.write_text(TOKEN)
        self.ca = folder / "ca.crt"
        self.ca.write_text(authority.pem)
        self.members: dict[str, Any] = {
            "broker": f"https://127.0.0.1:{broker.port}",
            "serverName": SERVER_NAME,
            "token": str(self.token),
            "ca": str(self.ca),
            "root": str(self.root),
            "deadlineSeconds": 10,
            "secrets": [{"name": "db", "files": True, "env": False, "mode": "0400"}],
        }
        self.output = ""
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []

    @property
    def config(self) -> Config:
        return read_config(json.dumps(self.members))

    def run(self, *arguments: str) -> int:
        """Runs the agent to its end; returns its exit code."""
        process = self.start(*arguments)
        code = process.wait(timeout=30)
        self.output += (self._folder / f"{process.pid}.log").read_text()
        return code

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        path = self._folder / "starting.log"
        with path.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "kmseal_agent", *arguments],
                env={"KMSEAL_CONFIG": json.dumps(self.members), "PATH": os.environ["PATH"]},
                stdout=file,
                stderr=file,
                text=True,
            )
        path.rename(self._folder / f"{process.pid}.log")
        self._running.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """All that a process has written so far."""
        return (self._folder / f"{process.pid}.log").read_text()

    def values(self, name: str = "db") -> dict[str, bytes]:
        """What a container sees: the visible names in the secret's folder."""
        folder = self.root / "files" / name
        return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("..")}

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()


class FakeTime:
    """Clock and sleep in one; the chance is what the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.chance = 0.5

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(lambda: self.now, self.sleep, lambda: self.chance)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA that the agent is given."""
    return Authority(tmp_path)


@pytest.fixture
def new_authority(tmp_path: Path) -> Authority:
    """Another CA of the same name, which the agent is not given."""
    return Authority(tmp_path)


@pytest.fixture
def acting(authority: Authority) -> Iterator[ActingBroker]:
    """The broker."""
    broker = ActingBroker(authority)
    yield broker
    broker.close()


@pytest.fixture
def pod(tmp_path: Path, acting: ActingBroker, authority: Authority) -> Iterator[Pod]:
    """The pod, configured for the broker."""
    made = Pod(tmp_path, acting, authority)
    yield made
    made.close()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that is taken, so that nobody else can listen there, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def fake_time() -> FakeTime:
    """A time that only moves when somebody sleeps."""
    return FakeTime()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Waits until something that another process does is so."""

    def wait(condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < ends, "it did not come about in 20 s"
            time.sleep(0.02)

    return wait
