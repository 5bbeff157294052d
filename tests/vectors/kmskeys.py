"""KMSKeys that are accepted and refused, for the parser's tests and for those of the CRD: both must say the same.

The refused ones are one table, each row a good spec with one thing spoiled. They are no part of the format, and so no
files beside it.
"""

import copy
import re
import secrets
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

KEY = "acs:kms:cn-hangzhou:1234567890123456:key/key-hzz62f1cb66fa42qo1234"
OTHER = "acs:kms:cn-hangzhou:6543210987654321:key/key-hzz77aa9c3fe10dm9012"
ALIAS = "acs:kms:cn-hangzhou:1234567890123456:alias/prod/app"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
ROLE = {"arn": "acs:ram::1234567890123456:role/kmseal"}
SELECTOR = "allowedNamespaces/selector"
EXPRESSION = f"{SELECTOR}/matchExpressions/0"


def everything() -> Json:
    """A spec with every member that can stand beside the others."""
    return {
        "keyId": KEY,
        "replaces": [OTHER, "local:dev"],
        "endpoint": "kst-hzz62.cryptoservice.kms.aliyuncs.com:8443",
        "caBundle": CERTIFICATE,
        "credentials": {
            "role": {
                **ROLE,
                "oidcProviderArn": "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1",
                "sessionName": "kmseal@prod",
            }
        },
        "allowedNamespaces": {
            "names": ["prod", "prod-eu"],
            "selector": {
                "matchLabels": {"team": "shop", "example.com/tier": ""},
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "default"]},
                    {"key": "example.com/retired", "operator": "DoesNotExist"},
                    {"key": "env", "operator": "Exists", "values": []},
                ],
            },
        },
        "rewrap": "Manual",
        "onUnavailable": "Remove",
        "pollInterval": "5m",
    }


