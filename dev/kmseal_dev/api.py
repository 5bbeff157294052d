"""A blocking client for single requests to the control plane's API server, as cluster-admin.

``controlplane`` polls readiness with it, fixtures create namespaces, and tests look at what another client did. It
is for setting up and looking; what a test is about goes through the product's own client. It opens a connection
per request, on purpose: nothing is left over when the server is restarted. It must not retry.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

USER_AGENT = "kmseal-dev"


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is the decoded JSON, or the text where the server sent something else."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Api:
    """Speaks to ``https://127.0.0.1:<port>`` with a bearer token."""

    def __init__(self, port: int, token: str, ca_file: str) -> None:
        self._port = port
        self._token = token
        self._tls = ssl.create_default_context(cafile=ca_file)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Sends ``body`` as JSON (None: no body); raises OSError or HTTPException when the server cannot be reached."""
        sent = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", "User-Agent": USER_AGENT}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = content_type
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=timeout, context=self._tls)
        try:
            connection.request(method, path, payload, {**sent, **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return Answer(response.status, dict(response.headers.items()), json.loads(text) if is_json else text)
