"""The order of things: nothing is served that the cluster has not been told of, and faults change nothing."""

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kmseal.cluster.names import Backoff
from kmseal.errors import Malformed, Misconfigured, Unavailable
from kmseal_webhook.authority import issue, make_authority, read_pair
from kmseal_webhook.certificates import Certificates
from kmseal_webhook.material import Material
from kmseal_webhook.mounted import MountedSource
from kmseal_webhook.registration import Registration
from kmseal_webhook.rollover import Chain, Step, Terms, carry_out
from kmseal_webhook.tls import ServingTls
from kmseal_webhook.tlssecret import FORMER_UNTIL, read_chain, render_chain

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE = timedelta(seconds=100)
NAMES = ["kmseal-webhook.kmseal-system.svc"]
DAY = timedelta(days=1)


def material(lifetime: timedelta = DAY) -> Material:
    authority = make_authority(START, 3 * DAY)
    leaf = issue(authority, NAMES, START, lifetime)
    return Material(leaf.certificate.pem, leaf.key, authority.certificate.pem, leaf.certificate.expires_at)


class Cluster(Registration):
    """A cluster that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.fails = False
        self.serves_trust_bundle = True

    async def publish(self, bundle: bytes) -> bool:
        if self.fails:
            raise Unavailable("down")
        changed = bundle not in self.told[-1:]
        self.told.append(bundle)
        return changed


class Bench:
    """Certificates with a source and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = START
        self.cluster = Cluster()
        self.tls = ServingTls()
        self.material = material()
        self.is_away = False
        self.slept: list[float] = []
        self.certificates = Certificates(
            self, self.cluster, [self.tls], settle=SETTLE, pause=30.0, now=lambda: self.now,
            backoff=Backoff(1.0, 8.0, lambda: 1.0), sleep=self.sleep,
        )  # fmt: skip

    async def current(self) -> Material:
        if self.is_away:
            raise Unavailable("no source")
        return self.material

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 4:
            raise asyncio.CancelledError

    @property
    def served(self) -> bytes:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        one, other = client.wrap_bio(down, up), self.tls.listener.wrap_bio(up, down, server_side=True)
        for side in (one, other, one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return ssl.DER_cert_to_PEM_cert(one.getpeercert(True) or b"").encode()


async def test_the_first_certificate_is_published_and_served_at_once() -> None:
    """At the start there is nothing to go on with; what pods are to trust is known from then on."""
    bench = Bench()
    assert await bench.certificates.renew() == 30.0
    assert bench.served == bench.material.chain
    assert bench.certificates.ca_pem() == bench.material.bundle.decode()
    assert bench.certificates.loaded.is_set()
    assert bench.certificates.serves_trust_bundle


async def test_an_unknown_authority_is_served_only_when_it_has_settled() -> None:
    """API servers and kubelets hear of a new bundle with a delay; meanwhile the old certificate is served."""
    bench = Bench()
    await bench.certificates.renew()
    first, bench.material = bench.material, material()
    assert await bench.certificates.renew() == 30.0
    assert bench.cluster.told[-1] == bench.material.bundle
    assert bench.served == first.chain
    bench.now += timedelta(seconds=99)
    assert await bench.certificates.renew() == 1.0
    assert bench.served == first.chain
    bench.now += timedelta(seconds=1)
    await bench.certificates.renew()
    assert bench.served == bench.material.chain


async def test_a_bundle_that_another_replica_has_published_settles_as_well() -> None:
    """The one that comes second writes nothing, and still waits until API servers and kubelets have heard of it."""
    one, two = Bench(), Bench()
    two.cluster, two.material = one.cluster, one.material
    two.certificates = Certificates(
        two,
        one.cluster,
        [two.tls],
        settle=SETTLE,
        pause=30.0,
        now=lambda: two.now,
        backoff=Backoff(1.0, 8.0, lambda: 1.0),
    )
    for bench in (one, two):
        await bench.certificates.renew()
    first = one.material
    one.material = two.material = material()
    for bench in (one, two):
        await bench.certificates.renew()
        assert bench.served == first.chain
    for bench in (one, two):
        bench.now += SETTLE
        await bench.certificates.renew()
        assert bench.served == one.material.chain


async def test_an_expired_certificate_waits_for_nothing() -> None:
    """It would be refused anyway."""
    bench = Bench()
    await bench.certificates.renew()
    bench.now, bench.material = START + DAY, material(2 * DAY)
    await bench.certificates.renew()
    assert bench.served == bench.material.chain


async def test_nothing_new_is_served_while_the_cluster_cannot_be_told() -> None:
    """The order holds in a fault as well: publish, then serve."""
    bench = Bench()
    await bench.certificates.renew()
    first, bench.material, bench.cluster.fails = bench.material, material(), True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await bench.certificates.renew()
        bench.now += SETTLE
    assert bench.served == first.chain


async def test_faults_are_tried_again_with_growing_waits() -> None:
    """The loop never ends by an error of ours, and a success starts the waits anew."""
    bench = Bench()
    bench.is_away = True
    with pytest.raises(asyncio.CancelledError):
        await bench.certificates.run()
    assert bench.slept == [1.0, 2.0, 4.0, 8.0]


def test_the_secret_holds_the_whole_chain() -> None:
    """What is written is read back the same, former authorities and their time too."""
    old = carry_out(Step.CREATE, None, None, NAMES, Terms(), START)
    chain = carry_out(Step.PROMOTE, old, old, NAMES, Terms(), START)
    assert chain.former_until
    assert read_chain(raw(chain)) == chain


def raw(chain: Chain) -> dict[str, object]:
    until = chain.former_until.isoformat() if chain.former_until else ""
    data = {name: base64.b64encode(content).decode() for name, content in render_chain(chain).items()}
    return {"metadata": {"annotations": {FORMER_UNTIL: until}}, "data": data}


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "ca.key", "ca-next.key"])
@pytest.mark.parametrize("content", ["", "?", "bm90IFBFTQ==", None])
def test_a_secret_with_a_broken_part_is_of_no_use(name: str, content: str | None) -> None:
    """It says which part, and shows nothing of any."""
    broken = raw(carry_out(Step.CREATE, None, None, NAMES, Terms(), START))
    broken["data"][name] = content  # type: ignore[index]  # JSON.
    with pytest.raises(Malformed) as caught:
        read_chain(broken)
    assert caught.value.field.startswith("data[")


