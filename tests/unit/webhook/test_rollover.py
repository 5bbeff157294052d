"""Own authorities and certificates through their lives, by a clock that the test holds."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from kmseal_webhook.authority import issue, make_authority
from kmseal_webhook.rollover import Chain, Step, Terms, carry_out, decide

NAMES = ("kmseal-webhook.kmseal-system.svc",)
START = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = Terms()
DAY = timedelta(days=1)


def fresh(now: datetime = START) -> Chain:
    return carry_out(Step.CREATE, None, None, NAMES, TERMS, now)


def step(chain: Chain | None, now: datetime, chance: float = 0.0, held: Chain | None = None) -> Step:
    return decide(chain, held, NAMES, TERMS, now, chance)


def is_good(leaf: bytes, bundle: bytes, now: datetime) -> bool:
    """Whether a client that trusts the bundle accepts the leaf at that time."""
    store = Store(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(NAMES[0]))
    try:
        verifier.verify(x509.load_pem_x509_certificate(leaf), [])
    except VerificationError:
        return False
    return True


def test_a_new_chain_is_good_and_stays() -> None:
    """What is created needs nothing for weeks, and clients accept it, also those whose clocks are behind."""
    chain = fresh()
    assert step(chain, START) is Step.KEEP
    assert step(chain, START + 39 * DAY) is Step.KEEP
    assert is_good(chain.leaf.certificate.pem, chain.bundle, START - timedelta(minutes=50))
    assert not chain.former


def test_nothing_or_an_expired_signer_is_created_anew() -> None:
    """A cluster that was off for years finds everything expired."""
    assert step(None, START) is Step.CREATE
    assert step(fresh(), START + 4 * 365 * DAY) is Step.CREATE


def test_a_leaf_is_renewed_after_two_thirds_and_replicas_differ() -> None:
    """The spread lets mostly one replica renew, long before the leaf expires."""
    chain = fresh()
    assert step(chain, START + 40 * DAY) is Step.ISSUE
    assert step(chain, START + 40 * DAY, chance=0.9) is Step.KEEP
    assert step(chain, START + 43 * DAY, chance=0.9) is Step.ISSUE
    renewed = carry_out(Step.ISSUE, chain, chain, NAMES, TERMS, START + 40 * DAY)
    assert step(renewed, START + 40 * DAY) is Step.KEEP
    assert renewed.bundle == chain.bundle


def test_a_leaf_that_is_not_right_is_issued_at_once() -> None:
    """Other names, a stranger's signature, or one that has expired: none of them is waited with."""
    chain, stranger = fresh(), make_authority(START, 90 * DAY)
    assert decide(chain, None, ("other.svc",), TERMS, START, 0.0) is Step.ISSUE
    signed = issue(stranger, NAMES, START, 60 * DAY)
    assert step(Chain(signed, chain.signer, chain.successor), START) is Step.ISSUE
    assert step(chain, START + 61 * DAY) is Step.ISSUE


def test_every_leaf_is_trusted_by_every_bundle_of_its_time_and_of_the_period_before() -> None:
    """Twelve years, day by day: no leaf is ever served that a bundle of up to a year ago would not accept.

    That is what a pod lives by whose bundle is a variable. And former authorities do not pile up.
    """
    chain: Chain | None = None
    bundles: list[tuple[datetime, bytes]] = []
    promoted, now = 0, START
    for _ in range(12 * 365):
        while (found := step(chain, now, held=chain)) is not Step.KEEP:
            chain = carry_out(found, chain, chain, NAMES, TERMS, now)
            promoted += found is Step.PROMOTE
        assert chain
        if not bundles or bundles[-1][1] != chain.bundle:
            bundles.append((now, chain.bundle))
        # Those in force at some time within the last year, the oldest of them as it was a year ago.
        recent = [bundle for at, bundle in bundles if at > now - 364 * DAY]
        recent += [bundle for at, bundle in bundles if at <= now - 364 * DAY][-1:]
        if now.day in (1, 15) or found is not Step.KEEP:
            assert all(is_good(chain.leaf.certificate.pem, bundle, now) for bundle in recent), now
        assert len(chain.former) <= 1
        now += DAY
    assert promoted in (10, 11)


