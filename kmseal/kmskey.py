"""KMSKey as a frozen value, and its strict parser: what an administrator says about one key of this cluster.

Read by the operator (and the broker) for every unwrap: where the key is reached, who may use it, how its rotation is
followed, and what its loss means. ``crds/kmskeys.kmseal.dev.yaml`` refuses exactly the same, earlier; an integration
test holds both to it. It decides nothing about a key's state: that is asked of KMS. ``docs/reference-kmskey.md`` names
the reasons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kmseal.envelope import require_object_name
from kmseal.errors import Malformed
from kmseal.manifest import API_VERSION, require_key_id
from kmseal.selectors import AllowedNamespaces, require_unique, texts
from kmseal.structure import Fields, choice

KIND: Final = "KMSKey"
PLURAL: Final = "kmskeys"
AUTOMATIC_LABEL: Final = "kmseal.dev/registered"
AUTOMATIC: Final = "automatic"
"""What the label says of a KMSKey that the operator made for a key that it met."""
POLL_SECONDS: Final = 60.0
POLL_SECONDS_MAX: Final = 86_400
REPLACES_MAX: Final = 64
CA_CHARS_MAX: Final = 65_536

_ALIAS: Final = re.compile(r"acs:kms:[a-z0-9-]{2,32}:[0-9]{1,32}:alias/[A-Za-z0-9_/-]{1,249}", re.ASCII)
_ROLE: Final = re.compile(r"acs:ram::[0-9]{1,32}:role/[A-Za-z0-9._-]{1,64}", re.ASCII)
_OIDC_PROVIDER: Final = re.compile(r"acs:ram::[0-9]{1,32}:oidc-provider/[A-Za-z0-9._-]{1,128}", re.ASCII)
_SESSION: Final = re.compile(r"[A-Za-z0-9._@=-]{2,64}", re.ASCII)
# As KMSEAL_KMS_ENDPOINT: plain HTTP would show data keys to the network, so that it is for this machine only.
_ENDPOINT: Final = re.compile(
    r"(?:http://(?:localhost|127\.0\.0\.1|\[::1\])|\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    r"(?::([1-9][0-9]{0,4}))?",
    re.ASCII,
)
_PORT_MAX: Final = 65_535
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})(s|m|h)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600}


class Rewrap(StrEnum):
    """Whether wrappings under an older version are made new without being asked for."""

    AUTO = "Auto"
    MANUAL = "Manual"
    """Only those of objects that carry the annotation ``kmseal.dev/rewrap: "true"``."""


class OnUnavailable(StrEnum):
    """What becomes of targets when somebody disables the key or schedules its deletion."""

    RETAIN = "Retain"
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True)
class Role:
    """A RAM role that is assumed with the process's own OIDC token (RRSA)."""

    arn: str
    oidc_provider_arn: str = ""
    """The identity provider of the role's account; the process's own where empty."""
    session_name: str = ""


