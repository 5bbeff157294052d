"""Which credentials an environment holds, in which order, and how incomplete ones are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from kmseal.errors import Misconfigured
from kmseal.kms.alibaba.credentials import Credentials
from kmseal.kms.alibaba.detection import find_credentials
from kmseal.kms.alibaba.sts import OidcRole, sts_endpoint
from kmseal.redacted import Redacted

KEY = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIenv", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "canary-env"}
OIDC = {
    "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/r",
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/p",
    "ALIBABA_CLOUD_OIDC_TOKEN_FILE": "/token",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with both files."""
    (tmp_path / ".aliyun").mkdir()
    (tmp_path / ".alibabacloud").mkdir()
    profiles: list[dict[str, Any]] = [
        {"name": "main", "mode": "AK", "access_key_id": "LTAIcli", "access_key_secret": "canary-cli"},
        {
            "name": "token",
            "mode": "StsToken",
            "access_key_id": "STS.cli",
            "access_key_secret": "canary-cli",
            "sts_token": "canary-token",
        },
        {
            "name": "pod",
            "mode": "OIDC",
            "ram_role_arn": "acs:ram::1:role/r",
            "oidc_provider_arn": "acs:ram::1:oidc-provider/p",
            "oidc_token_file": "/token",
            "ram_session_name": "me",
        },
        {"name": "sso", "mode": "CloudSSO", "access_token": "canary-sso"},
        {"name": "half", "mode": "AK", "access_key_id": "LTAIcli"},
    ]
    (tmp_path / ".aliyun" / "config.json").write_text(json.dumps({"current": "main", "profiles": profiles}))
    (tmp_path / ".alibabacloud" / "credentials.ini").write_text(
        "[default]\ntype = access_key\naccess_key_id = LTAIini\naccess_key_secret = canary%ini # a comment\n"
        "[token]\ntype = sts\naccess_key_id = STS.ini\naccess_key_secret = s\nsecurity_token = t\n"
        "[pod]\ntype = oidc_role_arn\nrole_arn = r\noidc_provider_arn = p\noidc_token_file_path = /token\n"
        "[ecs]\ntype = ecs_ram_role\nrole_name = canary\n"
    )
    return tmp_path


def identity(environment: dict[str, str]) -> str:
    found = find_credentials(environment)
    return found.access_key_id if isinstance(found, Credentials) else "oidc"


def test_the_order_is_variables_then_rrsa_then_cli_profile_then_ini(home: Path) -> None:
    """Each is used as soon as those before it are taken away."""
    at_home = {"HOME": str(home)}
    assert identity(KEY | OIDC | at_home) == "LTAIenv"
    assert identity(OIDC | at_home) == "oidc"
    assert identity(at_home) == "LTAIcli"
    assert identity(at_home | {"ALIBABA_CLOUD_CLI_PROFILE_DISABLED": "true"}) == "LTAIini"
    assert identity({"ALIBABA_CLOUD_CREDENTIALS_FILE": str(home / ".alibabacloud" / "credentials.ini")}) == "LTAIini"


def test_a_token_makes_the_access_key_a_temporary_one() -> None:
    """So that the security token is signed and sent."""
    assert find_credentials(KEY | {"ALIBABA_CLOUD_SECURITY_TOKEN": "tok"}) == Credentials(
        "LTAIenv", Redacted(b"canary-env"), Redacted(b"tok"), provider="static_sts"
    )


def test_profiles_are_read_in_each_supported_mode(home: Path) -> None:
    """By name, from either file."""
    at_home = {"HOME": str(home)}
    ini = at_home | {"ALIBABA_CLOUD_CLI_PROFILE_DISABLED": "true"}
    assert find_credentials(at_home | {"ALIBABA_CLOUD_PROFILE": "token"}) == Credentials(
        "STS.cli", Redacted(b"canary-cli"), Redacted(b"canary-token"), provider="static_sts"
    )
    assert find_credentials(at_home | {"ALIBABA_CLOUD_PROFILE": "pod"}) == OidcRole(
        "acs:ram::1:role/r", "acs:ram::1:oidc-provider/p", Path("/token"), "me"
    )
    assert find_credentials(ini) == Credentials("LTAIini", Redacted(b"canary%ini"))
    assert find_credentials(ini | {"ALIBABA_CLOUD_PROFILE": "token"}) == Credentials(
        "STS.ini", Redacted(b"s"), Redacted(b"t"), provider="static_sts"
    )
    assert find_credentials(ini | {"ALIBABA_CLOUD_PROFILE": "pod"}) == OidcRole("r", "p", Path("/token"))