def test_a_former_authority_is_trusted_while_its_leaf_may_be_served() -> None:
    """A replica that cannot reach the API server goes on with the old leaf until that expires, and is trusted."""
    chain, now = fresh(), START + 730 * DAY
    chain = carry_out(Step.ISSUE, chain, chain, NAMES, TERMS, now)
    promoted = carry_out(Step.PROMOTE, chain, chain, NAMES, TERMS, now)
    assert is_good(chain.leaf.certificate.pem, promoted.bundle, now)
    assert step(promoted, now + 39 * DAY) is Step.KEEP
    later = carry_out(Step.ISSUE, promoted, promoted, NAMES, TERMS, now + 40 * DAY)
    assert step(later, now + 59 * DAY) is Step.KEEP
    assert step(later, now + 60 * DAY) is Step.RETIRE
    retired = carry_out(Step.RETIRE, later, later, NAMES, TERMS, now + 60 * DAY)
    assert not is_good(chain.leaf.certificate.pem, retired.bundle, now + 59 * DAY)
    assert is_good(retired.leaf.certificate.pem, retired.bundle, now + 60 * DAY)


def test_after_its_secret_was_deleted_the_old_leaf_bridges_the_gap() -> None:
    """New authorities are published beside the old one, then sign; minutes later the old one is not trusted any more.

    Somebody who deletes the Secret because its key has leaked wants that, and no failed admission on the way.
    """
    old = fresh()
    now = START + 10 * DAY
    assert step(None, now) is Step.CREATE
    chain = carry_out(Step.CREATE, None, old, NAMES, TERMS, now)
    assert chain.leaf == old.leaf
    assert is_good(old.leaf.certificate.pem, chain.bundle, now)
    assert step(chain, now + TERMS.settle - timedelta(seconds=1)) is Step.KEEP
    now += TERMS.settle
    assert step(chain, now) is Step.ISSUE
    issued = carry_out(Step.ISSUE, chain, chain, NAMES, TERMS, now)
    assert is_good(issued.leaf.certificate.pem, chain.bundle, now)
    assert step(issued, now + TERMS.overlap - timedelta(seconds=1)) is Step.KEEP
    now += TERMS.overlap
    assert step(issued, now) is Step.RETIRE
    retired = carry_out(Step.RETIRE, issued, issued, NAMES, TERMS, now)
    assert not is_good(old.leaf.certificate.pem, retired.bundle, now)


def test_a_held_leaf_that_is_of_no_use_bridges_nothing() -> None:
    """An expired one, or one for other names, is not served again."""
    old = fresh()
    chain = carry_out(Step.CREATE, None, old, NAMES, TERMS, START + 61 * DAY)
    assert chain.leaf != old.leaf
    assert carry_out(Step.CREATE, None, old, ("other.svc",), TERMS, START).leaf != old.leaf


def test_another_chain_in_the_secret_is_joined_to_what_is_served() -> None:
    """As after a restore from a backup: both are trusted until the new leaf is served by all, then only the new one."""
    old, other = fresh(), fresh(START - 5 * DAY)
    now = START + DAY
    assert step(other, now, held=old) is Step.JOIN
    chain = carry_out(Step.JOIN, other, old, NAMES, TERMS, now)
    assert chain.leaf == old.leaf
    assert is_good(old.leaf.certificate.pem, chain.bundle, now)
    assert step(chain, now, held=chain) is step(chain, now, held=old) is Step.KEEP
    now += TERMS.settle
    assert step(chain, now, held=chain) is Step.ISSUE
    issued = carry_out(Step.ISSUE, chain, chain, NAMES, TERMS, now)
    assert step(issued, now, held=chain) is Step.KEEP
    now += TERMS.overlap
    assert step(issued, now, held=issued) is Step.RETIRE
    assert carry_out(Step.RETIRE, issued, issued, NAMES, TERMS, now).bundle == other.bundle


def test_what_is_served_and_expired_joins_nothing() -> None:
    """Nor does one for other names: the chain of the Secret is taken as it is."""
    now = START + 61 * DAY
    renewed = carry_out(Step.ISSUE, fresh(), None, NAMES, TERMS, now)
    assert step(renewed, now, held=fresh()) is Step.KEEP


def test_a_signer_is_not_succeeded_by_one_that_nobody_knows_yet() -> None:
    """Whatever the clock says: an authority does not sign in the minutes after it was made."""
    late = make_authority(START - 800 * DAY, TERMS.authority)
    young = make_authority(START, TERMS.authority)
    chain = Chain(issue(late, NAMES, START, TERMS.leaf), late, young)
    assert step(chain, START + timedelta(seconds=1)) is Step.KEEP
    assert step(chain, START + TERMS.settle) is Step.PROMOTE


def test_keys_are_in_no_readable_form() -> None:
    """A chain that gets into a log or an assertion shows no private key."""
    assert "PRIVATE KEY" not in repr(fresh())
