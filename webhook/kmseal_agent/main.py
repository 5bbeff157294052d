"""The command line of the agent: ``init``, ``refresh``, ``version``.

Called by ``__main__``. Exit codes: 0 done; 3 a secret or the pod is wrong; 4 denied; 5 the deadline passed; 6 the
configuration is wrong; 1 a bug; 143 and 130 ``init`` was stopped by a signal. ``refresh`` ends with 0 when it is
stopped, as the kubelet stops every sidecar at the end of a pod.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kmseal_agent import __version__
from kmseal_agent.broker import Broker
from kmseal_agent.config import read_config
from kmseal_agent.errors import AgentError, Misconfigured
from kmseal_agent.log import Log
from kmseal_agent.rounds import fetch, keep_fresh
from kmseal_agent.schedule import Surroundings

_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    log = Log()
    try:
        match arguments:
            case ["version"]:
                sys.stdout.write(f"kmseal-agent {__version__}\n")
            case ["init"]:
                # Never 0: an init container that ends with 0 lets the application start.
                _end_at_signals(lambda number: 128 + number)
                _init(os.environ, log)
            case ["refresh"]:
                _end_at_signals(lambda number: 0)
                _refresh(os.environ, log)
            case _:
                raise Misconfigured("BadCommand", "the one argument is init, refresh or version")
    except AgentError as error:
        log.failure("the agent ends", error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a bug; a traceback could quote a value, so where it is must do.
        log.failure("the agent ends by a bug", AgentError("Bug", f"{type(error).__name__} at {_place(error)}"))
        return AgentError.exit_code
    return 0


def _init(environment: Mapping[str, str], log: Log) -> None:
    config = read_config(environment.get("KMSEAL_CONFIG"))
    fetch(config, Broker(config, environment.get("KMSEAL_CA")), log, Surroundings())


def _refresh(environment: Mapping[str, str], log: Log) -> None:
    config = read_config(environment.get("KMSEAL_CONFIG"))
    if config.refresh is None:
        raise Misconfigured("BadConfiguration", "is missing", field="KMSEAL_CONFIG.refreshSeconds")
    log.info("keeping the secrets fresh", refresh_seconds=config.refresh)
    keep_fresh(config, config.refresh, Broker(config, environment.get("KMSEAL_CA")), log, Surroundings())


def _end_at_signals(code: Callable[[int], int]) -> None:
    """Ends the process at SIGTERM and SIGINT, whatever it is doing.

    A thread waits for them, because a handler would have to wait for the main thread, which may be inside a name
    look-up for longer than a pod has to end. The files need no care: they survive a crash at any step.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)

    def wait() -> None:
        os._exit(code(signal.sigwait(_STOPS)))

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"
