"""``python -m kmseal_dev.demo``: the main job end to end, on a real API server, as a person would do it by hand.

A developer, who may seal and not open, turns a .env file and a TLS pair into manifests, applies them, and changes one
value; the operator makes the Secrets, heals one that is deleted, and refuses a copy in another namespace. The KMS key
rotates: data keys are wrapped anew in the cluster, the files follow, and the old version is safe to disable. The kill
switch takes the Secrets away and gives them back. At last a pod gets a secret that is in no Secret. Every command is
shown as it is run. It is a test as well: what is not as expected ends it with exit code 1 and the ends of the logs.

All values are made up, so they may be shown. It must leave nothing running, and no file, unless --keep is given.
"""

import argparse
import difflib
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from kmseal_dev.binaries import find_binaries
from kmseal_dev.certificates import Authority
from kmseal_dev.errors import ControlPlaneError
from kmseal_dev.kubelet import StartError
from kmseal_dev.playground import REPOSITORY, Playground

KEY: Final = "acs:kms:cn-hangzhou:1000000000000001:alias/app"
VALUES: Final = {
    "DATABASE_URL": "postgres://app@db.prod/shop",
    "DATABASE_PASSWORD": "made-up-Tr0mbone",
    "LOG_LEVEL": "info",
}
NEW_PASSWORD: Final = "changed-Xyl0phone"  # noqa: S105  # Made up, like the ones above.
KMS_KEY: Final = f"""apiVersion: kmseal.dev/v1alpha1
kind: KMSKey
metadata:
  name: app
spec:
  keyId: {KEY}
  allowedNamespaces:
    names: [prod]
  pollInterval: 1s
"""
API_KEY: Final = "made-up-Gl0ckenspiel"
PODS: Final = """apiVersion: v1
kind: ServiceAccount
metadata: {name: shop, namespace: prod}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: payments, namespace: prod}
rules:
- apiGroups: [kmseal.dev]
  resources: [encryptedsecrets]
  resourceNames: [payments]
  verbs: [decrypt]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: payments, namespace: prod}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: payments}
subjects: [{kind: ServiceAccount, name: shop, namespace: prod}]
---
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: prod, annotations: {kmseal.dev/inject: payments}}
spec:
  serviceAccountName: shop
  containers: [{name: app, image: "shop:1"}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: prod}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: prod, annotations: {kmseal.dev/inject: payments}}
spec:
  serviceAccountName: stranger
  containers: [{name: app, image: "shop:1"}]
"""
SHOW_VALUES: Final = (
    "kubectl get secret app -n prod -o go-template="
    """'{{range $name, $value := .data}}{{$name}}={{$value | base64decode}}{{"\\n"}}{{end}}'"""
)
READY_MESSAGE: Final = """{.status.conditions[?(@.type=="Ready")].message}"""
PRIMARY_VERSION: Final = """{.status.primaryVersion}{"\\n"}"""
CHANGED: Final = {**VALUES, "DATABASE_PASSWORD": NEW_PASSWORD}
# What must show up nowhere; the level is no secret, and a word that logs may hold.
SECRETS: Final = (VALUES["DATABASE_URL"], VALUES["DATABASE_PASSWORD"], NEW_PASSWORD, API_KEY)
DATA_KEYS: Final = 3
"""Of both objects at the time of the rotation: the one that was changed has two."""
# Ciphertext has long lines, and nobody reads it to the end.
WIDTH: Final = 118


