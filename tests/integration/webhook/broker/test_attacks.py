"""Attacks on the broker, over TLS and with the API server's own tokens: each is refused, and leaves its trace.

``desk.denied`` holds for every one of them: the status and the reason, that KMS was not asked, one line of the audit
that says deny, and that no value stands in an answer, in the audit or in a log of any level.
"""

import asyncio
import json
import time
from typing import Any

import pytest

from kmseal.fakekms.faults import latency
from kmseal_webhook.limits import BrokerLimits, Rate

Json = dict[str, Any]
CANARY = b"canary-7d1e0a93c4"


@pytest.fixture
async def prey(desk: Any) -> Any:
    """An object that a pod lists and may have: what the attacks are after."""
    await desk.secret()
    await desk.allow()
    return await desk.pod()


async def end(desk: Any, pod: Any, phase: str) -> None:
    """What the kubelet says once all containers have ended."""
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
    answer = await desk.request("PATCH", path, {"status": {"phase": phase}}, "application/merge-patch+json")
    assert answer.status == 200, answer.body


# Tokens


async def test_another_pods_token(desk: Any, prey: Any) -> None:
    """Only what the token's own pod lists, though both run as one ServiceAccount that may have it."""
    other = await desk.pod("other", secrets="cache")
    line = await desk.denied(await desk.ask(await desk.token(other)), 403, "NotListed", wipe=True)
    assert (line["pod"], line["podUid"], line["secrets"]) == ("other", other.uid, ["db"])


@pytest.mark.parametrize("audience", [None, "https://kubernetes.default.svc.cluster.local", "vault", "kmseal.dev"])
async def test_another_audience(desk: Any, prey: Any, audience: str | None) -> None:
    """The token that every pod holds for the API server, and those for other services, are not for us."""
    line = await desk.denied(await desk.ask(await desk.token(prey, audience=audience)), 401, "BadToken", wipe=True)
    assert "pod" not in line, "nobody has vouched for it"


async def test_an_expired_token(desk: Any, prey: Any) -> None:
    """With a signature that is right. The API server allows clocks to differ by a minute, and so do we."""
    token = await desk.token(prey)
    past = int(time.time()) - 65
    expired = desk.signed_again(token, {"iat": past - 600, "nbf": past - 600, "exp": past})
    await desk.denied(await desk.ask(expired), 401, "BadToken", wipe=True)
    again = desk.signed_again(token, {})
    assert (await desk.ask(again)).status == 200, "signing again is not what made it bad"


async def test_a_token_that_was_altered(desk: Any, prey: Any) -> None:
    """Claims of another pod under the signature of this one."""
    head, _, signature = (await desk.token(prey)).split(".")
    other = (await desk.token(await desk.pod("other"))).split(".")[1]
    await desk.denied(await desk.ask(f"{head}.{other}.{signature}"), 401, "BadToken", wipe=True)


async def test_a_token_of_a_deleted_pod(desk: Any, prey: Any) -> None:
    """It has half of its ten minutes left, and nobody has shown it before."""
    token = await desk.token(prey)
    await desk.delete(prey)
    answer = await desk.ask(token)
    # The API server learns of the deletion by its own watch: until then the pod's own look-up refuses.
    assert answer.reason in ("BadToken", "PodGone")
    await desk.denied(answer, 401 if answer.reason == "BadToken" else 403, answer.reason, wipe=True)


async def test_a_replay_after_deletion(desk: Any, prey: Any) -> None:
    """The API server itself remembers accepted tokens for ten seconds: the pod is looked up for that reason."""
    token = await desk.token(prey)
    assert (await desk.ask(token)).status == 200
    await desk.delete(prey)
    await desk.denied(await desk.ask(token), 403, "PodGone", kms=1, wipe=True)


async def test_a_pod_that_was_made_again_under_the_same_name(desk: Any, prey: Any) -> None:
    """It is another pod; the first one's token says nothing about it, though it lists and may have the same."""
    token = await desk.token(prey)
    assert (await desk.ask(token)).status == 200
    await desk.delete(prey)
    again = await desk.pod()
    assert again.name == prey.name
    await desk.denied(await desk.ask(token), 403, "PodGone", kms=1, wipe=True)
    assert (await desk.ask(await desk.token(again))).status == 200


