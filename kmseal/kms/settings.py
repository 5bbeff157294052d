"""The settings of the KMS layer, and how they are read from the environment.

Read once at start by the command line and the operator and handed to ``Keyring``. Credentials are not settings: they
are found by ``kmseal.kms.alibaba.credentials``. A value that cannot be used is refused here, by the variable's name,
and never replaced by a default.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from kmseal.envelope import shorten
from kmseal.errors import Misconfigured

ANY_REGION: Final = "*"
_HOST: Final = re.compile(r"(http://)?(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?", re.ASCII)
_REGION: Final = re.compile(r"[a-z0-9-]{2,32}", re.ASCII)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Network(StrEnum):
    """Which of Alibaba Cloud's own endpoints of a region are used."""

    PUBLIC = "public"
    VPC = "vpc"


@dataclass(frozen=True, slots=True)
class KmsSettings:
    """How key services are reached. Each field names its variable, unit, default, and what goes wrong with it."""

    endpoints: Mapping[str, str] = field(default_factory=dict)
    """``KMSEAL_KMS_ENDPOINT``: ``host[:port]`` for every region, or ``region=host[:port],…``. Default: Alibaba Cloud's
    own endpoint of each region. For a dedicated KMS instance or a fake. ``http://`` is taken for this machine only:
    over the network it would show data keys. A wrong one makes every call Unavailable."""

    ca_file: Path | None = None
    """``KMSEAL_KMS_CA_FILE``: a PEM file with the only authorities that KMS endpoints are trusted by; default: the
    system's. An instance's private authority goes here. A missing or unreadable file is Misconfigured at first use."""

    sts_ca_file: Path | None = None
    """``KMSEAL_STS_CA_FILE``: the same for the STS endpoint; default: the system's authorities."""

    network: Network = Network.PUBLIC
    """``KMSEAL_KMS_NETWORK``: ``public`` or ``vpc``, for regions that have no endpoint set. With ``vpc`` outside a VPC
    the names do not resolve, and every call is Unavailable."""

    local_key_file: Path | None = None
    """``KMSEAL_LOCAL_KEY_FILE``: the key file behind ``local:`` keys; default none, then they are Misconfigured."""

    deadline_seconds: float = 5.0
    """``KMSEAL_KMS_DEADLINE_SECONDS``: total time of one operation with waiting and retries; default 5. Shorter than a
    request takes makes every call Unavailable; long ones keep workers waiting on a dead region until its breaker opens.
    """

    attempt_seconds: float = 2.0
    """``KMSEAL_KMS_ATTEMPT_SECONDS``: time of one request with connecting, default 2, so that a request that hangs
    leaves room for another one within the deadline. KMS answers in 10 to 100 ms, across continents in 500."""

    crypto_per_second: float = 200.0
    """``KMSEAL_KMS_CRYPTO_PER_SECOND``: cryptographic requests per second, account and region; default 200. KMS allows
    1,000 for everything that the account runs in a region: a fifth leaves the others theirs, and opens 10,000 objects
    in 50 seconds. What is not used is saved up for one second, so that after a pause as many requests may go out at
    once: at most twice the rate within any second. Below 1 the burst is one request. Too low delays objects
    (Throttled), too high takes the quota from other applications."""

    metadata_per_second: float = 10.0
    """``KMSEAL_KMS_METADATA_PER_SECOND``: DescribeKey and the like; default 10, again a fifth of the 50 of KMS, and
    again with a burst of one second's worth."""

    concurrency: int = 32
    """``KMSEAL_KMS_CONCURRENCY``: requests in flight per region, which is also the connection pool's size; default 32,
    enough for 200 per second at 160 ms each. Too low caps throughput below the rate, too high only opens sockets."""

    breaker_failures: int = 5
    """``KMSEAL_KMS_BREAKER_FAILURES``: failures in a row (Unavailable) after which an endpoint is not asked; default 5.
    """

    breaker_seconds: float = 10.0
    """``KMSEAL_KMS_BREAKER_SECONDS``: how long it is not asked, until one request may try; default 10. This is also
    how late its recovery may be noticed."""

    def __post_init__(self) -> None:
        for region, endpoint in self.endpoints.items():
            require_endpoint(endpoint, f"KMSEAL_KMS_ENDPOINT ({region})")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "KmsSettings":
        """Reads the variables named above; empty ones count as absent. Raises Misconfigured naming the variable."""
        read = _Variables(environment)
        standard = cls()
        return cls(
            endpoints=_parse_endpoints(environment.get("KMSEAL_KMS_ENDPOINT", "")),
            ca_file=read.path("KMSEAL_KMS_CA_FILE"),
            sts_ca_file=read.path("KMSEAL_STS_CA_FILE"),
            network=read.network("KMSEAL_KMS_NETWORK"),
            local_key_file=read.path("KMSEAL_LOCAL_KEY_FILE"),
            deadline_seconds=read.positive("KMSEAL_KMS_DEADLINE_SECONDS", standard.deadline_seconds),
            attempt_seconds=read.positive("KMSEAL_KMS_ATTEMPT_SECONDS", standard.attempt_seconds),
            crypto_per_second=read.positive("KMSEAL_KMS_CRYPTO_PER_SECOND", standard.crypto_per_second),
            metadata_per_second=read.positive("KMSEAL_KMS_METADATA_PER_SECOND", standard.metadata_per_second),
            concurrency=read.count("KMSEAL_KMS_CONCURRENCY", standard.concurrency),
            breaker_failures=read.count("KMSEAL_KMS_BREAKER_FAILURES", standard.breaker_failures),
            breaker_seconds=read.positive("KMSEAL_KMS_BREAKER_SECONDS", standard.breaker_seconds),
        )

    def endpoint(self, region: str) -> str:
        """The endpoint of a region: ``host[:port]``, perhaps with ``http://`` before it."""
        chosen = self.endpoints.get(region) or self.endpoints.get(ANY_REGION)
        if chosen:
            return chosen
        return f"kms{'-vpc' if self.network is Network.VPC else ''}.{region}.aliyuncs.com"


