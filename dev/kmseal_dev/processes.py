"""Server processes that cannot outlive their parent: start, look, end, and the end of their log.

``controlplane`` uses it for etcd and kube-apiserver. Every server joins the process group of a warden (see
``warden``), which ends the group when this process is gone, and which keeps Ctrl-C in a terminal from reaching the
servers before their parent decides what to do. It must only ever signal processes that it started itself.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kmseal_dev.errors import ControlPlaneError

WARDEN = Path(__file__).with_name("warden.py")


class Server:
    """One running server; its output goes to a log file that later starts of the same name append to."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None for as long as it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Ends it at once and waits for that; does nothing when it has ended already."""
        self._process.kill()
        self._process.wait()

    def log_tail(self, lines: int = 25) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (its log is empty)"


class ServerGroup:
    """The warden and the servers it watches; ``close`` ends them all."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is removed by the warden if this process disappears; otherwise that is left to the caller."""
        self._folder = folder
        self._servers: list[Server] = []
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WARDEN), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            process_group=0,
        )

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Server:
        """Starts it in the folder; ``environment`` is added to a bare one."""
        log = self._folder / f"{name}.log"
        # A bare environment: neither a proxy nor a GODEBUG or GOMAXPROCS of the user's shell reaches the servers.
        bare = {"PATH": os.defpath, "HOME": str(self._folder)}
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**bare, **(environment or {})},
                    process_group=self._warden.pid,
                )
            except OSError as error:
                raise ControlPlaneError(
                    f"cannot start {command[0]}: {error}. Remove the folder that holds it to have it built again."
                ) from error
        server = Server(name, process, log)
        self._servers.append(server)
        return server

    def close(self) -> None:
        for server in reversed(self._servers):
            server.kill()
        self._servers.clear()
        if self._warden.stdin:
            with suppress(BrokenPipeError):
                self._warden.stdin.close()
        self._warden.wait()