async def test_a_pod_that_is_being_deleted(desk: Any) -> None:
    """It gets nothing more; its containers keep their files for their grace period. Once it has ended, they go."""
    await desk.secret()
    await desk.allow()
    pod = await desk.pod(finalizers=["kmseal.dev/test"])
    token = await desk.token(pod)
    await desk.delete(pod)
    await desk.denied(await desk.ask(token), 403, "PodEnding")
    await end(desk, pod, "Succeeded")
    await desk.denied(await desk.ask(token), 403, "PodGone", wipe=True)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended(desk: Any, prey: Any, phase: str) -> None:
    """A Job's pod stays for its logs: nobody may use its token then."""
    token = await desk.token(prey)
    await end(desk, prey, phase)
    await desk.denied(await desk.ask(token), 403, "PodGone", wipe=True)


async def test_a_token_that_is_not_bound_to_a_pod(desk: Any, prey: Any) -> None:
    """Who may only make tokens of the ServiceAccount, as with kubectl create token, gets nothing."""
    await desk.denied(await desk.ask(await desk.token(prey, bound=False)), 401, "BadToken", wipe=True)


async def test_a_user_that_is_no_service_account(desk: Any, prey: Any) -> None:
    """Not even cluster-admin, whose token is valid."""
    token = desk.control_plane.token
    await desk.denied(await desk.ask(token), 401, "BadToken", wipe=True)


async def test_what_is_no_token_at_all(desk: Any, prey: Any) -> None:
    """Refused without a call of the API server."""
    log = desk.control_plane.audit_log()
    shapes = ["", "Bearer", "Basic eDp5", "Bearer a.b", "Bearer a.b.c.d", "Bearer a.b.c d", "bearer a.b.c"]
    for bearer in [*shapes, "Bearer " + "a" * 7998 + ".b.c"]:
        await desk.denied(await desk.ask("", headers={"Authorization": bearer}), 401, "BadToken", wipe=True)
    assert log.events(agent=desk.agent) == []


# Rights and lists


async def test_a_pod_without_the_annotation(desk: Any, prey: Any) -> None:
    """The right alone is not enough."""
    pod = await desk.pod("plain", secrets=None)
    await desk.denied(await desk.ask(await desk.token(pod)), 403, "NotListed", wipe=True)


async def test_a_pod_whose_annotations_are_wrong(desk: Any, prey: Any) -> None:
    """They are read as strictly as at admission; nothing is taken away for a mistake."""
    pod = await desk.pod("wrong", annotations={"kmseal.dev/pat": "/run"})
    await desk.denied(await desk.ask(await desk.token(pod)), 409, "Invalid", kms=1)


async def test_wrong_annotations_do_not_save_what_is_to_go(desk: Any, prey: Any) -> None:
    """Whoever may patch a pod could keep its files for ever otherwise: a right that is gone, a key, an object."""
    wrong = {"kmseal.dev/pat": "/run"}
    pod = await desk.pod("wrong", annotations=wrong, account="nobody")
    await desk.denied(await desk.ask(await desk.token(pod)), 403, "Forbidden", wipe=True)
    pod = await desk.pod("wrong-as-well", annotations=wrong)
    desk.kms.disable(desk.key)
    await desk.denied(await desk.ask(await desk.token(pod)), 403, "KeyUnusable", kms=1, wipe=True)
    path = f"/apis/kmseal.dev/v1alpha1/namespaces/{desk.namespace}/encryptedsecrets/db"
    assert (await desk.request("DELETE", path)).status == 200
    await desk.denied(await desk.ask(await desk.token(pod)), 404, "NotFound", kms=1, wipe=True)


async def test_a_service_account_without_the_verb(desk: Any, prey: Any) -> None:
    """The list alone is not enough, nor is the right to read the object."""
    pod = await desk.pod("poor", account="poor")
    name, path = "reader", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{desk.namespace}"
    rule = {"apiGroups": ["kmseal.dev"], "resources": ["encryptedsecrets"], "verbs": ["get", "list", "watch", "update"]}
    await desk.create(f"{path}/roles", {"metadata": {"name": name}, "rules": [rule]})
    await desk.create(f"{path}/rolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "poor", "namespace": desk.namespace}],
    })  # fmt: skip
    await desk.denied(await desk.ask(await desk.token(pod)), 403, "Forbidden", wipe=True)


async def test_the_verb_on_another_object(desk: Any, prey: Any) -> None:
    """Rights are by name; one that is missing refuses all that is asked for."""
    await desk.secret("cache")
    pod = await desk.pod("both", secrets="db, cache")
    await desk.denied(await desk.ask(await desk.token(pod), ["db", "cache"]), 403, "Forbidden", wipe=True)


