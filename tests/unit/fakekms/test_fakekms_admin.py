"""The switches over HTTP: what each does, what is refused, and that web pages cannot reach them."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from kmseal.fakekms import FakeKms, Policy
from kmseal.fakekms.admin import AdminApi


@pytest.fixture
async def kms() -> AsyncIterator[FakeKms]:
    async with FakeKms(("cn-hangzhou", "cn-beijing"), tls=False) as kms:
        yield kms


@pytest.fixture
async def http(kms: FakeKms) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(AdminApi(kms).application())) as client:
        yield client


async def ask(http: TestClient[Any, Any], method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with http.request(method, path, json=body) as response:
        return response.status, await response.json()


async def knock(kms: FakeKms) -> int:
    """The status of a request that is no good; every one of them counts."""
    async with aiohttp.ClientSession() as session, session.post(f"http://{kms.endpoint()}/") as response:
        return response.status


async def test_faults_are_switched_on_and_off(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """A fault posted hits the next calls, is listed with its number, and is removed by it."""
    fault = {"kind": "error", "status": 503, "times": 5, "actions": ["*"], "retry_after": 100}
    assert await ask(http, "POST", "/faults", fault) == (200, {"number": 1})
    assert await knock(kms) == 503
    status, listed = await ask(http, "GET", "/faults")
    assert (status, listed["1"]["times"], listed["1"]["kind"]) == (200, 4, "error")
    assert (await ask(http, "DELETE", "/faults/1"))[0] == 200
    assert (await ask(http, "DELETE", "/faults/1"))[0] == 404
    assert await knock(kms) == 400
    await ask(http, "POST", "/faults", {"kind": "html"})
    assert (await ask(http, "DELETE", "/faults"))[0] == 200
    assert kms.faults.active == {}


@pytest.mark.parametrize(
    ("fault", "member"),
    [
        ({}, "kind"),
        ({"kind": "fire"}, "kind"),
        ({"kind": ["error"]}, "kind"),
        ({"kind": "error", "colour": "red"}, "colour"),
        ({"kind": "error", "times": "3"}, "times"),
        ({"kind": "error", "times": True}, "times"),
        ({"kind": "latency", "seconds": "1"}, "seconds"),
        ({"kind": "error", "actions": "Decrypt"}, "actions"),
        ({"kind": "error", "code": 5}, "code"),
        ([], "body"),
    ],
)
async def test_faults_of_a_wrong_form(http: TestClient[Any, Any], fault: Any, member: str) -> None:
    """A fault that is none is refused, with the member named."""
    status, answer = await ask(http, "POST", "/faults", fault)
    assert status == 400
    assert member in answer["error"]


async def test_calls_and_audit_are_shown(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """Counters and the latest records are readable, and the counters start again on demand."""
    for _ in range(3):
        await knock(kms)
    counted = {"total": 3, "actions": {"(none)": {"IncompleteSignature": 3}}}
    assert await ask(http, "GET", "/calls") == (200, counted)
    status, records = await ask(http, "GET", "/audit?last=2")
    assert (status, [record["result"] for record in records]) == (200, ["IncompleteSignature"] * 2)
    assert (await ask(http, "GET", "/audit?last=0")) == (200, [])
    assert (await ask(http, "GET", "/audit?last=x"))[0] == 400
    await ask(http, "DELETE", "/calls")
    assert kms.calls.total == 0


async def test_keys_are_made_rotated_and_switched(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """Keys can be created, listed, rotated, disabled, enabled, and aliases moved between them."""
    _, created = await ask(http, "POST", "/keys", {"region": "cn-beijing", "alias": "alias/app"})
    arn = created["key"]
    assert arn.startswith("acs:kms:cn-beijing:")
    _, rotated = await ask(http, "POST", "/rotate", {"key": arn})
    await ask(http, "POST", "/disable", {"key": arn})
    assert (await ask(http, "GET", "/keys"))[1] == [
        {
            "key": arn,
            "state": "Disabled",
            "spec": "Aliyun_AES_256",
            "primaryVersion": rotated["keyVersionId"],
            "versions": 2,
            "nextRotation": None,
            "aliases": ["alias/app"],
        }
    ]
    await ask(http, "POST", "/enable", {"key": arn})
    assert kms.key(arn).state.value == "Enabled"
    other = kms.create_key(region="cn-beijing")
    await ask(http, "POST", "/alias", {"alias": "alias/app", "key": other})
    assert kms.key("acs:kms:cn-beijing:1000000000000001:alias/app").arn == other


async def test_rights_are_changed(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """An identity can be granted other rights, on some keys only."""
    operator = kms.add_identity("operator")
    body = {"identity": "operator", "actions": ["Decrypt"], "keys": ["one"]}
    assert (await ask(http, "POST", "/policy", body))[0] == 200
    now = kms.identities.find(operator.access_key_id)
    assert now is not None
    assert now.policy == Policy.allow(("Decrypt",), ("one",))
    assert (await ask(http, "POST", "/policy", {"identity": "nobody", "actions": []}))[0] == 400


async def test_quotas_are_set(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """Limits are replaced as a whole; unknown classes and limits of nothing are refused."""
    assert (await ask(http, "PUT", "/quotas", {"cryptographic": 5}))[0] == 200
    assert await ask(http, "GET", "/quotas") == (200, {"cryptographic": 5.0})
    for body in ({"colour": 1}, {"metadata": "many"}, {"metadata": 0}):
        assert (await ask(http, "PUT", "/quotas", body))[0] == 400
    assert (await ask(http, "PUT", "/quotas", {}))[0] == 200
    assert kms.quotas.limits == {}


async def test_listeners_are_stopped_and_started(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """One region or all go down and come back on the same ports."""
    endpoint = kms.endpoint()
    assert (await ask(http, "POST", "/stop", {"region": "cn-hangzhou"}))[1] == {"listening": ["cn-beijing"]}
    with pytest.raises(aiohttp.ClientConnectorError):
        await knock(kms)
    assert (await ask(http, "POST", "/stop", {}))[1] == {"listening": []}
    assert len((await ask(http, "POST", "/start", {}))[1]["listening"]) == 2
    assert kms.endpoint() == endpoint
    assert await knock(kms) == 400
    assert (await ask(http, "POST", "/stop", {"region": "mars"}))[0] == 400


async def test_what_is_not_there(http: TestClient[Any, Any]) -> None:
    """An unknown key is 404 with the service's code; gaps and rubbish are 400."""
    assert await ask(http, "POST", "/rotate", {"key": "none"}) == (
        404,
        {"error": "The specified Key is not found.", "code": "Forbidden.KeyNotFound"},
    )
    assert (await ask(http, "POST", "/rotate", {}))[0] == 400
    async with http.post("/rotate", data="{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400


async def test_web_pages_cannot_reach_it(http: TestClient[Any, Any]) -> None:
    """A foreign Host is refused, and so is a change that a plain form could send."""
    async with http.get("/calls", headers={"Host": "rebound.example:80"}) as response:
        assert response.status == 403
    async with http.post("/stop", data="{}", headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    async with http.get("/health", headers={"Host": "localhost"}) as response:
        assert response.status == 200


async def test_keys_of_every_kind_are_made(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """Asymmetric keys and keys whose material is to be imported can be asked for, and nothing else."""
    _, made = await ask(http, "POST", "/keys", {"spec": "RSA_2048"})
    assert kms.key(made["key"]).asymmetric
    _, made = await ask(http, "POST", "/keys", {"origin": "EXTERNAL"})
    arn = made["key"]
    for body in ({"spec": "EC_SM2"}, {"origin": "mars"}, {"spec": "RSA_2048", "origin": "EXTERNAL"}):
        assert (await ask(http, "POST", "/keys", body))[0] == 400
    material = {"key": arn, "material": base64.b64encode(bytes(32)).decode(), "expiresIn": "1d"}
    assert (await ask(http, "POST", "/import-material", material))[0] == 200
    assert kms.key(arn).state.value == "Enabled"
    await ask(http, "POST", "/delete-material", {"key": arn})
    assert kms.key(arn).state.value == "PendingImport"
    other = material | {"material": base64.b64encode(bytes(31)).decode()}
    assert (await ask(http, "POST", "/import-material", other))[1]["code"] == "InvalidKeyMaterial"
    assert (await ask(http, "POST", "/import-material", material | {"material": "*"}))[0] == 400


async def test_time_passes_for_keys(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """A schedule, a window of deletion and the clock: what is due happens when time is let pass."""
    arn, doomed = kms.create_key(), kms.create_key()
    assert (await ask(http, "POST", "/schedule", {"key": arn, "every": "30d"}))[0] == 200
    listed = (await ask(http, "GET", "/keys"))[1]
    assert [item["nextRotation"] is None for item in listed] == [False, True]
    assert (await ask(http, "POST", "/schedule-deletion", {"key": doomed, "in": "7d"}))[0] == 200
    status, now = await ask(http, "POST", "/clock", {"advance": "31d"})
    assert (status, now["offset"]) == (200, 31 * 86400)
    assert (await ask(http, "GET", "/clock"))[1]["offset"] == now["offset"]
    assert [(item["key"], item["versions"]) for item in (await ask(http, "GET", "/keys"))[1]] == [(arn, 2)]
    await ask(http, "POST", "/schedule", {"key": arn, "every": None})
    await ask(http, "POST", "/clock", {"advance": 86400 * 365})
    assert len(kms.key(arn).versions) == 2
    for wrong in (None, -1, True, "soon", "1y"):
        assert (await ask(http, "POST", "/clock", {"advance": wrong}))[0] == 400
    assert (await ask(http, "POST", "/schedule", {"key": arn, "every": 0}))[0] == 400


async def test_policies_are_set_as_documents(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """A document in RAM's form replaces the rights of an identity; one that is none names what is wrong."""
    operator = kms.add_identity("operator")
    policy = Policy.allow(("Decrypt",)).and_deny(("Decrypt",), ("one",))
    assert (await ask(http, "POST", "/policy", {"identity": "operator", "policy": policy.document()}))[0] == 200
    now = kms.identities.find(operator.access_key_id)
    assert now is not None
    assert now.policy == policy
    status, answer = await ask(http, "POST", "/policy", {"identity": "operator", "policy": {"Version": "2"}})
    assert (status, answer["error"]) == (400, 'policy: Version: not "1"')


async def test_instances_are_opened_and_stopped(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """An instance gets its gateway while the fake runs, which then goes down and up like those of regions."""
    status, made = await ask(http, "POST", "/instances", {"instance": "kst-one", "region": "cn-beijing"})
    assert (status, made["region"], made["listening"], made["caFile"]) == (200, "cn-beijing", True, None)
    assert (await ask(http, "GET", "/gateways"))[1]["kst-one"] == made
    assert made["endpoint"] == kms.endpoint("kst-one")
    stopped = (await ask(http, "POST", "/stop", {"region": "kst-one"}))[1]
    assert stopped == {"listening": ["cn-hangzhou", "cn-beijing"]}
    assert "kst-one" in (await ask(http, "POST", "/start", {"region": "kst-one"}))[1]["listening"]
    for body in ({"instance": "cn-mars", "region": "cn-mars"}, {"instance": "../x"}, {}, {"instance": "Kst_1"}):
        assert (await ask(http, "POST", "/instances", body))[0] == 400


async def test_faults_of_single_keys_and_telling_quotas(kms: FakeKms, http: TestClient[Any, Any]) -> None:
    """A fault may name keys, and quotas may be told to say when to come back."""
    arn = kms.create_key()
    await ask(http, "POST", "/faults", {"kind": "reset", "keys": [arn], "regions": ["cn-hangzhou"]})
    assert [fault.keys for fault in kms.faults.active.values()] == [(arn,)]
    assert (await ask(http, "POST", "/faults", {"kind": "reset", "keys": arn}))[0] == 400
    await ask(http, "PUT", "/quotas", {"asymmetric": 200, "tells-when": True})
    assert await ask(http, "GET", "/quotas") == (200, {"asymmetric": 200.0, "tells-when": True})
    assert (await ask(http, "PUT", "/quotas", {"tells-when": "yes"}))[0] == 400
