"""The bench of the injection: pods as they come, and what becomes of them."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from kmseal.errors import Malformed
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import PREFIX, parse
from kmseal_webhook.injection import Injected, inject

Json = dict[str, Any]
SETTINGS = AgentSettings(
    image="agent:1",
    broker="https://kmseal-webhook.kmseal-system.svc:8444",
    server_name="kmseal-webhook.kmseal-system.svc",
    ca=None,
    server_version=(1, 37),
    oldest_kubelet=(1, 37),
)
NAMES = {"db": ("password", "user"), "cache": ("url",), "odd": ("1st", "ok"), "twin": ("password",)}


class Bench:
    """Injects pods, with settings of a current cluster unless others are given."""

    @staticmethod
    def pod(spec: Json | None = None, /, **annotations: str) -> Json:
        """A pod; a double underscore in the name of an annotation stands for a full stop."""
        asked = {PREFIX + name.replace("__", "."): text for name, text in annotations.items()}
        return {
            "metadata": {"name": "pod", "annotations": asked},
            "spec": {
                "serviceAccountName": "default",
                "containers": [{"name": "app", "image": "app:1"}],
                **(spec or {}),
            },
        }

    @staticmethod
    def settings_with(**changes: Any) -> AgentSettings:
        return replace(SETTINGS, **changes)

    @staticmethod
    def injected(pod: Json, settings: AgentSettings = SETTINGS) -> Injected:
        before = copy.deepcopy(pod)
        injection = parse(pod["metadata"]["annotations"])
        assert injection is not None
        result = inject(pod, injection, NAMES, settings)
        assert pod == before, "an argument was changed"
        return result

    def again(self, pod: Json, settings: AgentSettings = SETTINGS) -> Json:
        """The injected pod, which can be injected again."""
        return self.injected(pod, settings).pod

    def spec_of(self, pod: Json, settings: AgentSettings = SETTINGS) -> Json:
        return dict(self.injected(pod, settings).pod["spec"])

    def refusal(self, pod: Json, settings: AgentSettings = SETTINGS) -> Malformed:
        with pytest.raises(Malformed) as caught:
            self.injected(pod, settings)
        return caught.value

    def config_of(self, pod: Json, settings: AgentSettings = SETTINGS) -> Json:
        """What the agent of the injected pod is told."""
        agent = self.spec_of(pod, settings)["initContainers"][0]
        return dict(json.loads(agent["env"][0]["value"]))

    @staticmethod
    def agents_of(spec: Json) -> list[str]:
        return [body["name"] for body in spec["initContainers"]]


@pytest.fixture
def bench() -> Bench:
    """Whatever these tests put on it comes out as a pod."""
    return Bench()