async def test_an_annotation_that_was_added_later(desk: Any, prey: Any) -> None:
    """Who may patch a pod may change what it lists, and gains nothing that its ServiceAccount may not have.

    What is promised is just that (docs/audit.md): the list narrows, the right grants, and the audit shows.
    """
    await desk.secret("cache")
    token = await desk.token(prey)
    await desk.denied(await desk.ask(token, ["cache"]), 403, "NotListed", wipe=True)
    await desk.annotate(prey, {"kmseal.dev/inject": "db, cache"})
    await desk.denied(await desk.ask(token, ["cache"]), 403, "Forbidden", wipe=True)
    await desk.allow(names=["cache"])
    assert (await desk.ask(token, ["cache"])).status == 200
    assert desk.lines()[-1]["secrets"] == ["cache"]


async def test_another_namespaces_object(desk: Any, prey: Any) -> None:
    """Names mean objects of the pod's own namespace: rights in another one give nothing here."""
    elsewhere = await desk.create_namespace()
    await desk.secret("theirs", namespace=elsewhere)
    await desk.allow("app", ["theirs"], namespace=elsewhere)
    pod = await desk.pod("wanderer", secrets="theirs")
    await desk.denied(await desk.ask(await desk.token(pod), ["theirs"]), 403, "Forbidden", wipe=True)


async def test_one_name_in_two_namespaces(desk: Any, prey: Any) -> None:
    """Each gets its own."""
    elsewhere = await desk.create_namespace()
    await desk.secret("db", {"password": b"theirs"}, namespace=elsewhere)
    await desk.allow("app", ["db"], namespace=elsewhere)
    theirs = await desk.pod("web", namespace=elsewhere)
    assert (await desk.ask(await desk.token(theirs))).values("db") == {"password": b"theirs"}
    assert (await desk.ask(await desk.token(prey))).values("db") == {"password": CANARY}


async def test_names_that_are_paths_or_worse(desk: Any, prey: Any) -> None:
    """What cannot be an object's name goes no further than the parser, and into no audit line."""
    token = await desk.token(prey)
    paths = ["other/db", "../other/db", "..", ".", "", "db/status", "db?x=y", "db#", "db%2f..", "%2e%2e"]
    log = desk.control_plane.audit_log()
    for name in [*paths, "db\x00", "db\n", "Db", "ⅾb", "db\u200b", "-db", "db.", "a" * 254, " db"]:
        line = await desk.denied(await desk.ask(token, [name]), 400, "Malformed")
        assert line["secrets"] == []
    assert log.events(agent=desk.agent) == []


async def test_unknown_and_forbidden_objects_look_alike(desk: Any, prey: Any) -> None:
    """The same answer but for the name that was asked for, after the same calls: no way to find out what is there."""
    await desk.secret("there")
    token = await desk.token(await desk.pod("curious", secrets="there, not-there"))
    seen = []
    for name in ("there", "not-there"):
        log = desk.control_plane.audit_log()
        answer = await desk.ask(token, [name])
        await desk.denied(answer, 403, "Forbidden", wipe=True)
        calls = sorted((event.verb, event.resource) for event in log.events(agent=desk.agent))
        headers = {key: text for key, text in answer.headers.items() if key not in ("Date", "Content-Length")}
        seen.append((json.dumps(answer.body).replace(f" {name};", " X;"), headers, calls))
    assert seen[0] == seen[1]
    assert ("get", "encryptedsecrets") not in seen[0][2]


# HTTP


async def test_an_oversized_request(desk: Any, prey: Any) -> None:
    """By its announced length at once, without reading it."""
    token = await desk.token(prey)
    head = (
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
        "Content-Length: 1000000000\r\n\r\n"
    )
    received = await desk.raw(head.encode())
    assert received.startswith(b"HTTP/1.1 413 ")
    assert desk.lines()[-1]["reason"] == "TooLarge"


async def test_an_oversized_request_of_unknown_length(desk: Any, prey: Any) -> None:
    """In chunks it is cut off where the limit is."""

    async def endless() -> Any:
        for _ in range(20):
            yield b" " * 8192

    await desk.denied(await desk.ask(await desk.token(prey), body=endless()), 413, "TooLarge")


