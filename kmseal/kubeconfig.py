"""Where the API server is and how to log in there: the pod's own ServiceAccount, or a kubeconfig file.

Called once at start by whoever makes a ``kmseal.kube.KubeClient``: servers look for the pod's access first, the command
line for a kubeconfig. It reads files and nothing else; credential plugins
of kubeconfigs are not run, because a server process must not start programs that a file names.
"""

import base64
import binascii
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kmseal.errors import Malformed, Misconfigured
from kmseal.structure import Fields

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS: Final = 60.0  # The kubelet renews a projected token long before it expires; read it again this often.


@dataclass
class Token:
    """A bearer token that may be renewed in its file. The file is read again at most once a minute."""

    path: Path | None = None
    text: str = field(default="", repr=False)
    clock: Callable[[], float] = time.monotonic
    _read_at: float = field(default=float("-inf"), init=False)

    def get(self) -> str:
        """The token to send now; empty where a client certificate is used. Raises Misconfigured."""
        if self.path and self.clock() - self._read_at > _TOKEN_SECONDS:
            try:
                self.text = self.path.read_text(encoding="ascii").strip() or self.text
            except (OSError, UnicodeDecodeError):
                # A token that was read before is good for longer than a minute: the kubelet may be replacing the file.
                if not self.text:
                    raise Misconfigured(
                        f"the token file {self.path} cannot be read",
                        reason="NoToken",
                        remedy="mount a ServiceAccount token, or pass --kubeconfig",
                    ) from None
            self._read_at = self.clock()
        return self.text


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """An API server's address with what proves both sides' identity."""

    server: str
    tls: ssl.SSLContext | None
    token: Token
    namespace: str = "default"


def find_access(env: Mapping[str, str], kubeconfig: str | None = None) -> ClusterAccess:
    """For servers: the pod's own access where there is one, else ``KUBECONFIG``'s first file, or the home folder's.

    An explicit ``kubeconfig`` wins over all. Raises Misconfigured.
    """
    if kubeconfig is None and _is_in_cluster(env):
        return _in_cluster(env)
    return load_kubeconfig(Path(kubeconfig or env.get("KUBECONFIG", "").split(os.pathsep)[0] or _home_config()))


def find_access_as_kubectl(
    env: Mapping[str, str], kubeconfig: str | None = None, *, context: str | None = None
) -> ClusterAccess:
    """For people and their jobs: ``kubeconfig``, ``KUBECONFIG``'s files, the home folder's, or at last the pod's own.

    Whoever names a cluster in a pod of another one, as a job of CI does, means the one that is named. Of several files
    those that are missing are passed over, and the first one that has an item counts for it. Raises Misconfigured.
    """
    if kubeconfig is not None:
        return load_kubeconfig(Path(kubeconfig), context)
    named = [Path(path) for path in env.get("KUBECONFIG", "").split(os.pathsep) if path]
    found = [path for path in named if path.exists()]
    if found:
        return _load(found, context)
    if not named and context is None and not _home_config().exists() and _is_in_cluster(env):
        return _in_cluster(env)
    return load_kubeconfig(named[0] if named else _home_config(), context)


def load_kubeconfig(path: Path, context: str | None = None) -> ClusterAccess:
    """Reads a context of a kubeconfig, by default its current one. Raises Misconfigured naming file and field."""
    return _load([path], context)


def _load(paths: Sequence[Path], context: str | None) -> ClusterAccess:
    name = os.pathsep.join(map(str, paths))
    try:
        files = [(Fields(_read(path), ""), path.parent) for path in paths]
        return _parse_kubeconfig(files, context)
    except Malformed as error:
        raise Misconfigured(
            f"the kubeconfig {name} {error.message}",
            field=error.field,
            reason="BadKubeconfig",
            remedy="repair the file, or pass another with --kubeconfig",
        ) from None


def _read(path: Path) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(
            f"the kubeconfig {path} cannot be read ({error.strerror})",
            reason="NoKubeconfig",
            remedy="pass --kubeconfig, or set KUBECONFIG",
        ) from None
    except (YAMLError, UnicodeDecodeError):
        raise Misconfigured(
            f"the kubeconfig {path} is not YAML",
            reason="BadKubeconfig",
            remedy="repair the file, or pass another with --kubeconfig",
        ) from None


