"""The two lives of the agent: one round until the pod may start, or a round at every interval while it runs.

Called by ``main``. A round asks for a grant, prepares all of it in memory, and only then touches the volume: a mistake
in one value leaves every file as it was. Faults never remove anything; only the broker's word does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from kmseal_agent import files
from kmseal_agent.answer import Grant
from kmseal_agent.config import Config
from kmseal_agent.content import prepare
from kmseal_agent.errors import AgentError, Denied, Retryable, Terminal
from kmseal_agent.log import Log
from kmseal_agent.reload import tell
from kmseal_agent.schedule import REFRESH_CAP_SECONDS, Surroundings, ask_until, next_refresh, pause

FIRST_LIFETIME: Final = 600.0
"""Seconds: what is left, at most, of the grant that the init container got; it is not told to the sidecar."""


class Asks(Protocol):
    """What gives grants: :class:`kmseal_agent.broker.Broker`."""

    def ask(self, secrets: Sequence[str], seconds: float) -> Grant:
        """A grant for all of the secrets, within ``seconds``."""


def fetch(config: Config, broker: Asks, log: Log, surroundings: Surroundings) -> None:
    """Writes the secrets once, asking until the deadline.

    Raises :class:`AgentError`, whose exit code says why the pod does not start.
    """
    names = [wanted.name for wanted in config.secrets]

    def failed(error: Retryable, wait: float) -> None:
        log.failure("the broker did not grant, asking again", error, retry_seconds=round(wait, 1))

    try:
        grant = ask_until(
            config.deadline, lambda left: broker.ask(names, left), surroundings=surroundings, failed=failed
        )  # fmt: skip
    except Denied as error:
        # What a run before this one left; no container of the application runs yet that could miss it.
        if error.wipe:
            _wipe(config, log)
        raise
    _write(config, grant.secrets, log)
    log.info("the secrets are written", secrets=names)


def keep_fresh(config: Config, refresh: float, broker: Asks, log: Log, surroundings: Surroundings) -> None:
    """Asks at every interval, for as long as the process lives.

    Ends by no error of its own: every one is logged and asked away. Only bugs and signals end it.
    """
    present = all(
        files.is_present(config.root, wanted.name, files=wanted.files, env=wanted.env) for wanted in config.secrets
    )
    # After a restart in the middle of a denial there is nothing to keep: ask at once.
    wait = next_refresh(refresh, FIRST_LIFETIME, chance=surroundings.chance) if present else 0.0
    failures = 0
    while True:
        surroundings.sleep(wait)
        try:
            lifetime = _refresh_once(config, broker, log)
        except AgentError as error:
            if isinstance(error, Denied) and error.wipe:
                _wipe(config, log)
            failures += 1
            retry_after = error.retry_after if isinstance(error, Retryable) else None
            cap = min(REFRESH_CAP_SECONDS, refresh)
            wait = pause(failures, cap=cap, chance=surroundings.chance, retry_after=retry_after)
            log.failure("the secrets are not refreshed, asking again", error, retry_seconds=round(wait, 1))
        else:
            failures = 0
            wait = next_refresh(refresh, lifetime, chance=surroundings.chance)


def _refresh_once(config: Config, broker: Asks, log: Log) -> float:
    """Returns the grant's lifetime in seconds."""
    grant = broker.ask([wanted.name for wanted in config.secrets], float("inf"))
    changed: list[str] = []
    try:
        _write(config, grant.secrets, log, changed.append)
    finally:
        # What was written before a failure is a change as well.
        if changed:
            log.info("secrets changed", secrets=changed)
            _reload(config, log)
    return grant.lifetime


def _write(
    config: Config,
    secrets: Mapping[str, Mapping[str, bytes]],
    log: Log,
    changed: Callable[[str], None] = lambda name: None,
) -> None:
    """Prepares all secrets, then writes each; the first failure is raised after all were tried."""
    prepared = [(wanted, prepare(wanted, secrets[wanted.name])) for wanted in config.secrets]
    failures: list[Terminal] = []
    for wanted, content in prepared:
        try:
            new = [
                content.files is not None and files.write_files(config.root, wanted.name, content.files, wanted.mode),
                content.env is not None and files.write_env(config.root, wanted.name, content.env, wanted.mode),
            ]
        except Terminal as error:
            log.failure("a secret is not written", error, secret=wanted.name)
            failures.append(error)
        else:
            if any(new):
                changed(wanted.name)
    if failures:
        raise failures[0]


def _wipe(config: Config, log: Log) -> None:
    """Removes the values of all secrets. The application is not told: a reload into empty files helps nobody."""
    removed: list[str] = []
    for wanted in config.secrets:
        try:
            if files.wipe(config.root, wanted.name):
                removed.append(wanted.name)
        except Terminal as error:
            log.failure("the values of a secret could not all be removed", error, secret=wanted.name)
    if removed:
        log.info("the right is gone: all values are removed", secrets=removed)


def _reload(config: Config, log: Log) -> None:
    if config.reload is None:
        return
    try:
        tell(config.reload)
    except AgentError as error:
        log.failure("the application was not told of the change", error)
    else:
        log.info("the application was told of the change")
