"""Finds etcd, kube-apiserver and kubectl, or compiles them once from ``dev/controlplane``.

``controlplane`` calls it. ``KUBEBUILDER_ASSETS`` wins where set, as with envtest. Otherwise the Go module is built
into ``${XDG_CACHE_HOME:-~/.cache}/kmseal/controlplane/<version>-<hash of all inputs>/``: a change of the inputs is
another folder, so what is there is never stale. The folder appears by a rename and under a lock, so that a build
that is cut off leaves nothing that looks finished, and two processes never compile the same at once.

It must not start what it finds, and must never be silent for long: a cold build takes minutes.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.progress import Ticker, run_shown
from kmseal_dev.toolchain import find_go, go_environment, parse_version

SOURCE = Path(__file__).resolve().parents[1] / "controlplane"
PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
BUILD_FLAGS = ("-trimpath", "-buildvcs=false")
# Without the stamps the server calls itself v0.0.0, and clients that compare versions complain.
STAMPED_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder that holds the three programs under their own names."""

    folder: Path

    @property
    def etcd(self) -> Path:
        return self.folder / "etcd"

    @property
    def apiserver(self) -> Path:
        return self.folder / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"


def find_binaries() -> Binaries:
    """Returns the programs, compiling them first where needed; raises ControlPlaneError."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return _from_assets(Path(assets))
    source = _read_source()
    cache = cache_folder()
    folder = cache / source.folder_name
    if not folder.exists():
        ticker = Ticker()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / "lock", ticker):
                # Another process may have finished the same build while this one waited for the lock.
                if not folder.exists():
                    _build(source, folder, ticker)
        except OSError as error:
            raise ControlPlaneError(
                f"cannot write the cache folder {cache}: {error}. Make room or set XDG_CACHE_HOME to another folder."
            ) from error
        finally:
            ticker.close()
    return Binaries(folder)


def cache_folder() -> Path:
    """Where builds and, if one had to be fetched, the Go toolchain are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kmseal" / "controlplane"


@dataclass(frozen=True, slots=True)
class _Source:
    """What a build depends on: the Kubernetes version and least Go version of go.mod, and a digest of everything."""

    kubernetes: str
    go: tuple[int, ...]
    digest: str

    @property
    def folder_name(self) -> str:
        return f"{self.kubernetes}-{self.digest}"

    @property
    def flags(self) -> list[str]:
        return _flags(self.kubernetes)


def _from_assets(folder: Path) -> Binaries:
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise ControlPlaneError(
            f"KUBEBUILDER_ASSETS is {folder}, but there is no executable {', '.join(missing)} in it. "
            "Unset it to compile them from dev/controlplane."
        )
    return Binaries(folder.resolve())


def _read_source() -> _Source:
    try:
        contents = [(SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    except OSError as error:
        raise ControlPlaneError(
            f"cannot read the sources of the control plane: {error}. kmseal_dev works from a checkout only: "
            "install the project with `pip install --editable .`"
        ) from error
    module = contents[1].decode()
    kubernetes = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", module, re.MULTILINE)
    directive = re.search(r"^go (\S+)$", module, re.MULTILINE)
    go = parse_version(directive[1]) if directive else None
    if kubernetes is None or go is None:
        raise ControlPlaneError(f"{SOURCE / 'go.mod'} names no version of k8s.io/kubernetes or of Go: restore the file")
    digest = hashlib.sha256()
    for part in [*contents, "\0".join(_flags(kubernetes[1])).encode()]:
        digest.update(hashlib.sha256(part).digest())
    return _Source(kubernetes[1], go, digest.hexdigest()[:12])


def _flags(kubernetes: str) -> list[str]:
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor}
    settings = [f"-X {package}.{name}={value}" for package in STAMPED_PACKAGES for name, value in stamps.items()]
    return [*BUILD_FLAGS, "-ldflags", " ".join(["-s", "-w", *settings])]


@contextmanager
def _locked(path: Path, ticker: Ticker) -> Iterator[None]:
    """Holds the lock of the cache; says so while another process holds it (the kernel releases it if that one dies)."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                ticker.show("another process is compiling the control plane, waiting for it")
                time.sleep(1.0)
        yield


def _build(source: _Source, folder: Path, ticker: Ticker) -> None:
    go = find_go(source.go, folder.parent, ticker)
    total = _count_packages(go, ticker)
    staging = folder.with_name(folder.name + ".partial")
    # Whatever an earlier build left that was killed: the lock says that it is not running any more.
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _compile(source, go, staging, total, ticker)
        for name in PROGRAMS:
            (staging / name).symlink_to("controlplane")
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    ticker.show(f"control plane {source.kubernetes} is in {folder}", final=True)


def _compile(source: _Source, go: Path, folder: Path, total: int, ticker: Ticker) -> None:
    """Leaves one file, ``controlplane``, in ``folder``."""
    scratch = folder / "tmp"
    scratch.mkdir()
    compiled = 0

    def describe(lines: list[str]) -> str:
        nonlocal compiled
        compiled += sum(1 for line in lines if not line.startswith("go: "))
        # The cache of Go may hold some packages already: the total is an upper bound, not a promise. The last
        # package is followed by the link, which takes ten seconds and prints nothing.
        return f"compiling Kubernetes {source.kubernetes}, {compiled} of at most {total} packages, minutes when cold"

    outcome = run_shown(
        [str(go), "build", "-v", *source.flags, "-o", str(folder / "controlplane"), "."],
        ticker=ticker,
        describe=describe,
        cwd=SOURCE,
        # Go leaves its temporary folder behind when it is interrupted: in here it goes with the rest.
        env={**go_environment(), "GOTMPDIR": str(scratch)},
    )
    if outcome.code != 0:
        raise _failed("compiling the control plane", outcome.code, outcome.last_lines)
    shutil.rmtree(scratch)


def _count_packages(go: Path, ticker: Ticker) -> int:
    """Counts the packages of the build; as a side effect, Go downloads the modules that are missing."""
    downloads = 0

    def describe(lines: list[str]) -> str:
        nonlocal downloads
        downloads += sum(1 for line in lines if line.startswith("go: downloading"))
        return f"downloading Go modules, {downloads} so far" if downloads else "listing Go packages"

    outcome = run_shown(
        [str(go), "list", "-deps", "."], ticker=ticker, describe=describe, cwd=SOURCE, env=go_environment()
    )
    if outcome.code != 0:
        raise _failed("reading or downloading the Go modules of dev/controlplane", outcome.code, outcome.last_lines)
    return len(outcome.output.splitlines())


def _failed(what: str, code: int, lines: list[str]) -> ControlPlaneError:
    tail = "\n".join(f"  {line}" for line in lines)
    return ControlPlaneError(
        f"{what} failed with exit code {code}:\n{tail}\n"
        "Check the network (GOPROXY), free disk space (5 GB) and memory (4 GB), then run it again: what has been "
        "compiled is kept. Or point KUBEBUILDER_ASSETS at a folder with etcd, kube-apiserver and kubectl."
    )