def test_the_session_of_the_role_is_named_by_its_variable() -> None:
    """It shows in the audit trail."""
    assert find_credentials(OIDC) == OidcRole("acs:ram::1:role/r", "acs:ram::1:oidc-provider/p", Path("/token"))
    named = find_credentials(OIDC | {"ALIBABA_CLOUD_ROLE_SESSION_NAME": "prod"})
    assert isinstance(named, OidcRole)
    assert named.session_name == "prod"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "there are no credentials"),
        ({"HOME": "/nonexistent"}, "there are no credentials"),
        ({"ALIBABA_CLOUD_ROLE_ARN": "r"}, "there are no credentials"),
        ({"ALIBABA_CLOUD_ECS_METADATA": "node-role"}, "role of the ECS instance is not used"),
        ({"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI"}, "ALIBABA_CLOUD_ACCESS_KEY_SECRET: is not set"),
        ({"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "canary"}, "ALIBABA_CLOUD_ACCESS_KEY_ID: is not set"),
        (OIDC | {"ALIBABA_CLOUD_ROLE_ARN": ""}, "ALIBABA_CLOUD_ROLE_ARN: is not set"),
        ({"ALIBABA_CLOUD_CREDENTIALS_FILE": "/nonexistent"}, "the profile file /nonexistent cannot be read"),
    ],
)
def test_missing_and_incomplete_credentials_are_misconfigured(environment: dict[str, str], words: str) -> None:
    """By the name of what is missing; half of a source is not skipped for the next one."""
    with pytest.raises(Misconfigured) as caught:
        find_credentials(environment)
    assert words in str(caught.value)
    assert caught.value.remedy
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("absent", 'has no profile "absent"'),
        ("sso", 'of mode "CloudSSO", which kmseal does not read'),
        ("half", "has no access_key_secret"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_by_name(home: Path, profile: str, words: str) -> None:
    """And not replaced by another identity."""
    with pytest.raises(Misconfigured) as caught:
        find_credentials({"HOME": str(home), "ALIBABA_CLOUD_PROFILE": profile})
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_ini_role_of_the_instance_is_refused(home: Path) -> None:
    """The node's identity is never used."""
    environment = {"HOME": str(home), "ALIBABA_CLOUD_CLI_PROFILE_DISABLED": "true", "ALIBABA_CLOUD_PROFILE": "ecs"}
    with pytest.raises(Misconfigured, match="ecs_ram_role"):
        find_credentials(environment)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"profiles": 5}', "[" * 100_000])
def test_a_malformed_cli_configuration_is_misconfigured(home: Path, content: str) -> None:
    """It names the file."""
    (home / ".aliyun" / "config.json").write_text(content)
    with pytest.raises(Misconfigured, match=r"config\.json is not a configuration of the aliyun CLI"):
        find_credentials({"HOME": str(home)})


def test_a_file_that_is_no_text_is_misconfigured_and_not_quoted(home: Path) -> None:
    """A decoding error would hold the whole file."""
    (home / "binary.ini").write_bytes(b"canary \xff")
    with pytest.raises(Misconfigured, match=r"binary\.ini cannot be read") as caught:
        find_credentials({"ALIBABA_CLOUD_CREDENTIALS_FILE": str(home / "binary.ini")})
    assert caught.value.__context__ is None


def test_a_malformed_ini_file_is_misconfigured_and_not_quoted(home: Path) -> None:
    """configparser's own error would show the line."""
    (home / "broken.ini").write_text("canary-9F = \n[default\n")
    with pytest.raises(Misconfigured, match=r"broken\.ini is not an ini file") as caught:
        find_credentials({"ALIBABA_CLOUD_CREDENTIALS_FILE": str(home / "broken.ini")})
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, "sts.aliyuncs.com"),
        ({"ALIBABA_CLOUD_STS_REGION": "eu-central-1"}, "sts.eu-central-1.aliyuncs.com"),
        (
            {"ALIBABA_CLOUD_STS_REGION": "eu-central-1", "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED": "true"},
            "sts-vpc.eu-central-1.aliyuncs.com",
        ),
        (
            {"ALIBABA_CLOUD_STS_REGION": "x1", "ALIBABA_CLOUD_STS_ENDPOINT": "https://sts.example:8443/"},
            "sts.example:8443",
        ),
    ],
)
def test_the_sts_endpoint_is_the_injected_one(environment: dict[str, str], endpoint: str) -> None:
    """An explicit endpoint, else the region's, in the VPC where that is switched on, else the global one."""
    assert sts_endpoint(environment) == endpoint


def test_a_bad_sts_endpoint_is_misconfigured() -> None:
    """Plain HTTP would give the token away."""
    with pytest.raises(Misconfigured, match="ALIBABA_CLOUD_STS_ENDPOINT"):
        sts_endpoint({"ALIBABA_CLOUD_STS_ENDPOINT": "http://sts.example"})