async def test_a_compressed_request(desk: Any, prey: Any) -> None:
    """It could grow a thousandfold: not unpacked at all."""
    answer = await desk.ask(await desk.token(prey), headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b" + b"x" * 20)
    await desk.denied(answer, 415, "UnsupportedMediaType")


async def test_a_slow_client(desk: Any, prey: Any) -> None:
    """Its body has half a second here; meanwhile others are served, and its connection ends."""
    reader, writer = await desk.connect()
    token = await desk.token(prey)
    writer.write(
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
        'Content-Length: 18\r\n\r\n{"secr'.encode()
    )
    await writer.drain()
    assert (await desk.ask(token)).status == 200
    async with asyncio.timeout(20):
        received = await reader.read()
    writer.close()
    assert received.startswith(b"HTTP/1.1 408 ")
    line = desk.lines()[-1]
    assert (line["decision"], line["reason"], line["secrets"]) == ("deny", "TooSlow", [])
    assert desk.kms.calls["Decrypt"] == 1


async def test_a_client_that_leaves(desk: Any, prey: Any) -> None:
    """It is written down as well, and is no error of ours."""
    _, writer = await desk.connect()
    token = await desk.token(prey)
    writer.write(
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
        'Content-Length: 18\r\n\r\n{"secr'.encode()
    )
    await writer.drain()
    writer.transport.abort()
    await desk.until(lambda: bool(desk.lines()))
    assert [(line["decision"], line["reason"]) for line in desk.lines()] == [("deny", "Aborted")]


async def test_other_methods(desk: Any, prey: Any) -> None:
    """Nothing but POST, with whatever token."""
    token = await desk.token(prey)
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = await desk.ask(token, method=method)
        await desk.denied(answer, 405, "MethodNotAllowed")
        assert answer.headers["Allow"] == "POST"


async def test_other_content_types(desk: Any, prey: Any) -> None:
    """What a browser's form could send, among others."""
    token = await desk.token(prey)
    forms = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    for content_type in [*forms, "application/json; charset=utf-16", "application/json, x/y", ""]:
        answer = await desk.ask(token, headers={"Content-Type": content_type})
        await desk.denied(answer, 415, "UnsupportedMediaType")


async def test_malformed_bodies(desk: Any, prey: Any) -> None:
    """A namespace cannot be asked for, nor anything twice; more forms are in the unit tests."""
    token = await desk.token(prey)
    for body in (
        b"",
        b'{"secrets": []}',
        b'{"secrets": ["db", "db"]}',
        b'{"secrets": ["db"], "namespace": "other"}',
        b'{"secrets": ["x"], "secrets": ["db"]}',
        b'{"secrets": ["db"]}{"secrets": ["db"]}',
        b"[" * 60_000,
    ):
        await desk.denied(await desk.ask(token, body=body), 400, "Malformed")


async def test_two_tokens(desk: Any, prey: Any) -> None:
    """Which of the two would it be?"""
    token = await desk.token(prey)
    body = b'{"secrets": ["db"]}'
    received = await desk.raw(
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        + body
    )
    assert received.startswith(b"HTTP/1.1 400 ")
    assert desk.lines()[-1]["reason"] == "Malformed"
    assert desk.kms.calls["Decrypt"] == 0


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 19\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 19\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: +19\r\n",
        "Content-Length: 19\r\nAuthorization : Bearer x\r\n",
    ],
)
async def test_requests_with_two_lengths(desk: Any, prey: Any, framing: str) -> None:
    """What a proxy and we could read differently is refused, the connection with it, before it comes to the broker."""
    token = await desk.token(prey)
    received = await desk.raw(
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}"
        f'Authorization: Bearer {token}\r\n\r\n{{"secrets": ["db"]}}\r\n0\r\n\r\n'.encode()
    )
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), received
    assert received.count(b"HTTP/1.") == 1
    assert desk.kms.calls["Decrypt"] == 0
    assert not [line for line in desk.lines() if line["decision"] == "allow"]


async def test_a_request_smuggled_behind_another(desk: Any, prey: Any) -> None:
    """What follows a body on a connection is a request of its own, which has no token of its own."""
    token = await desk.token(prey)
    body = b'{"secrets": ["db"]}'
    one = f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    received = await desk.raw(
        f"{one}Authorization: Bearer {token}\r\n\r\n".encode() + body + f"{one}\r\n".encode() + body
    )
    assert b"HTTP/1.1 200 " in received
    assert b"HTTP/1.1 401 " in received
    assert [line["reason"] for line in desk.lines()] == ["Granted", "BadToken"]
    desk.answers.clear()  # The first of the two answers has the value, as it should.


