"""Settings of the KMS layer from an environment."""

from pathlib import Path

import pytest

from kmseal.errors import Misconfigured
from kmseal.kms.settings import KmsSettings, Network


def test_an_empty_environment_gives_the_defaults_and_own_endpoints() -> None:
    """Empty variables count as absent."""
    settings = KmsSettings.from_environment({"KMSEAL_KMS_ENDPOINT": "", "KMSEAL_KMS_DEADLINE_SECONDS": ""})
    assert settings == KmsSettings()
    assert settings.endpoint("eu-central-1") == "kms.eu-central-1.aliyuncs.com"


def test_every_variable_is_read() -> None:
    """Each documented variable ends in its field."""
    settings = KmsSettings.from_environment(
        {
            "KMSEAL_KMS_ENDPOINT": "cn-hangzhou=a.example:8443, cn-beijing=b.example",
            "KMSEAL_KMS_CA_FILE": "/ca.pem",
            "KMSEAL_STS_CA_FILE": "/sts.pem",
            "KMSEAL_KMS_NETWORK": "vpc",
            "KMSEAL_LOCAL_KEY_FILE": "/keys.json",
            "KMSEAL_KMS_DEADLINE_SECONDS": "4.5",
            "KMSEAL_KMS_ATTEMPT_SECONDS": "1",
            "KMSEAL_KMS_CRYPTO_PER_SECOND": "300",
            "KMSEAL_KMS_METADATA_PER_SECOND": "7",
            "KMSEAL_KMS_CONCURRENCY": "8",
            "KMSEAL_KMS_BREAKER_FAILURES": "3",
            "KMSEAL_KMS_BREAKER_SECONDS": "2",
        }
    )
    assert settings == KmsSettings(
        endpoints={"cn-hangzhou": "a.example:8443", "cn-beijing": "b.example"},
        ca_file=Path("/ca.pem"),
        sts_ca_file=Path("/sts.pem"),
        network=Network.VPC,
        local_key_file=Path("/keys.json"),
        deadline_seconds=4.5,
        attempt_seconds=1.0,
        crypto_per_second=300.0,
        metadata_per_second=7.0,
        concurrency=8,
        breaker_failures=3,
        breaker_seconds=2.0,
    )
    assert settings.endpoint("cn-hangzhou") == "a.example:8443"
    assert settings.endpoint("cn-shanghai") == "kms-vpc.cn-shanghai.aliyuncs.com"


def test_one_endpoint_serves_every_region() -> None:
    """A value without a region is for all of them, beside one that names a region."""
    settings = KmsSettings.from_environment({"KMSEAL_KMS_ENDPOINT": "[::1]:8443,cn-beijing=b.example"})
    assert settings.endpoint("cn-hangzhou") == "[::1]:8443"
    assert settings.endpoint("cn-beijing") == "b.example"


@pytest.mark.parametrize("endpoint", ["http://localhost:8080", "http://127.0.0.1:80", "http://[::1]:80"])
def test_plain_http_is_for_this_machine(endpoint: str) -> None:
    """A fake on this machine may speak plain HTTP."""
    assert KmsSettings.from_environment({"KMSEAL_KMS_ENDPOINT": endpoint}).endpoint("x1") == endpoint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KMSEAL_KMS_ENDPOINT", "http://kms.example.com"),
        ("KMSEAL_KMS_ENDPOINT", "https://kms.example.com"),
        ("KMSEAL_KMS_ENDPOINT", "kms.example.com/path"),
        ("KMSEAL_KMS_ENDPOINT", "user@kms.example.com"),
        ("KMSEAL_KMS_ENDPOINT", "kms.example.com:0"),
        ("KMSEAL_KMS_ENDPOINT", "kms.example.com:65536"),
        ("KMSEAL_KMS_ENDPOINT", "CN=kms.example.com"),
        ("KMSEAL_KMS_ENDPOINT", "cn-hangzhou=a.example,cn-hangzhou=b.example"),
        ("KMSEAL_KMS_ENDPOINT", "a.example,b.example"),
        ("KMSEAL_KMS_NETWORK", "intranet"),
        ("KMSEAL_KMS_DEADLINE_SECONDS", "0"),
        ("KMSEAL_KMS_DEADLINE_SECONDS", "5s"),
        ("KMSEAL_KMS_ATTEMPT_SECONDS", "-1"),
        ("KMSEAL_KMS_CRYPTO_PER_SECOND", "nan"),
        ("KMSEAL_KMS_METADATA_PER_SECOND", "inf"),
        ("KMSEAL_KMS_CONCURRENCY", "0"),
        ("KMSEAL_KMS_CONCURRENCY", "1.5"),
        ("KMSEAL_KMS_BREAKER_FAILURES", "many"),
        ("KMSEAL_KMS_BREAKER_SECONDS", "soon"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(variable: str, value: str) -> None:
    """Nothing falls back to a default."""
    with pytest.raises(Misconfigured) as caught:
        KmsSettings.from_environment({variable: value})
    assert caught.value.field.startswith(variable)
    assert caught.value.remedy
