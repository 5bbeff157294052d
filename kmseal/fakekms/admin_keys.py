"""The switches over keys, the clock of keys and policies: what ``admin`` serves of the account.

Each handler reads its body, does one thing to the account and answers JSON. What the account refuses is a Refusal,
which ``admin`` turns into an answer.
"""

import base64
import binascii

from aiohttp import web

from kmseal.fakekms.account import Account
from kmseal.fakekms.admin_bodies import BadRequest, optional_text, read_body, seconds, text, texts
from kmseal.fakekms.keys import EXTERNAL, KeySpec
from kmseal.fakekms.policies import Policy, parse_policy
from kmseal.fakekms.shapes import timestamp


class KeySwitches:
    """The handlers over one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/keys", self.keys),
            web.post("/keys", self.create_key),
            web.post("/rotate", self.rotate),
            web.post("/schedule", self.schedule),
            web.post("/enable", self.enable),
            web.post("/disable", self.disable),
            web.post("/schedule-deletion", self.schedule_deletion),
            web.post("/import-material", self.import_material),
            web.post("/delete-material", self.delete_material),
            web.post("/alias", self.move_alias),
            web.get("/clock", self.clock),
            web.post("/clock", self.advance),
            web.post("/policy", self.set_policy),
        ]

    async def keys(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "key": key.arn,
                    "state": key.state.value,
                    "spec": key.spec.value,
                    "primaryVersion": key.primary.version_id,
                    "versions": len(key.versions),
                    "nextRotation": None if key.next_rotation is None else timestamp(key.next_rotation),
                    "aliases": [alias.name for alias in self._account.store.aliases(key.region, key.key_id)],
                }
                for key in self._account.store.keys_of()
            ]
        )

    async def create_key(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        region = optional_text(body, "region")
        if region is not None and region not in self._account.regions:
            raise BadRequest(f"region: not one of {', '.join(self._account.regions)}")
        spec, origin = optional_text(body, "spec") or KeySpec.AES_256, optional_text(body, "origin") or "Aliyun_KMS"
        if spec not in list(KeySpec):
            raise BadRequest(f"spec: not one of {', '.join(KeySpec)}")
        if origin not in {"Aliyun_KMS", EXTERNAL} or (origin == EXTERNAL and spec != KeySpec.AES_256):
            raise BadRequest(f"origin: not Aliyun_KMS or, for a symmetric key, {EXTERNAL}")
        arn = self._account.create_key(optional_text(body, "alias"), region, spec=spec, origin=origin)
        return web.json_response({"key": arn})

    async def rotate(self, request: web.Request) -> web.Response:
        return web.json_response({"keyVersionId": self._account.rotate(text(await read_body(request), "key"))})

    async def schedule(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        every = None if body.get("every") is None else int(seconds(body, "every"))
        if every is not None and every < 1:
            raise BadRequest("every: no time at all")
        self._account.rotate_every(text(body, "key"), every)
        return web.json_response({})

    async def enable(self, request: web.Request) -> web.Response:
        self._account.enable(text(await read_body(request), "key"))
        return web.json_response({})

    async def disable(self, request: web.Request) -> web.Response:
        self._account.disable(text(await read_body(request), "key"))
        return web.json_response({})

    async def schedule_deletion(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        self._account.schedule_deletion(text(body, "key"), self._account.clock() + seconds(body, "in"))
        return web.json_response({})

    async def import_material(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        try:
            material = base64.b64decode(text(body, "material"), validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("material: not base64") from None
        expires = None if body.get("expiresIn") is None else self._account.clock() + seconds(body, "expiresIn")
        self._account.import_material(text(body, "key"), material, expires)
        return web.json_response({})

    async def delete_material(self, request: web.Request) -> web.Response:
        self._account.delete_material(text(await read_body(request), "key"))
        return web.json_response({})

    async def move_alias(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        self._account.move_alias(text(body, "alias"), text(body, "key"))
        return web.json_response({})

    async def clock(self, _: web.Request) -> web.Response:
        clock = self._account.clock
        return web.json_response({"now": timestamp(clock()), "offset": clock.offset})

    async def advance(self, request: web.Request) -> web.Response:
        self._account.clock.advance(seconds(await read_body(request), "advance"))
        return await self.clock(request)

    async def set_policy(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        identity = self._account.identities.named(text(body, "identity"))
        if identity is None:
            raise BadRequest("identity: there is none of that name")
        if "policy" in body:
            try:
                policy = parse_policy(body["policy"])
            except ValueError as error:
                raise BadRequest(f"policy: {error}") from None
        else:
            policy = Policy.allow(texts(body, "actions"), texts(body, "keys") if "keys" in body else ("*",))
        self._account.set_policy(identity, policy=policy)
        return web.json_response({})