def test_an_authority_that_we_did_not_make_is_of_no_use() -> None:
    """A leaf, or a certificate of another kind of key, cannot sign: it is refused here, before anything is signed."""
    good = carry_out(Step.CREATE, None, None, NAMES, Terms(), START)
    leaf = good.leaf
    mixed = raw(good)
    content = {
        "ca.crt": leaf.certificate.pem + good.successor.certificate.pem,
        "ca.key": leaf.key.reveal(),
    }
    mixed["data"] |= {name: base64.b64encode(data).decode() for name, data in content.items()}  # type: ignore[operator]  # JSON.
    with pytest.raises(Malformed, match="no authority"):
        read_chain(mixed)


def test_a_key_of_another_certificate_is_of_no_use() -> None:
    """Every part of the Secret has to fit the others."""
    one, two = (carry_out(Step.CREATE, None, None, NAMES, Terms(), START) for _ in range(2))
    mixed = raw(one)
    mixed["data"] |= {"ca-next.key": raw(two)["data"]["ca-next.key"]}  # type: ignore[index,operator]  # JSON.
    with pytest.raises(Malformed, match="not its own"):
        read_chain(mixed)
    with pytest.raises(Malformed, match="not its own"):
        read_pair(one.leaf.certificate.pem, two.leaf.key.reveal(), "x")


async def test_mounted_files_are_read_anew_each_time(tmp_path: Path) -> None:
    """A change is taken up; remarks between authorities and repetitions are left out, as trust bundles demand."""
    source = MountedSource(tmp_path / "c", tmp_path / "k", tmp_path / "ca")
    with pytest.raises(Misconfigured) as caught:
        await source.current()
    assert caught.value.field == "--tls-cert"
    for given in (material(), material()):
        source.certificate.write_bytes(given.chain)
        source.key.write_bytes(given.key.reveal())
        source.authorities.write_bytes(b"# ours\n" + given.bundle + b"\n" + given.bundle)
        assert await source.current() == given
    source.key.write_bytes(material().key.reveal())
    with pytest.raises(Misconfigured, match="not its own"):
        await source.current()
