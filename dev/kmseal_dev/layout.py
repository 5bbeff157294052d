"""What one control plane consists of on disk and on its command lines: keys, tokens, kubeconfigs, flags.

``controlplane`` makes one per start. Every flag that is not a path says why it is there: this is the place to look
for how the API server of the tests differs from that of a cluster. It must not start anything.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmseal_dev import audit
from kmseal_dev.binaries import Binaries
from kmseal_dev.certificates import Authority, signing_keys

ADMIN = "kmseal-admin"
CONTEXT = "kmseal-dev"


@dataclass(frozen=True, slots=True)
class Layout:
    """One folder, open to its owner only, and the loopback ports that belong to it."""

    folder: Path
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.jsonl"

    def write(self, authority: Authority, admin_token: str) -> None:
        """Writes everything that the servers read when they start, and the kubeconfig of cluster-admin."""
        serving = authority.serving("127.0.0.1", "localhost", "kubernetes.default.svc")
        accounts = signing_keys()
        contents = {
            "ca.crt": authority.certificate,
            "serving.crt": serving.public,
            "serving.key": serving.private,
            "accounts.pub": accounts.public,
            "accounts.key": accounts.private,
            "tokens.csv": f'{admin_token},{ADMIN},{ADMIN},"system:masters"\n'.encode(),
            "audit-policy.json": json.dumps(audit.POLICY).encode(),
        }
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)
        self.write_kubeconfig(self.admin_kubeconfig, ADMIN, {"token": admin_token})

    def write_kubeconfig(self, path: Path, user: str, credentials: Mapping[str, str]) -> None:
        """Writes a kubeconfig that needs no other file; ``credentials`` are the fields of its user entry."""
        authority = b64encode(self.ca_file.read_bytes()).decode()
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": CONTEXT, "cluster": {"server": self.server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user, "namespace": "default"}}],
            "current-context": CONTEXT,
        }
        # JSON is YAML, and the standard library writes no other.
        path.write_text(json.dumps(config, indent=2) + "\n")

    def etcd_command(self, programs: Binaries) -> list[str | Path]:
        clients, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            programs.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            # The data need not survive the machine, and a disk that is busy must not slow the tests.
            "--unsafe-no-fsync",
            "--log-level=error",
        ]

    def apiserver_command(self, programs: Binaries, *, audited: bool) -> list[str | Path]:
        folder = self.folder
        auditing = audit.server_flags(folder / "audit-policy.json", self.audit_log) if audited else []
        return [
            programs.apiserver,
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            # With any other it refuses to advertise a loopback address.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={folder}",
            f"--tls-cert-file={folder / 'serving.crt'}",
            f"--tls-private-key-file={folder / 'serving.key'}",
            f"--client-ca-file={self.ca_file}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Nothing creates the default ServiceAccounts, which this plugin would wait for before it admits a pod.
            "--disable-admission-plugins=ServiceAccount",
            # As on every cluster that kubeadm made: what a pod may ask for is for Pod Security to say.
            "--allow-privileged=true",
            *auditing,
        ]
