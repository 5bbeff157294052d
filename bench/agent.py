"""What the agent costs a pod: the time until its files are written, and its memory.

``python bench/agent.py`` starts it as a pod would, with an HTTPS broker in this process. "Start" is from the start of
the process to the arrival of its request, which is the agent's own share; Python itself and the least that a client of
the standard library must import are measured beside it. Resident memory is read when it has settled and at its peak.
"""

import base64
import datetime
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROUNDS = 20
NAME = "kmseal-webhook.kmseal-system.svc"
START_BAR = 0.150
MEMORY_BAR = 25.0


class Broker(NamedTuple):
    """A broker that grants, when it was last asked and how often."""

    server: ThreadingHTTPServer
    arrivals: list[float]
    content: dict[str, bytes]


def main() -> None:
    """Prints one line a figure."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        broker = _serve(folder)
        try:
            _times(folder, broker)
            _memory(folder, broker)
        finally:
            broker.server.shutdown()
            broker.server.server_close()


def _times(folder: Path, broker: Broker) -> None:
    broker.content["password"] = b"x" * 32
    for program in ("pass", "import ssl, http.client, json"):
        _print(f"python -c '{program}'", _run_often([sys.executable, "-c", program]))
    command = [sys.executable, "-X", "importtime", "-c", "import kmseal_agent.main"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    print(f"import of the agent, all in (importtime): {int(lines[-1].split('|')[1]) / 1000:.0f} ms")
    starts: list[float] = []

    def once() -> None:
        begun = time.monotonic()
        _init(folder, broker)
        starts.append(broker.arrivals[-1] - begun)

    _print("init, from its start to its end", _often(once))
    _print("start: until its request arrives", starts, bar=START_BAR)


def _memory(folder: Path, broker: Broker) -> None:
    for size in (32, 100_000, 1_000_000, 6_200_000):
        broker.content["password"] = os.urandom(size)
        process = subprocess.Popen(_command("refresh"), env=_environment(folder, broker), stderr=subprocess.DEVNULL)
        try:
            before = len(broker.arrivals)
            while len(broker.arrivals) < before + 4:
                time.sleep(0.05)
            time.sleep(0.3)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            process.wait()
        settled, peak = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        bar = f" (bar {MEMORY_BAR:.0f} MiB)" if size == 32 else ""
        print(f"refresh, values of {size} bytes: {settled:.1f} MiB resident{bar}, {peak:.1f} MiB at the peak")


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "kmseal_agent", name]


def _environment(folder: Path, broker: Broker) -> dict[str, str]:
    return {
        "KMSEAL_CONFIG": json.dumps(
            {
                "broker": f"https://127.0.0.1:{broker.server.server_port}",
                "serverName": NAME,
                "token": str(folder / "token"),
                "ca": str(folder / "ca.crt"),
                "root": str(folder),
                "deadlineSeconds": 30,
                "refreshSeconds": 1,
                "secrets": [{"name": "db", "files": True, "env": False, "mode": "0400"}],
            }
        )
    }


def _init(folder: Path, broker: Broker) -> None:
    subprocess.run(_command("init"), env=_environment(folder, broker), check=True, stderr=subprocess.DEVNULL)


def _run_often(command: list[str]) -> list[float]:
    return _often(lambda: subprocess.run(command, check=True))


def _often(act: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(ROUNDS):
        begun = time.monotonic()
        act()
        taken.append(time.monotonic() - begun)
    return taken


def _print(what: str, seconds: list[float], bar: float | None = None) -> None:
    limit = f" (bar {bar * 1000:.0f} ms)" if bar else ""
    print(f"{what}: median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms{limit}")


def _serve(folder: Path) -> Broker:
    """A broker with a certificate of its own, which is the CA as well."""
    arrivals: list[float] = []
    content: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrivals.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            values = {name: base64.b64encode(value).decode() for name, value in content.items()}
            body = json.dumps({"expiresInSeconds": 600, "secrets": {"db": {"values": values}}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    (folder / "ca.crt").write_bytes(certificate)
    (folder / "token").write_text("x" * 1000)
    (folder / "serving.pem").write_bytes(
        certificate
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "serving.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Broker(server, arrivals, content)


if __name__ == "__main__":
    main()
