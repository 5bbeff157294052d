"""When authorities and serving certificates of our own are renewed, in which order, and what stays trusted meanwhile.

The whole state is one value, ``Chain``, kept in one Secret; ``decide`` is pure, and ``carry_out`` draws keys. The order
is what keeps every handshake good. An authority is the *successor* for the first third of its life, which is trusted
and signs nothing; then the *signer*; and in the last third a *former* one, for as long as what it signed may be in use.
So no renewal has to wait for clients, and a pod that was given the bundle as a variable survives the next one too
(docs/decisions, pods-trust-the-broker).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from kmseal_webhook.authority import Certificate, Pair, issue, make_authority


@dataclass(frozen=True, slots=True)
class Chain:
    """All that the replicas share."""

    leaf: Pair
    """What is served."""
    signer: Pair
    """Signs the next leaf."""
    successor: Pair
    """Published already; signs when the signer is due."""
    former: tuple[Certificate, ...] = ()
    """Signed earlier leaves, and is still trusted."""
    former_until: datetime | None = None
    """When nothing that a former one has signed is in use any more."""

    @property
    def bundle(self) -> bytes:
        """All that is to be trusted, PEM."""
        return b"".join(item.pem for item in (self.signer.certificate, self.successor.certificate, *self.former))


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things live and take."""

    authority: timedelta = timedelta(days=3 * 365)
    """The signer changes each third of this. A pod without ClusterTrustBundle knows the signer and its successor: it is
    answered for a third at the least, and for two thirds at the most, before it has to be made anew."""
    leaf: timedelta = timedelta(days=60)
    settle: timedelta = timedelta(minutes=3)
    """What API servers and kubelets take to have a new bundle everywhere: a kubelet looks about once a minute."""
    overlap: timedelta = timedelta(minutes=10)
    """How long former authorities stay trusted after a new leaf was issued, at the least: every replica takes it
    meanwhile. After a Secret was deleted it is all they get, for somebody who deleted it because its key had leaked."""
    renew_after: float = 2 / 3
    """The part of a life after which the renewal begins."""
    spread: float = 0.05
    """The part of a life by which replicas differ, so that mostly one of them renews and the others only read."""


class Step(Enum):
    """What a chain needs next; in the order in which they are looked for."""

    CREATE = "create"
    """There is none, or it cannot be used: new authorities and a new leaf."""
    JOIN = "join"
    """It is another one than what is being served, as from a backup: the authorities of both are to be trusted."""
    PROMOTE = "promote"
    """The signer is due: the successor signs from now on, and gets a successor."""
    ISSUE = "issue"
    """The leaf is due, or is not what it should be."""
    RETIRE = "retire"
    """The former authorities are not needed any more."""
    KEEP = "keep"
    """Nothing."""


def decide(
    chain: Chain | None, held: Chain | None, names: Sequence[str], terms: Terms, now: datetime, chance: float
) -> Step:
    """What to do with the chain.

    :param chain: None where there is none that can be read
    :param held: what this replica serves by the last look, which was a short while ago; None where there is nothing
    :param chance: in [0, 1), one for each replica and life
    """
    renew_after = terms.renew_after + terms.spread * chance
    if chain is None or now >= chain.signer.certificate.expires_at:
        return Step.CREATE
    if held and _is_good(held.leaf, names, now) and not _trusts(chain, held.leaf):
        return Step.JOIN
    signer, leaf = chain.signer.certificate, chain.leaf.certificate
    is_published = chain.successor.certificate.age(now) >= terms.settle
    if signer.is_due(now, renew_after) and is_published and now < chain.successor.certificate.expires_at:
        return Step.PROMOTE
    is_ours = leaf.is_signed_by(signer)
    usable = _trusts(chain, chain.leaf) and _is_good(chain.leaf, names, now)
    if not usable or (is_ours and leaf.is_due(now, renew_after)):
        return Step.ISSUE
    # After the chain was replaced, the leaf of before is served until the new authority is known everywhere.
    is_known = signer.age(now) >= terms.settle and (chain.former_until is None or now >= chain.former_until)
    if not is_ours and is_known:
        return Step.ISSUE
    is_taken = is_ours and leaf.age(now) >= terms.overlap
    if chain.former and is_taken and (chain.former_until is None or now >= chain.former_until):
        return Step.RETIRE
    return Step.KEEP


def carry_out(
    step: Step, chain: Chain | None, held: Chain | None, names: Sequence[str], terms: Terms, now: datetime
) -> Chain:
    """The chain after a step other than KEEP.

    :param held: what this replica serves, where the chain is gone or broken: it goes on being served and trusted until
        the new authority is known everywhere
    """
    if step is Step.CREATE or chain is None:
        chain = _create(names, terms, now)
        return _bridge(chain, held, terms, now) if held and _is_good(held.leaf, names, now) else chain
    if step is Step.JOIN and held:
        return _bridge(chain, held, terms, now)
    if step is Step.PROMOTE:
        signer = chain.successor
        former = (chain.signer.certificate, *chain.former)
        return Chain(
            leaf=issue(signer, names, now, terms.leaf),
            signer=signer,
            successor=make_authority(now, terms.authority),
            former=tuple(item for item in former if now < item.expires_at),
            # A leaf that was issued just now by the signer of before could be served for its whole life by a replica
            # that cannot reach the API server.
            former_until=now + terms.leaf,
        )
    if step is Step.ISSUE:
        return replace(chain, leaf=issue(chain.signer, names, now, terms.leaf))
    return replace(chain, former=(), former_until=None)


def _create(names: Sequence[str], terms: Terms, now: datetime) -> Chain:
    signer = make_authority(now, terms.authority)
    # This signer has not been a successor before, and signs for two thirds of its life. The successor is as old as it
    # is: with the same lifetime both would be due at once.
    successor = make_authority(now, terms.authority * 1.5)
    return Chain(issue(signer, names, now, terms.leaf), signer, successor)


def _bridge(chain: Chain, held: Chain, terms: Terms, now: datetime) -> Chain:
    """The chain, with what has been served until now still served, and trusted."""
    known = {item.pem for item in (chain.signer.certificate, chain.successor.certificate)}
    trusted = (held.signer.certificate, *held.former, *chain.former)
    return replace(
        chain,
        leaf=held.leaf,
        former=tuple(dict.fromkeys(item for item in trusted if now < item.expires_at and item.pem not in known)),
        former_until=now + terms.settle,
    )


def _trusts(chain: Chain, leaf: Pair) -> bool:
    return any(
        map(leaf.certificate.is_signed_by, (chain.signer.certificate, chain.successor.certificate, *chain.former))
    )


def _is_good(leaf: Pair, names: Sequence[str], now: datetime) -> bool:
    return leaf.certificate.covers(names) and now < leaf.certificate.expires_at