async def test_a_body_after_a_refusal_is_no_request(desk: Any, prey: Any) -> None:
    """Whoever is refused before the body is read does not get the body read as the next request."""
    token = await desk.token(prey)
    inner = (
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
        'Content-Length: 19\r\n\r\n{"secrets": ["db"]}'
    ).encode()
    received = await desk.raw(
        f"POST /v1/decrypt HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(inner)}\r\n"
        "\r\n".encode()
        + inner
    )
    assert received.startswith(b"HTTP/1.1 415 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert [line["reason"] for line in desk.lines()] == ["UnsupportedMediaType"]


# Floods


class TestFloods:
    """Small limits, so that a test reaches them."""

    @pytest.fixture
    def limits(self) -> BrokerLimits:
        """Five at once for each pod, and hardly any afterwards."""
        return BrokerLimits(token=Rate(0.01, 5), pod=Rate(0.01, 8), remote=Rate(0.01, 40), turns=2)

    async def test_a_flood_with_one_token(self, desk: Any, prey: Any) -> None:
        """It is stopped before it costs a call; another pod is served at once, even from the same address."""
        token, other = await desk.token(prey), await desk.token(await desk.pod("other"))
        for _ in range(5):
            assert (await desk.ask(token)).status == 200
        log = desk.control_plane.audit_log()
        answers = [await desk.ask(token) for _ in range(60)]
        await desk.denied(answers[-1], 429, "Throttled", kms=5)
        assert {answer.status for answer in answers} == {429}
        assert 1 <= int(answers[0].headers["Retry-After"]) <= 100
        assert answers[0].body["retry"] is True
        assert log.events(agent=desk.agent) == []
        assert (await desk.ask(other)).status == 200

    async def test_a_flood_with_many_tokens_of_one_pod(self, desk: Any, prey: Any) -> None:
        """Who can make tokens for a pod gets no more by it."""
        statuses = [(await desk.ask(await desk.token(prey))).status for _ in range(10)]
        assert statuses == [200] * 8 + [429] * 2
        assert desk.lines()[-1]["podUid"] == prey.uid
        assert desk.kms.calls["Decrypt"] == 8

    async def test_a_flood_with_made_up_tokens(self, desk: Any, prey: Any) -> None:
        """It uses up what its address may ask; the API server sees no more of it, and other addresses are served."""
        for index in range(40):
            assert (await desk.ask(f"a.b.{index}", address="127.0.0.2")).status == 401
        log = desk.control_plane.audit_log()
        line = await desk.denied(await desk.ask("a.b.x", address="127.0.0.2"), 429, "Throttled")
        assert line["remote"] == "127.0.0.2"
        assert log.events(agent=desk.agent) == []
        assert (await desk.ask(await desk.token(prey), address="127.0.0.3")).status == 200

    async def test_many_requests_of_one_pod_at_once(self, desk: Any, prey: Any) -> None:
        """Two are answered at once; what is too much does not wait in anybody's way, and the turns come back."""
        number = desk.kms.faults.add(latency(0.5, "Decrypt"))
        token, other = await desk.token(prey), await desk.token(await desk.pod("other"))
        answers = await asyncio.gather(*(desk.ask(token) for _ in range(4)), desk.ask(other))
        assert sorted(answer.status for answer in answers[:4]) == [200, 200, 429, 429]
        assert answers[4].status == 200
        desk.kms.faults.remove(number)
        assert (await desk.ask(token)).status == 200


class TestNamespaceFlood:
    """A namespace of many pods."""

    @pytest.fixture
    def limits(self) -> BrokerLimits:
        """Three for all pods of a namespace."""
        return BrokerLimits(namespace=Rate(0.01, 3))

    async def test_a_flood_of_a_whole_namespace(self, desk: Any, prey: Any) -> None:
        """It does not reach into other namespaces."""
        tokens = [await desk.token(await desk.pod(f"p{index}")) for index in range(4)]
        answers = [await desk.ask(token) for token in tokens]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        await desk.denied(answers[3], 429, "Throttled", kms=3)
        elsewhere = await desk.create_namespace()
        await desk.secret("db", {"password": b"theirs"}, namespace=elsewhere)
        await desk.allow("app", ["db"], namespace=elsewhere)
        theirs = await desk.pod("web", namespace=elsewhere)
        assert (await desk.ask(await desk.token(theirs))).status == 200