ACCEPTED: dict[str, Json] = {
    "everything": everything(),
    "key alone": {"keyId": KEY},
    "alias": {"keyId": ALIAS},
    "longest alias": {"keyId": f"acs:kms:{'r' * 32}:{'1' * 32}:alias/{'a' * 249}"},
    "local key": {"keyId": "local:dev", "replaces": ["local:old"]},
    "access key in a Secret": {"keyId": KEY, "credentials": {"secretName": "kms-prod.access"}},
    "role alone": {"keyId": KEY, "credentials": {"role": ROLE}},
    "no namespace": {"keyId": KEY, "allowedNamespaces": {"names": []}},
    "every namespace": {"keyId": KEY, "allowedNamespaces": {"selector": {}}},
    "most replaced keys": {"keyId": KEY, "replaces": [f"local:k{index}" for index in range(64)]},
    "most namespaces": {"keyId": KEY, "allowedNamespaces": {"names": [f"team-{index}" for index in range(1024)]}},
    "longest label name": {
        "keyId": KEY,
        "allowedNamespaces": {"selector": {"matchLabels": {f"{'d' * 253}/{'n' * 63}": "v" * 63}}},
    },
    "largest certificates": {"keyId": KEY, "caBundle": CERTIFICATE + "A" * (65_536 - len(CERTIFICATE))},
    **{f"interval {text}": {"keyId": KEY, "pollInterval": text} for text in ("1s", "86400s", "1440m", "24h")},
    **{
        f"endpoint {text}": {"keyId": KEY, "endpoint": text}
        for text in (
            "kms.example.com",
            "10.0.0.1:65535",
            "[fd00::1]:443",
            "http://127.0.0.1:8080",
            "http://localhost:1",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """A spec that is wrong in one place: ``path`` is set to ``value``, or removed where that is None."""

    path: str
    value: object
    reason: str
    """What the parser gives."""
    fragment: str
    """A part of the API server's answer."""
    field: str = ""
    """What the parser names where that is not the spoiled member itself."""

    def __str__(self) -> str:
        return f"{self.path.replace('/', '.')}={str(self.value)[:40]}"

    @property
    def spoiled(self) -> str:
        """The path of the spoiled member, as errors show it."""
        return "spec." + re.sub(r"/(\d+)", r"[\1]", self.path).replace("/", ".")

    def manifest(self) -> Json:
        """The whole object."""
        spoiled = manifest(everything())
        put(spoiled["spec"], self.path, self.value)
        return spoiled


def manifest(spec: object) -> Json:
    """A KMSKey of a name that no other test has: KMSKeys live in no namespace."""
    name = f"test-{secrets.token_hex(5)}"
    return {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "KMSKey",
        "metadata": {"name": name},
        "spec": copy.deepcopy(spec),
    }


def put(root: Any, path: str, value: object) -> None:
    """Sets or removes a member; parts of the path that are numbers are places in a list."""
    *parents, last = path.split("/")
    for part in parents:
        root = root[int(part)] if isinstance(root, list) else root[part]
    if isinstance(root, list):
        root[int(last)] = value
    elif value is None:
        del root[last]
    else:
        root[last] = value


NOT_MATCHED = "should match"
CASES = [
    Case("keyId", None, "MissingField", "Required value"),
    Case("keyId", "", "KeyId", NOT_MATCHED),
    Case("keyId", "key-hzz62f1cb66fa42qo1234", "KeyId", NOT_MATCHED),
    Case("keyId", "alias/prod", "KeyId", NOT_MATCHED),
    Case("keyId", f"{KEY}\n", "KeyId", NOT_MATCHED),
    Case("keyId", ALIAS + "!", "KeyId", NOT_MATCHED),
    Case("keyId", "acs:kms:cn-hangzhou:1:alias/" + "a" * 250, "KeyId", NOT_MATCHED),
    Case("keyId", "acs:kms:CN-HANGZHOU:1:key/k", "KeyId", NOT_MATCHED),
    Case("keyId", "local:Dev", "KeyId", NOT_MATCHED),
    Case("keyId", 7, "WrongType", "must be of type string"),
    Case("keyid", KEY, "UnknownField", "unknown field"),
    Case("region", "cn-hangzhou", "UnknownField", "unknown field"),
    Case("replaces", OTHER, "WrongType", "must be of type array"),
    Case("replaces/0", ALIAS, "KeyId", NOT_MATCHED),
    Case("replaces/0", 7, "WrongType", "must be of type string"),
    Case("replaces", [OTHER, KEY], "Replaces", "names the key itself (Replaces): remove it", "spec.replaces[1]"),
    Case("replaces/1", OTHER, "Duplicate", "Duplicate value"),
    Case("replaces", [f"local:k{index}" for index in range(65)], "TooMany", "must have at most 64 items"),
    Case("endpoint", "", "Endpoint", "(Endpoint): write it without https://"),
    Case("endpoint", "https://kms.example.com", "Endpoint", "(Endpoint)"),
    Case("endpoint", "http://kms.example.com", "Endpoint", "(Endpoint)"),
    Case("endpoint", "kms.example.com/path", "Endpoint", "(Endpoint)"),
    Case("endpoint", "kms.example.com:0", "Endpoint", "(Endpoint)"),
    Case("endpoint", "kms.example.com:65536", "Endpoint", "(Endpoint)"),
    Case("endpoint", "kms.example.com:", "Endpoint", "(Endpoint)"),
    Case("endpoint", "user@kms.example.com", "Endpoint", "(Endpoint)"),
    Case("endpoint", "kms.example.com\n", "Endpoint", "(Endpoint)"),
    Case("endpoint", "h" * 254, "Endpoint", "(Endpoint)"),
    Case("caBundle", "", "CaBundle", "(CaBundle): paste the authority's certificate"),
    Case("caBundle", "MIIB", "CaBundle", "(CaBundle)"),
    Case("caBundle", CERTIFICATE + "-----BEGIN EC PRIVATE KEY-----\n", "CaBundle", "(CaBundle)"),
    Case("caBundle", CERTIFICATE + "A" * 65_536, "CaBundle", "may not be more than 65536"),
    Case("credentials", {}, "Credentials", "must have exactly one of secretName and role (Credentials)"),
    Case("credentials", {"secretName": "a", "role": ROLE}, "Credentials", "must have exactly one of"),
    Case("credentials", "a", "WrongType", "must be of type object"),
    Case("credentials", {"secretName": ""}, "ObjectName", NOT_MATCHED, "spec.credentials.secretName"),
    Case("credentials", {"secretName": "Access"}, "ObjectName", NOT_MATCHED, "spec.credentials.secretName"),
    Case("credentials", {"secretName": "a" * 254}, "ObjectName", "more than 253", "spec.credentials.secretName"),
    Case("credentials/secret", "a", "UnknownField", "unknown field"),
    Case("credentials/role/arn", None, "MissingField", "Required value"),
    Case("credentials/role/arn", "kmseal", "Credentials", NOT_MATCHED),
    Case("credentials/role/arn", "acs:ram::1:role/" + "r" * 65, "Credentials", NOT_MATCHED),
    Case("credentials/role/oidcProviderArn", "", "Credentials", NOT_MATCHED),
    Case("credentials/role/oidcProviderArn", ROLE["arn"], "Credentials", NOT_MATCHED),
    Case("credentials/role/sessionName", "", "Credentials", NOT_MATCHED),
    Case("credentials/role/sessionName", "a b", "Credentials", NOT_MATCHED),
    Case("credentials/role/sessionName", "s" * 65, "Credentials", "more than 64"),
    Case("credentials/role/externalId", "a", "UnknownField", "unknown field"),
    Case("allowedNamespaces", {}, "MissingField", "has neither names nor a selector", "spec.allowedNamespaces.names"),
    Case("allowedNamespaces", ["prod"], "WrongType", "must be of type object"),
    Case("allowedNamespaces/namespaces", ["prod"], "UnknownField", "unknown field"),
    Case("allowedNamespaces/names/0", "Prod", "ObjectName", NOT_MATCHED),
    Case("allowedNamespaces/names/0", "*", "ObjectName", NOT_MATCHED),
    Case("allowedNamespaces/names/0", "", "ObjectName", NOT_MATCHED),
    Case("allowedNamespaces/names/0", "a.b", "ObjectName", NOT_MATCHED),
    Case("allowedNamespaces/names/0", "n" * 64, "ObjectName", "more than 63"),
    Case("allowedNamespaces/names/0", 7, "WrongType", "must be of type string"),
    Case("allowedNamespaces/names/1", "prod", "Duplicate", "Duplicate value"),
    Case("allowedNamespaces/names", [f"team-{index}" for index in range(1025)], "TooMany", "at most 1024 items"),
    Case(f"{SELECTOR}/labels", {}, "UnknownField", "unknown field"),
    Case(f"{SELECTOR}/matchLabels/team", "two words", "LabelValue", NOT_MATCHED),
    Case(f"{SELECTOR}/matchLabels/team", "v" * 64, "LabelValue", "more than 63"),
    Case(f"{SELECTOR}/matchLabels/team", True, "WrongType", "must be of type string"),
    Case(
        f"{SELECTOR}/matchLabels", {"-a": ""}, "LabelName", "(LabelName): use <DNS name>/<name>",
        'spec.allowedNamespaces.selector.matchLabels["-a"]',
    ),
    Case(
        f"{SELECTOR}/matchLabels", {f"{'d' * 254}/a": ""}, "LabelName", "(LabelName): use <DNS name>/<name>",
        f'spec.allowedNamespaces.selector.matchLabels["{"d" * 253}…"]',
    ),
    Case(f"{SELECTOR}/matchLabels", {f"l{index}": "" for index in range(65)}, "TooMany", "must have at most 64 items"),
    Case(
        f"{SELECTOR}/matchExpressions", [{"key": f"l{index}", "operator": "Exists"} for index in range(65)],
        "TooMany", "must have at most 64 items",
    ),
    Case(f"{EXPRESSION}/key", None, "MissingField", "Required value"),
    Case(f"{EXPRESSION}/key", "", "LabelName", "(LabelName)"),
    Case(f"{EXPRESSION}/key", "a/b/c", "LabelName", "(LabelName)"),
    Case(f"{EXPRESSION}/key", "n" * 64, "LabelName", "(LabelName)"),
    Case(f"{EXPRESSION}/key", f"{'d' * 254}/a", "LabelName", "(LabelName)"),
    Case(f"{EXPRESSION}/operator", None, "MissingField", "Required value"),
    Case(f"{EXPRESSION}/operator", "in", "Operator", "supported values"),
    Case(f"{EXPRESSION}/operator", "Gt", "Operator", "supported values"),
    Case(f"{EXPRESSION}/values", None, "Operator", "(Operator): In and NotIn need values"),
    Case(f"{EXPRESSION}/values", [], "Operator", "(Operator): In and NotIn need values"),
    Case(f"{SELECTOR}/matchExpressions/1/values", ["a"], "Operator", "(Operator): In and NotIn need values"),
    Case(f"{EXPRESSION}/values/0", "two words", "LabelValue", NOT_MATCHED),
    Case(f"{EXPRESSION}/values/0", 7, "WrongType", "must be of type string"),
    Case(f"{EXPRESSION}/values", [f"v{index}" for index in range(257)], "TooMany", "must have at most 256 items"),
    Case(f"{EXPRESSION}/value", "a", "UnknownField", "unknown field"),
    Case("rewrap", "auto", "Rewrap", "supported values"),
    Case("rewrap", "Never", "Rewrap", "supported values"),
    Case("onUnavailable", "Delete", "OnUnavailable", "supported values"),
    Case("pollInterval", "", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "0s", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "01s", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "1h30m", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "60", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "1d", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "١s", "PollInterval", NOT_MATCHED),
    Case("pollInterval", "86401s", "PollInterval", "(PollInterval): write a whole number"),
    Case("pollInterval", "1441m", "PollInterval", "(PollInterval): write a whole number"),
    Case("pollInterval", "25h", "PollInterval", "(PollInterval): write a whole number"),
    Case("pollInterval", 60, "WrongType", "must be of type string"),
]  # fmt: skip