def _home_config() -> Path:
    return Path.home() / ".kube" / "config"


def _is_in_cluster(env: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in env and SERVICE_ACCOUNT_DIR.is_dir()


def _in_cluster(env: Mapping[str, str]) -> ClusterAccess:
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:
        host = f"[{host}]"
    namespace = SERVICE_ACCOUNT_DIR / "namespace"
    tls = _tls_context(ca_file=SERVICE_ACCOUNT_DIR / "ca.crt")
    return ClusterAccess(
        f"https://{host}:{port}",
        tls,
        Token(SERVICE_ACCOUNT_DIR / "token"),
        namespace.read_text(encoding="ascii").strip() if namespace.exists() else "default",
    )


def _parse_kubeconfig(files: Sequence[tuple[Fields, Path]], chosen: str | None) -> ClusterAccess:
    """Of several files, each with the folder that its paths are relative to, the first one with an item counts."""
    current = chosen or next((name for top, _ in files if (name := top.text("current-context", ""))), "")
    if not current:
        raise Malformed("has no current context", field="current-context")
    context, _ = _named_item(files, "contexts", current, "context")
    cluster, folder = _named_item(files, "clusters", context.text("cluster"), "cluster")
    user, user_folder = _named_item(files, "users", context.text("user"), "user")
    for plugin in ("exec", "auth-provider"):
        if user.has(plugin):
            raise Malformed("uses a credential plugin, which kmseal does not run", field=user.path(plugin))
    server = cluster.text("server")
    tls = None
    if server.startswith("https:"):
        if cluster.flag("insecure-skip-tls-verify"):
            raise Malformed(
                "switches verification off, which kmseal does not do", field=cluster.path("insecure-skip-tls-verify")
            )
        tls = _tls_context(
            ca_file=_path(cluster.text("certificate-authority", ""), folder),
            ca_data=_decoded(cluster, "certificate-authority-data"),
            cert_file=_path(user.text("client-certificate", ""), user_folder),
            cert_data=_decoded(user, "client-certificate-data"),
            key_file=_path(user.text("client-key", ""), user_folder),
            key_data=_decoded(user, "client-key-data"),
        )
    token_file = _path(user.text("tokenFile", ""), user_folder)
    return ClusterAccess(
        server.rstrip("/"), tls, Token(token_file, user.text("token", "")), context.text("namespace", "default")
    )


def _named_item(files: Sequence[tuple[Fields, Path]], list_name: str, name: str, member: str) -> tuple[Fields, Path]:
    for top, folder in files:
        for path, item in top.items(list_name):
            entry = Fields(item, path)
            if entry.text("name") == name:
                return entry.fields(member), folder
    raise Malformed(f'has no item named "{name}"', field=list_name)


def _path(text: str, folder: Path) -> Path | None:
    return folder / text if text else None


def _decoded(fields: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields.text(name, ""), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("is not base64", field=fields.path(name)) from None


def _tls_context(
    *,
    ca_file: Path | None = None,
    ca_data: bytes = b"",
    cert_file: Path | None = None,
    cert_data: bytes = b"",
    key_file: Path | None = None,
    key_data: bytes = b"",
) -> ssl.SSLContext:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_data:
            context.load_verify_locations(cadata=ca_data.decode("ascii"))
        elif ca_file:
            context.load_verify_locations(cafile=str(ca_file))
        else:
            context.load_default_certs()
        with tempfile.TemporaryDirectory() as folder:  # ssl reads client certificates from files only.
            if cert_data:
                cert_file = _private_file(Path(folder, "cert"), cert_data)
            if key_data:
                key_file = _private_file(Path(folder, "key"), key_data)
            if cert_file:
                context.load_cert_chain(str(cert_file), str(key_file) if key_file else None)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"the API server's or client's certificates cannot be loaded ({type(error).__name__})",
            reason="BadCertificates",
            remedy="check the certificate entries of the kubeconfig or ServiceAccount",
        ) from None
    return context


def _private_file(path: Path, content: bytes) -> Path:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path
