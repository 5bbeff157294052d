"""A pod that asks for secrets is not created while nobody can give it any: the shipped configuration fails closed."""

from typing import Any

import pytest


@pytest.mark.parametrize("name", ["kmseal.dev/inject", "kmseal.dev/inejct"])
async def test_an_annotated_pod_is_refused_while_there_is_no_replica(site: Any, name: str) -> None:
    """Also one whose opt-in is misspelt; the message names the webhook. It is created when a replica is back."""
    webhook = await site.start()
    await site.drain(webhook)
    answer = await site.create_pod({name: "db"})
    assert answer.status == 500
    assert "inject.kmseal.dev" in answer.body["message"]
    await site.start()
    assert (await site.create_pod({"kmseal.dev/inject": "db"})).status == 201