def require_endpoint(text: str, variable: str) -> str:
    """Refuses what is not ``host[:port]``; plain HTTP only to this machine.

    Raises Misconfigured naming ``variable``, which may be a field of a KMSKey as well.
    """
    match = _HOST.fullmatch(text)
    port = int(match[3][1:]) if match and match[3] else 443
    if match is None or not 1 <= port <= 65535:
        raise Misconfigured(
            f"{shorten(text)} is not host or host:port",
            field=variable,
            remedy="write it without https:// and without a path, as kms.example.com:8443",
        )
    if match[1] and match[2] not in _LOOPBACK:
        raise Misconfigured(
            "plain HTTP would show data keys to the network",
            field=variable,
            remedy="leave http:// out: TLS is used; http:// is possible for localhost only",
        )
    return text


def _parse_endpoints(text: str) -> dict[str, str]:
    endpoints: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        region, equals, endpoint = item.rpartition("=")
        region = region.strip() if equals else ANY_REGION
        if equals and not _REGION.fullmatch(region):
            raise Misconfigured(
                f"{shorten(region)} is not a region",
                field="KMSEAL_KMS_ENDPOINT",
                remedy="write region=host:port, separated by commas, or one host:port for every region",
            )
        if region in endpoints:
            raise Misconfigured(
                "names two endpoints for every region" if region == ANY_REGION else f"names region {region} twice",
                field="KMSEAL_KMS_ENDPOINT",
                remedy="give each region one endpoint, as region=host:port,region2=host:port",
            )
        endpoints[region] = require_endpoint(endpoint.strip(), "KMSEAL_KMS_ENDPOINT")
    return endpoints


@dataclass(frozen=True, slots=True)
class _Variables:
    """Reads typed values out of an environment."""

    environment: Mapping[str, str]

    def path(self, name: str) -> Path | None:
        text = self.environment.get(name, "")
        return Path(text) if text else None

    def network(self, name: str) -> Network:
        text = self.environment.get(name, "") or Network.PUBLIC.value
        try:
            return Network(text)
        except ValueError:
            raise Misconfigured(
                f"{shorten(text)} is not a network", field=name, remedy="set it to public or vpc"
            ) from None

    def positive(self, name: str, standard: float) -> float:
        text = self.environment.get(name, "")
        if not text:
            return standard
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise Misconfigured(
                f"{shorten(text)} is not a number above 0", field=name, remedy=f"set it as {standard:g}, or unset it"
            )
        return number

    def count(self, name: str, standard: int) -> int:
        text = self.environment.get(name, "")
        if not text:
            return standard
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
            raise Misconfigured(
                f"{shorten(text)} is not a whole number from 1 to 10000",
                field=name,
                remedy=f"set it as {standard}, or unset it",
            )
        return int(text)
