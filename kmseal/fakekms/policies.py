"""Policies like those of RAM: statements that allow or deny actions on resources, with wildcards; a denial wins.

``identities`` carries one :class:`Policy` for each access key and ``sts`` one for each role; ``calls`` and ``service``
ask it for a :class:`Verdict`. Documents have the real form, ``{"Version": "1", "Statement": [...]}``. What is not
played here (conditions, principals, exceptions by Not…) is refused and never ignored: that would grant more than it
says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

_MEMBERS: Final = frozenset({"Sid", "Effect", "Action", "Resource"})
_REMEMBERED: Final = 10_000


class Effect(StrEnum):
    """What a statement does."""

    ALLOW = "Allow"
    DENY = "Deny"


class Verdict(StrEnum):
    """What a policy says of a call; the refusals in the words of ``NoPermissionType``."""

    ALLOWED = "Allowed"
    NOT_ALLOWED = "ImplicitDeny"
    DENIED = "ExplicitDeny"


@dataclass(frozen=True, slots=True)
class Statement:
    """Allows or denies actions (``kms:Decrypt``, ``kms:ReEncrypt*``, ``*``) on resources (patterns of ARNs)."""

    effect: Effect
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)

    def names_action(self, action: str) -> bool:
        """Whether a pattern matches the action, which comes without its prefix ``kms:``."""
        return any(
            pattern in {"*", action} or fnmatchcase(action, pattern)
            for pattern in (pattern.removeprefix("kms:") for pattern in self.actions)
        )

    def names(self, action: str, arn: str) -> bool:
        """Whether the statement is about this action on this resource."""
        return self.names_action(action) and any(
            pattern in {"*", arn} or fnmatchcase(arn, pattern) for pattern in self.resources
        )


@dataclass(frozen=True)
class Policy:
    """Statements in any order. Verdicts are remembered, as the same few keys are asked for all the time."""

    statements: tuple[Statement, ...] = (Statement(Effect.ALLOW, ("*",)),)
    _verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def allow(cls, actions: Sequence[str] = ("*",), keys: Sequence[str] = ("*",)) -> "Policy":
        """The simple form: actions that are allowed on keys, named by id, ARN or pattern of ARNs.

        ``ReEncrypt`` means here the two rights that the service asks for, ReEncryptFrom and ReEncryptTo.
        """
        if not actions or not keys:
            return cls(())
        rights: list[str] = []
        for action in actions:
            rights += ["ReEncryptFrom", "ReEncryptTo"] if action.removeprefix("kms:") == "ReEncrypt" else [action]
        resources = tuple(key if key == "*" or ":" in key else f"acs:kms:*:*:key/{key}" for key in keys)
        return cls((Statement(Effect.ALLOW, tuple(rights), resources),))

    def and_deny(self, actions: Sequence[str], keys: Sequence[str] = ("*",)) -> "Policy":
        """This policy with one more statement, which denies the actions on the keys."""
        denial = Policy.allow(actions, keys).statements[0]
        return Policy((*self.statements, Statement(Effect.DENY, denial.actions, denial.resources)))

    def verdict(self, action: str, arn: str) -> Verdict:
        """What it says of an action on the key with this ARN."""
        found = self._verdicts.get((action, arn))
        if found is None:
            found = _verdict({item.effect for item in self.statements if item.names(action, arn)})
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[action, arn] = found
        return found

    def verdict_anywhere(self, action: str) -> Verdict:
        """What it says of an action before its key is known: allowed when that is possible for some key."""
        found = self._verdicts.get((action, ""))
        if found is None:
            found = _verdict(
                {
                    item.effect
                    for item in self.statements
                    if item.names_action(action) and (item.effect is Effect.ALLOW or "*" in item.resources)
                }
            )
            self._verdicts[action, ""] = found
        return found

    def document(self) -> dict[str, object]:
        """The policy in the form of RAM."""
        return {
            "Version": "1",
            "Statement": [
                {"Effect": item.effect.value, "Action": list(item.actions), "Resource": list(item.resources)}
                for item in self.statements
            ],
        }


ANYTHING: Final = Policy()
"""The policy of an administrator: every action on every key."""


def parse_policy(document: object) -> Policy:
    """The policy of a document. Raises ValueError, naming the member, for what is wrong or not played here."""
    if not isinstance(document, Mapping) or not set(document) <= {"Version", "Statement"}:
        raise ValueError("a policy is an object of Version and Statement")
    if document.get("Version") != "1":
        raise ValueError('Version: not "1"')
    statements = document.get("Statement")
    if isinstance(statements, list) and all(isinstance(item, Mapping) for item in statements):
        return Policy(tuple(_statement(item) for item in statements))
    raise ValueError("Statement: not a list of statements")


def _statement(item: Mapping[str, object]) -> Statement:
    unknown = sorted(str(name) for name in set(item) - _MEMBERS)
    if unknown:
        raise ValueError(f"{unknown[0]}: not played here; known are {', '.join(sorted(_MEMBERS))}")
    effect = item.get("Effect")
    if effect not in list(Effect):
        raise ValueError("Effect: neither Allow nor Deny")
    return Statement(Effect(str(effect)), _texts(item, "Action"), _texts(item, "Resource"))


def _texts(item: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A member that is a text or a list of texts."""
    value = item.get(name)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(text, str) and text for text in found):
        raise ValueError(f"{name}: neither a text nor a list of texts")
    return tuple(found)


def _verdict(effects: set[Effect]) -> Verdict:
    if Effect.DENY in effects:
        return Verdict.DENIED
    return Verdict.ALLOWED if effects else Verdict.NOT_ALLOWED