class Unexpected(Exception):
    """A step did not do what it should; the message says which."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kmseal_dev.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    arguments = parser.parse_args()
    # A service manager's or a CI system's way to end us cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        binaries = find_binaries()
        started = time.monotonic()
        with Playground(binaries) as playground:
            try:
                Demo(playground).tell()
            except (Unexpected, ControlPlaneError, subprocess.TimeoutExpired) as error:
                sys.exit(f"\nNot as expected: {error}\n\n{playground.log_tails()}")
            print(f"\nAll as expected, in {time.monotonic() - started:.0f} s.", flush=True)
            if arguments.keep:
                _keep(playground)
    except ControlPlaneError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(0 if arguments.keep else 130)


class Demo:
    """The story; each step shows commands and checks what came of them."""

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._steps = 0
        self._former_version = ""

    def tell(self) -> None:
        self._install()
        self._seal_env_file()
        self._apply()
        self._seal_tls_pair()
        self._change_one_value()
        self._heal()
        self._refuse_copy()
        self._rotate()
        self._bring_git_up_to_date()
        self._use_the_kill_switch()
        self._inject()
        self._look_back()

    def _install(self) -> None:
        self._headline("A real API server, a KMS to play with, and the operator with the rights of its role")
        self._run("kubectl create namespace kmseal-system && kubectl create namespace prod && "
                  "kubectl create namespace staging")  # fmt: skip
        (self._playground.folder / "crds").symlink_to(REPOSITORY / "crds")
        (self._playground.folder / "operator").symlink_to(REPOSITORY / "operator")
        self._run("kubectl apply -f crds/ -f operator/rbac.yaml")
        self._run("kubectl wait --for=condition=Established -f crds/ --timeout=30s")
        self._run("kmseal dev key create --alias app")
        self._write("key.yaml", KMS_KEY)
        self._run("cat key.yaml && kubectl apply -f key.yaml")
        self._playground.start_operator()
        self._playground.environment["KMSEAL_KEY"] = KEY
        print("  kmseal-operator is ready.")

    def _seal_env_file(self) -> None:
        self._headline("A developer, who may call GenerateDataKey and nothing else, seals a .env file")
        lines = "".join(f"{name}={value}\n" for name, value in VALUES.items())
        self._write(".env", "# All made up.\n" + lines)
        print(f"  $ . ./kms.env.developer\n  $ export KMSEAL_KEY={KEY}")
        self._run("cat .env")
        self._run("kmseal create app -n prod --from-env-file .env -w app.yaml")
        manifest = self._run("cat app.yaml", cut=True)
        self._expect(not _found(SECRETS, manifest), "no value in the manifest")
        denied = self._run("kmseal decrypt app.yaml", code=4)
        self._expect(
            "Decrypt" in denied and not _found(SECRETS, denied), "opening is denied, and no value is in what that says"
        )

    def _apply(self) -> None:
        self._headline("The manifest becomes a Secret")
        self._run("kubectl apply -f app.yaml")
        self._wait_ready("app")
        self._expect(self._run(SHOW_VALUES) == _as_lines(VALUES), "the Secret holds the values of the .env file")

    def _seal_tls_pair(self) -> None:
        self._headline("A certificate and its key, with the type that ingress controllers expect")
        pair = Authority().serving("shop.example.com")
        self._write("site.crt", pair.public.decode())
        self._write("site.key", pair.private.decode())
        self._run("kmseal create site -n prod --tls-cert site.crt --tls-key site.key -w site.yaml")
        self._run("kubectl apply -f site.yaml")
        self._wait_ready("site")
        listed = self._run("kubectl get secrets -n prod")
        self._expect("kubernetes.io/tls" in listed, "a Secret of type kubernetes.io/tls")

    def _change_one_value(self) -> None:
        self._headline("One value changes, without the right to read the others: one value line and its data key")
        folder = self._playground.folder
        before = (folder / "app.yaml").read_text()
        self._write("new-password", NEW_PASSWORD)
        self._run("cp app.yaml committed.yaml && kmseal set app.yaml DATABASE_PASSWORD=@new-password")
        self._run("diff -u committed.yaml app.yaml | tail -n +3; rm committed.yaml", cut=True)
        removed, added = _changed_lines(before, (folder / "app.yaml").read_text())
        self._expect([line.split(":")[0].strip() for line in removed] == ["DATABASE_PASSWORD"], "one line replaced")
        self._expect(len([line for line in added if ": v1." in line]) == 1, "one value line added")
        decrypts = self._count("Decrypt")
        self._run("kubectl apply -f app.yaml")
        self._wait_ready("app")
        self._expect(
            self._run(SHOW_VALUES) == _as_lines(CHANGED), "the Secret holds the new password, the rest as before"
        )
        self._expect(self._count("Decrypt") - decrypts == 2, "one Decrypt for each of the two data keys")
        self._run("kubectl get encryptedsecrets -n prod")

    def _heal(self) -> None:
        self._headline("A Secret that somebody deletes is back at once")
        uid = "kubectl get secret app -n prod -o jsonpath='{.metadata.uid}{\"\\n\"}'"
        former = self._run(uid)
        self._run("kubectl delete secret app -n prod")
        self._run("kubectl wait --for=create secret/app -n prod --timeout=30s")
        self._expect(self._run(uid) != former, "it is a new Secret")
        self._expect(self._run(SHOW_VALUES) == _as_lines(CHANGED), "with the same values")

    def _refuse_copy(self) -> None:
        self._headline("A copy in another namespace does not open, and KMS is not even asked")
        calls = self._count("Decrypt")
        self._run("sed 's/namespace: prod/namespace: staging/' app.yaml | kubectl apply -f -")
        self._run("kubectl wait --for=condition=Ready=False encryptedsecret/app -n staging --timeout=30s")
        listed = self._run("kubectl get encryptedsecrets -A")
        self._expect("WrongPlace" in listed, "the reason WrongPlace")
        self._run(f"kubectl get encryptedsecret app -n staging -o jsonpath='{READY_MESSAGE}{{\"\\n\"}}'")
        self._run("kubectl get secret app -n staging", code=1)
        self._expect(self._count("Decrypt") == calls, "no Decrypt")
        self._run("kubectl delete encryptedsecret app -n staging")

    def _rotate(self) -> None:
        self._headline("The KMS key rotates: data keys are wrapped anew beside their objects, and stay inside KMS")
        self._former_version = self._run(f"kubectl get kmskey app -o jsonpath='{PRIMARY_VERSION}'").strip()
        self._run(f"kmseal dev key rotate {KEY}")
        self._run("kubectl wait --for=jsonpath='{.status.rewrap.done}'=2 kmskey/app --timeout=30s")
        self._run("kubectl wait --for=condition=UpToDate kmskey/app --timeout=30s")
        self._run("kubectl get kmskeys")
        self._expect(self._count("ReEncrypt") == DATA_KEYS, "one ReEncrypt for each data key, and no Decrypt")
        self._run("kmseal rewrap --check --from-cluster .", code=7)

    def _bring_git_up_to_date(self) -> None:
        self._headline("The files follow, with what the cluster has: no right in KMS is needed")
        before = (self._playground.folder / "app.yaml").read_text()
        self._run("cp app.yaml committed.yaml && kmseal rewrap --from-cluster app.yaml site.yaml")
        self._run("diff -u committed.yaml app.yaml | tail -n +3; rm committed.yaml", cut=True)
        removed, added = _changed_lines(before, (self._playground.folder / "app.yaml").read_text())
        changed = {line.split(":")[0].strip(" -") for line in removed + added}
        self._expect(changed <= {"keyVersionId", "wrapped"}, "nothing but wrapping lines has changed")
        self._run("kubectl apply -f app.yaml -f site.yaml")
        self._run("kubectl wait --for=jsonpath='{.status.stale.inGit}'=0 kmskey/app --timeout=30s")
        self._wait_ready("app")
        self._expect(self._run(SHOW_VALUES) == _as_lines(CHANGED), "the Secret holds what it held before")
        listed = self._run("kmseal keys --git app.yaml site.yaml").splitlines()
        safe = listed[1].split()[-1]
        self._expect(
            "SAFE TO DISABLE" in listed[0] and safe == self._former_version, "the old version is safe to disable"
        )

    def _use_the_kill_switch(self) -> None:
        self._headline("The kill switch: the key is disabled, and what it protects leaves the cluster until it is back")
        patch = """'{"spec": {"onUnavailable": "Remove"}}'"""
        self._run(f"kubectl patch kmskey app --type=merge -p {patch}")
        self._run(f"kmseal dev key disable {KEY}")
        self._run("kubectl wait --for=delete secret/app secret/site -n prod --timeout=30s")
        listed = self._run("kubectl get encryptedsecrets -n prod")
        self._expect(listed.count("KeyUnusable") == 2, "the objects say why they are not Ready")
        self._run(f"kmseal dev key enable {KEY}")
        self._wait_ready("app")
        self._wait_ready("site")
        self._expect(self._run(SHOW_VALUES) == _as_lines(CHANGED), "the Secret is back, with the same values")

    def _inject(self) -> None:
        self._headline(
            "A pod gets a secret that is in no Secret: files in its memory, by a right of its ServiceAccount"
        )
        (self._playground.folder / "webhook").symlink_to(REPOSITORY / "webhook")
        self._run("kubectl apply -f webhook/rbac.yaml")
        self._playground.start_webhook()
        print("  kmseal-webhook is ready.")
        self._write("api-key", API_KEY)
        self._run("kmseal create payments -n prod --delivery Inject --from-file api-key -w payments.yaml")
        self._run("kubectl apply -f payments.yaml")
        self._wait_ready("payments")
        self._run("kubectl get encryptedsecret payments -n prod")
        self._run("kubectl get secret payments -n prod", code=1)
        self._write("pods.yaml", PODS)
        self._run("cat pods.yaml && kubectl apply -f pods.yaml")
        added = self._run("kubectl get pod shop -n prod -o jsonpath='{.spec.initContainers[*].name}{\"\\n\"}'")
        self._expect(added.split() == ["kmseal-init"], "the webhook has added the agent")
        print("  There is no kubelet here: the demo starts what it would start, with what it would mount.")
        found = self._playground.look_into_pod("prod", "shop", "app", "/run/secrets/kmseal/payments")
        self._expect(found == {"api-key": API_KEY.encode()}, "the pod shop finds the file, in memory of its own")
        try:
            self._playground.look_into_pod("prod", "stranger", "app", "/run/secrets/kmseal/payments")
        except StartError as error:
            self._expect(error.code == 4, "the pod stranger, whose ServiceAccount has no right, does not start")
        else:
            raise Unexpected("the pod stranger has started")
        self._run("grep kmseal_webhook.audit webhook.log | cut -c -180")

    def _look_back(self) -> None:
        self._headline("What KMS was asked, by whom")
        counts = Counter((call["identity"], call["action"], call["result"]) for call in self._playground.kms_calls())
        for (identity, action, result), count in sorted(counts.items()):
            print(f"  {count:3}  {identity:10} {action:16} {result}")
        self._expect(counts["developer", "GenerateDataKey", "Success"] == 4, "one data key for each seal and change")
        self._expect(counts["developer", "Decrypt", "Success"] == 0, "the developer opened nothing")
        # One for each of the two new objects, two data keys each for the change and for the healing, and all three for
        # the files that followed the rotation and for the key that came back; then the operator looked whether what is
        # to be injected opens, and the webhook opened it for one pod.
        self._expect(counts["operator", "Decrypt", "Success"] == 14, "one Decrypt for each data key of a change")
        texts = [*self._playground.logs().values(), self._playground.audit_file.read_text()]
        self._expect(not any(_found(SECRETS, text) for text in texts), "no value in any log")

    def _count(self, action: str) -> int:
        return sum(call["action"] == action and call["result"] == "Success" for call in self._playground.kms_calls())

    def _wait_ready(self, name: str) -> None:
        self._run(f"kubectl wait --for=condition=Ready encryptedsecret/{name} -n prod --timeout=30s")

    def _headline(self, text: str) -> None:
        self._steps += 1
        print(f"\n{self._steps}. {text}", flush=True)

    def _run(self, line: str, *, code: int = 0, cut: bool = False) -> str:
        """Shows a command and what it prints, returns it; ``code`` is its expected end, ``cut`` shortens long lines."""
        print(f"  $ {line}", flush=True)
        done = self._playground.run(line)
        for text in done.stdout.splitlines():
            print(f"    {text[:WIDTH] + '…' if cut and len(text) > WIDTH else text}", flush=True)
        if done.returncode != code:
            raise Unexpected(f"exit code {done.returncode} of: {line}")
        return done.stdout

    def _write(self, name: str, text: str) -> None:
        path = self._playground.folder / name
        path.touch(mode=0o600)
        path.write_text(text)

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise Unexpected(what)
        print(f"    ✓ {what}", flush=True)


def _found(values: tuple[str, ...], text: str) -> list[str]:
    return [value for value in values if value in text]


def _as_lines(values: dict[str, str]) -> str:
    return "".join(f"{name}={values[name]}\n" for name in sorted(values))


def _changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that a diff removes and adds."""
    changes = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    removed = [line[2:] for line in changes if line.startswith("- ")]
    return removed, [line[2:] for line in changes if line.startswith("+ ")]


def _keep(playground: Playground) -> None:
    print("\nAll of it keeps running. In another shell:")
    print(f"  cd {playground.folder}\n  . ./kms.env.developer")
    print(f"  export PATH={playground.programs_path}:$PATH")
    for name in ("KUBECONFIG", "KMSEAL_DEV_ADMIN", "KMSEAL_KEY"):
        print(f"  export {name}={playground.environment[name]}")
    print("Then, for example:")
    print("  kmseal set app.yaml LOG_LEVEL && kubectl apply -f app.yaml && kubectl get encryptedsecrets -A")
    print("  kmseal dev key list; kmseal dev key disable <ARN>      # the kill switch")
    print("  kmseal dev key rotate <ARN>; kmseal rewrap --from-cluster app.yaml site.yaml")
    print("  kmseal keys --git app.yaml site.yaml                   # what is safe to disable")
    print("  (. ./kms.env.operator; kmseal decrypt app.yaml)       # as one who may open")
    print(
        f"Logs: operator.log, kms.log and {Path(playground.audit_file).name}. Ctrl-C ends it and removes the folder.",
        flush=True,
    )
    while True:
        playground.check_alive()
        time.sleep(0.5)


if __name__ == "__main__":
    main()
