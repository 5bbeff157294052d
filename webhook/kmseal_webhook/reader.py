"""Reading single objects: the seam between those who judge and the API client.

``mutation``, ``validation`` and ``eviction`` are given one: the client of ``kmseal.kube``, and in tests what they need.
"""

from typing import Any, Protocol

from kmseal.kube import Resource

Json = dict[str, Any]


class Reader(Protocol):
    """The part of the API client that reads one object."""

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        """Reads one object, or its metadata only; None where there is none."""
        ...
