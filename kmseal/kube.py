"""A thin asynchronous Kubernetes API client: the few verbs that kmseal needs, over one aiohttp session.

Used by the operator and the webhook. Objects go in and out as JSON dictionaries; what they mean is the caller's
business. It asks for metadata only wherever the caller does not need content, so that no Secret's data comes back to
this process. It translates every failure into ``kmseal.errors``; an answer's message is never passed on, because an API
server may quote what it refuses.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from kmseal.errors import Unavailable
from kmseal.kubeconfig import ClusterAccess
from kmseal.kubeerrors import read_refusal

_PARTIAL: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"  # JSON is YAML.

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API's paths name it; the core group is the empty string."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The path of a collection, or of one object or its subresource. An empty name is refused, as a bug."""
        if name == "":
            raise ValueError("an empty name would make the path that of the whole collection")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


SECRETS: Final = Resource("", "v1", "secrets", "Secret")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")
PODS: Final = Resource("", "v1", "pods", "Pod")
UNFINISHED_PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
"""Fields that select pods. Metadata does not have the phase, but the server selects by it, in a watch too."""
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
ENCRYPTED_SECRETS: Final = Resource("kmseal.dev", "v1alpha1", "encryptedsecrets", "EncryptedSecret")
KMS_KEYS: Final = Resource("kmseal.dev", "v1alpha1", "kmskeys", "KMSKey")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
SUBJECT_ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``resource_version`` is where a watch may begin after the last page."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, with the object (or its metadata)."""

    type: str
    object: Json


