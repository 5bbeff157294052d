"""The agent's errors, grouped by what happens next; the words are those of ``kmseal.errors``.

::

    AgentError
    ├── Retryable        asked again: the network, a 5xx, 429, an answer that cannot be read
    ├── Denied           somebody must grant a right; may order that the values are removed
    ├── Terminal         the secret or the pod is wrong and stays wrong until it is changed
    ├── DeadlinePassed   the retries are used up
    └── Misconfigured    KMSEAL_CONFIG or the command line is wrong

Each carries a reason, the field it is about and a remedy, and never a value, a token or a foreign exception's text:
errors are logged as they are.
"""

from typing import ClassVar


class AgentError(Exception):
    """The root of all errors that the agent raises on purpose.

    :param reason: one word in CamelCase; the broker's own where the broker answered
    :param message: what is wrong, without a full stop
    :param field: the member, secret or value it is about; empty when it is about none
    :param remedy: what to do about it; empty when there is nothing to add
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, reason: str, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class Retryable(AgentError):
    """Wait and ask again; ``retry_after`` is in seconds, None where the broker did not say."""

    exit_code = 5

    def __init__(self, reason: str, message: str, *, remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason, message, remedy=remedy)
        self.retry_after = retry_after


class Denied(AgentError):
    """The broker refuses this pod; ``wipe`` says that it must not keep what it has either."""

    exit_code = 4

    def __init__(self, reason: str, message: str, *, wipe: bool) -> None:
        super().__init__(reason, message)
        self.wipe = wipe


class Terminal(AgentError):
    """The input or the pod is wrong."""

    exit_code = 3


class DeadlinePassed(AgentError):
    """No answer until the deadline."""

    exit_code = 5


class Misconfigured(AgentError):
    """The agent's own configuration is wrong."""

    exit_code = 6
