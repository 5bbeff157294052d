"""``python -m kmseal_dev.controlplane``: builds the control plane, or runs one in the foreground until Ctrl-C.

Progress and errors go to standard error. Standard output carries what somebody may want to use: the folder of the
programs with ``--build-only``, otherwise the lines to paste into another shell. It must not leave anything running.
"""

import argparse
import signal
import sys
import time

from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kmseal_dev.controlplane",
        description="Run etcd and kube-apiserver on loopback until Ctrl-C. The first run compiles them (minutes).",
    )
    parser.add_argument("--build-only", action="store_true", help="compile if needed, print the folder, start nothing")
    arguments = parser.parse_args()
    # A service manager's or a CI system's way to end us cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.build_only:
            print(find_binaries().folder)
        else:
            _run()
    except ControlPlaneError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130 if arguments.build_only else 0)


def _run() -> None:
    binaries = find_binaries()
    started = time.monotonic()
    with ControlPlane(binaries=binaries) as control_plane:
        kubectl = control_plane.programs.kubectl
        print(f"# API server {control_plane.server}, ready after {time.monotonic() - started:.1f} s. In another shell:")
        print(f"export KUBECONFIG={control_plane.kubeconfig}")
        print(f"alias kubectl={kubectl}")
        print(f"# Logs and the audit log (audit.jsonl) are in {control_plane.folder}")
        print("# Ctrl-C ends it and removes that folder.", flush=True)
        while True:
            control_plane.check_alive()
            time.sleep(0.5)