class KubeClient:
    """The client of one API server; an asynchronous context manager.

    :param timeout: seconds for one whole call other than a watch
    :param connections: how many connections are open at once at the most
    :param observer: called after each write with verb, resource and HTTP status (0: no answer), for metrics
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        user_agent: str,
        timeout: float = 30.0,
        connections: int = 64,
        observer: Callable[[str, str, int], None] | None = None,
    ) -> None:
        self._access = access
        self._user_agent = user_agent
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._connections = connections
        self._observer = observer or (lambda verb, resource, status: None)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url=self._access.server,
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._access.tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent},
            # Found once: with trust_env each request would search the environment and the home folder anew.
            proxy=_find_proxy(self._access.server),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server has this kind of object at all; of a named group."""
        answer = await self._call(
            "GET", f"/apis/{resource.group}/{resource.version}", accept="application/json", absent_is_none=True
        )
        return any(item.get("name") == resource.plural for item in (answer or {}).get("resources") or [])

    async def version(self) -> tuple[int, int]:
        """Major and minor version of the API server, as (1, 37). Raises Unavailable where it tells none."""
        answer = await self._required("GET", "/version", accept="application/json")
        # Some distributions append a plus sign to the minor version.
        found = [re.match(r"[0-9]{1,4}", str(answer.get(part, ""))) for part in ("major", "minor")]
        match found:
            case [re.Match() as major, re.Match() as minor]:
                return int(major[0]), int(minor[0])
        raise Unavailable("the API server does not tell its version", reason="ApiUnavailable")

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False) -> Json | None:
        """Reads one object, or its metadata only; None where there is none."""
        accept = _PARTIAL if metadata else "application/json"
        return await self._call("GET", resource.path(namespace, name), accept=accept, absent_is_none=True)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        metadata: bool = False,
        page_size: int = 500,
    ) -> AsyncIterator[Page]:
        """Lists a collection page by page, so that memory is bounded by a page. Raises Expired between pages."""
        query = {"limit": str(page_size), **_selectors(labels, fields)}
        while True:
            answer = await self._required(
                "GET", resource.path(namespace), query=query, accept=_PARTIAL_LIST if metadata else "application/json"
            )
            meta = answer.get("metadata") or {}
            yield Page(answer.get("items") or [], str(meta.get("resourceVersion", "")))
            if not meta.get("continue"):
                return
            query["continue"] = meta["continue"]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        since: str,
        labels: str = "",
        fields: str = "",
        metadata: bool = False,
        server_timeout: int = 300,
        silence: float = 90.0,
    ) -> AsyncGenerator[Change, None]:
        """Yields changes since a resource version until the server ends the stream after ``server_timeout`` seconds.

        The server sends a bookmark about once a minute; a stream that is silent for ``silence`` seconds is dead and
        raises Unavailable. Raises Expired when ``since`` is too old.
        """
        query = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(server_timeout),
            **_selectors(labels, fields),
        }
        headers = {"Accept": _PARTIAL if metadata else "application/json", **self._authorization()}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        try:
            async with self._open.get(
                resource.path(namespace), params=query, headers=headers, timeout=timeout
            ) as answer:
                if answer.status != 200:
                    raise read_refusal(answer.status, await _json(answer), answer.headers)
                pending = b""
                async for chunk in answer.content.iter_any():
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        yield _change(line)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the watch of {resource.plural} broke off ({type(error).__name__})") from None

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Json, *, manager: str, force: bool
    ) -> Json:
        """Writes by server-side apply; answers with the object's metadata only.

        ``metadata.resourceVersion`` "1" in the body makes it create-only and ``metadata.uid`` update-only (tried on a
        real API server): a breach raises Conflict, or Refused with the field ``metadata.uid``.
        """
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._required(
            "PATCH",
            resource.path(namespace, name),
            query=query,
            body=body,
            content_type=_APPLY_PATCH,
            accept=_PARTIAL,
            write=("apply", resource.plural),
        )

    async def patch_status(
        self, resource: Resource, namespace: str | None, name: str, status: Json, *, version: int, manager: str
    ) -> Json | None:
        """Merges ``status`` into an object's status; answers with its metadata, None where the object is gone.

        Raises Conflict unless the object still has the resource version ``version``: a status must not land on another
        object of the same name (a uid in the patch would be ignored there: tried on a real API server).
        """
        return await self._call(
            "PATCH",
            resource.path(namespace, name, "status"),
            query={"fieldManager": manager},
            body={"metadata": {"resourceVersion": str(version)}, "status": status},
            content_type=_MERGE_PATCH,
            accept=_PARTIAL,
            absent_is_none=True,
            write=("patch", f"{resource.plural}/status"),
        )

    async def merge(self, resource: Resource, namespace: str, name: str, body: Json, *, manager: str) -> Json:
        """Writes by merge patch, where null removes; answers with the object's metadata only."""
        return await self._required(
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": manager},
            body=body,
            content_type=_MERGE_PATCH,
            accept=_PARTIAL,
            write=("patch", resource.plural),
        )

    async def create(
        self, resource: Resource, namespace: str | None, body: Json, *, manager: str, dry_run: bool = False
    ) -> Json:
        """Creates an object; answers with its metadata only."""
        query = {"fieldManager": manager, **({"dryRun": "All"} if dry_run else {})}
        return await self._required(
            "POST", resource.path(namespace), query=query, body=body, accept=_PARTIAL, write=("create", resource.plural)
        )

    async def review(self, resource: Resource, spec: Json) -> Json:
        """Asks a question that the API server answers and does not store; returns the status of its answer."""
        body = {"apiVersion": f"{resource.group}/{resource.version}", "kind": resource.kind, "spec": spec}
        answer = await self._required("POST", resource.path(), body=body, accept="application/json")
        status = answer.get("status")
        if not isinstance(status, dict):
            raise Unavailable(f"the API server's {resource.kind} has no status", reason="ApiUnavailable")
        return status

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        """Deletes an object if it still is the one with this uid. False where there is none."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        answer = await self._call(
            "DELETE",
            resource.path(namespace, name),
            body=body,
            accept=_PARTIAL,
            absent_is_none=True,
            write=("delete", resource.plural),
        )
        return answer is not None

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """Has a pod evicted, as far as PodDisruptionBudgets allow, if it still is the one with this uid.

        False where it is not there any more. Raises Throttled where a budget does not allow it now.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        answer = await self._call(
            "POST",
            PODS.path(namespace, name, "eviction"),
            body=body,
            accept="application/json",
            absent_is_none=True,
            write=("create", "pods/eviction"),
        )
        return answer is not None

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("a KubeClient is used inside `async with` only")
        return self._session

    def _authorization(self) -> dict[str, str]:
        token = self._access.token.get()
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _required(self, method: str, path: str, **options: Any) -> Json:
        answer = await self._call(method, path, **options)
        if answer is None:
            raise Unavailable("the API server answered with nothing")
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        absent_is_none: bool = False,
        write: tuple[str, str] | None = None,
    ) -> Json | None:
        headers = {"Accept": accept, **self._authorization()}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        status = 0
        try:
            async with self._open.request(
                method, path, params=query, data=data, headers=headers, timeout=self._timeout
            ) as answer:
                status = answer.status
                if status == 404 and absent_is_none:
                    await answer.read()  # For a group that it does not know the server answers with plain text.
                    return None
                content = await _json(answer)
                if status < 300:
                    return content
                raise read_refusal(status, content, answer.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"the API server cannot be reached ({type(error).__name__})",
                reason="ApiUnavailable",
                remedy="it is tried again; check the API server and the network",
            ) from None
        finally:
            if write:
                self._observer(*write, status)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    chosen = {"labelSelector": labels, "fieldSelector": fields}
    return {name: selector for name, selector in chosen.items() if selector}


def _find_proxy(server: str) -> str | None:
    """The proxy that the environment names for the API server, unless ``NO_PROXY`` excepts it."""
    address = urlsplit(server)
    return None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)


async def _json(answer: aiohttp.ClientResponse) -> Json:
    try:
        content = json.loads(await answer.read())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Unavailable(f"the API server's answer (HTTP {answer.status}) is not JSON", reason="ApiUnavailable")
    return content


def _change(line: bytes) -> Change:
    try:
        event = json.loads(line)
        kind, content = event["type"], event["object"]
    except (ValueError, TypeError, KeyError):
        raise Unavailable("a watch event cannot be read", reason="ApiUnavailable") from None
    if kind == "ERROR":
        raise read_refusal(int(content.get("code") or 500), content, {})
    return Change(kind, content)