@dataclass(frozen=True, slots=True)
class KMSKey:
    """One parsed KMSKey."""

    name: str
    key_id: str
    """The ARN of a key or of an alias, or ``local:<name>``. The ARN says region and account."""
    replaces: tuple[str, ...] = ()
    """Keys whose wrappings are to be moved under this one: after a move between accounts, or of an alias."""
    endpoint: str = ""
    ca_bundle: str = ""
    """PEM text."""
    secret_name: str = ""
    """A Secret with an access key, in the operator's namespace."""
    role: Role | None = None
    allowed_namespaces: AllowedNamespaces | None = None
    """None allows every namespace."""
    rewrap: Rewrap = Rewrap.AUTO
    on_unavailable: OnUnavailable = OnUnavailable.RETAIN
    poll_seconds: float = POLL_SECONDS

    @classmethod
    def parse(cls, raw: object) -> "KMSKey":
        """Reads a manifest or an API object strictly. Raises Malformed with the path of the first wrong field."""
        with Fields(raw, "") as fields:
            fields.ignore("status")
            _require_kind(fields)
            metadata = fields.fields("metadata")
            name = metadata.text("name")
            try:
                require_object_name(name)
            except Malformed as error:
                raise _located(error, metadata.path("name")) from None
            with fields.fields("spec") as spec:
                key_id = spec.text("keyId")
                _require_key_or_alias(key_id, spec.path("keyId"))
                _require_no_service(spec, key_id)
                secret_name, role = _parse_credentials(spec)
                return cls(
                    name=name,
                    key_id=key_id,
                    replaces=_parse_replaces(spec, key_id),
                    endpoint=_parse_endpoint(spec),
                    ca_bundle=_parse_ca(spec),
                    secret_name=secret_name,
                    role=role,
                    allowed_namespaces=(
                        AllowedNamespaces.parse(spec.fields("allowedNamespaces"))
                        if spec.has("allowedNamespaces")
                        else None
                    ),
                    rewrap=choice(spec.text("rewrap", "Auto"), Rewrap, spec.path("rewrap"), "Rewrap"),
                    on_unavailable=choice(
                        spec.text("onUnavailable", "Retain"),
                        OnUnavailable,
                        spec.path("onUnavailable"),
                        "OnUnavailable",
                    ),
                    poll_seconds=_parse_interval(spec),
                )

    @property
    def is_alias(self) -> bool:
        """Whether it may name another key tomorrow."""
        return ":alias/" in self.key_id

    @property
    def is_bare(self) -> bool:
        """Whether it says nothing but which key it is about."""
        return self == KMSKey(self.name, self.key_id)

    def allows(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether objects of a namespace with these labels may be opened with this key."""
        return self.allowed_namespaces is None or self.allowed_namespaces.allows(namespace, labels)


def _require_kind(fields: Fields) -> None:
    for member, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if fields.text(member) != wanted:
            raise Malformed(
                f"is not {wanted}", field=member, reason="WrongKind", remedy="pass the manifest of a KMSKey"
            )


def _require_key_or_alias(text: str, path: str) -> None:
    if _ALIAS.fullmatch(text):
        return
    try:
        require_key_id(text, path)
    except Malformed as error:
        error.message = "is not the name of a key"
        error.remedy = "write acs:kms:<region>:<account>:key/<id> or …:alias/<name>, or local:<name>"
        raise


def _require_no_service(spec: Fields, key_id: str) -> None:
    """What says how a key service is reached would do nothing for a key file, in silence."""
    for name in ("endpoint", "caBundle", "credentials"):
        if key_id.startswith("local:") and spec.has(name):
            raise Malformed(
                "does not go with a local: key, which is read from the operator's key file",
                field=spec.path(name),
                reason="LocalKey",
                remedy="remove it",
            )


def _parse_replaces(spec: Fields, key_id: str) -> tuple[str, ...]:
    replaced, path = texts(spec, "replaces", REPLACES_MAX), spec.path("replaces")
    for index, text in enumerate(replaced):
        require_key_id(text, f"{path}[{index}]")
        if text == key_id:
            raise Malformed("names the key itself", field=f"{path}[{index}]", reason="Replaces", remedy="remove it")
    require_unique(replaced, path)
    return replaced


def _parse_endpoint(spec: Fields) -> str:
    if not spec.has("endpoint"):
        return ""
    text = spec.text("endpoint")
    match = _ENDPOINT.fullmatch(text)
    if not match or int(match[1] or 443) > _PORT_MAX:
        raise Malformed(
            "is not host or host:port",  # Not quoted: it may be a URL with a password.
            field=spec.path("endpoint"),
            reason="Endpoint",
            remedy="write it without https:// and without a path, as kms.example.com:8443",
        )
    return text


def _parse_ca(spec: Fields) -> str:
    if not spec.has("caBundle"):
        return ""
    text = spec.text("caBundle")
    if len(text) > CA_CHARS_MAX or "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY-----" in text:
        raise Malformed(
            "is not a certificate in PEM, or holds a private key, or is too long",
            field=spec.path("caBundle"),
            reason="CaBundle",
            remedy="paste the authority's certificate alone, from -----BEGIN CERTIFICATE----- on",
        )
    return text


def _parse_credentials(spec: Fields) -> tuple[str, Role | None]:
    if not spec.has("credentials"):
        return "", None
    with spec.fields("credentials") as fields:
        if fields.has("secretName") == fields.has("role"):
            raise Malformed(
                "must have exactly one of secretName and role",
                field=spec.path("credentials"),
                reason="Credentials",
                remedy="keep one; without credentials the operator's own are used",
            )
        if fields.has("secretName"):
            name = fields.text("secretName")
            try:
                return require_object_name(name), None
            except Malformed as error:
                raise _located(error, fields.path("secretName")) from None
        with fields.fields("role") as role:
            return "", Role(
                arn=_matching(role, "arn", _ROLE, "acs:ram::<account>:role/<name>"),
                oidc_provider_arn=(
                    _matching(role, "oidcProviderArn", _OIDC_PROVIDER, "acs:ram::<account>:oidc-provider/<name>")
                    if role.has("oidcProviderArn")
                    else ""
                ),
                session_name=(
                    _matching(role, "sessionName", _SESSION, "2 to 64 letters, digits and . _ @ = -")
                    if role.has("sessionName")
                    else ""
                ),
            )


def _matching(fields: Fields, name: str, form: re.Pattern[str], shape: str) -> str:
    text = fields.text(name)
    if not form.fullmatch(text):
        raise Malformed(
            "has not the form that it must have",  # Not quoted: it may be an access key in the wrong place.
            field=fields.path(name),
            reason="Credentials",
            remedy=f"write {shape}",
        )
    return text


def _parse_interval(spec: Fields) -> float:
    text = spec.text("pollInterval", f"{POLL_SECONDS:.0f}s")
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 1 <= seconds <= POLL_SECONDS_MAX:
        raise Malformed(
            "is not a duration from 1s to 24h",
            field=spec.path("pollInterval"),
            reason="PollInterval",
            remedy="write a whole number with s, m or h, as 30s or 5m",
        )
    return float(seconds)


def _located(error: Malformed, path: str) -> Malformed:
    error.field = path
    return error
