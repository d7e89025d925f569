"""The routes under /api/v1, as one table. A trailing slash is optional everywhere."""

from typing import Final

from aiohttp import web

from services.registry import (
    applications,
    attempts,
    deliveries,
    destinations,
    endpoint_secrets,
    endpoint_stats,
    endpoints,
    event_types,
    messages,
    rejected,
    sources,
)
from services.registry.calls import Read, Write, reading, writing

API: Final = "/api/v1"
_APP: Final = "/app/{app}"
_ENDPOINT: Final = "/app/{app}/endpoint/{endpoint}"
_SOURCE: Final = "/app/{app}/source/{source}"
_MESSAGE: Final = "/app/{app}/msg/{msg}"
_EVENT_TYPE: Final = "/event-type/{name}"

READS: Final[dict[str, Read]] = {
    "/app": applications.list_all,
    _APP: applications.get,
    "/app/{app}/endpoint": endpoints.list_all,
    _ENDPOINT: endpoints.get,
    f"{_ENDPOINT}/secret": endpoint_secrets.get,
    f"{_ENDPOINT}/stats": endpoint_stats.get,
    f"{_ENDPOINT}/msg": destinations.attempted_messages,
    "/app/{app}/source": sources.list_all,
    _SOURCE: sources.get,
    "/event-type": event_types.list_all,
    _EVENT_TYPE: event_types.get,
    "/app/{app}/msg": messages.list_all,
    _MESSAGE: messages.get,
    f"{_MESSAGE}/endpoint": destinations.attempted_destinations,
    f"{_MESSAGE}/attempt/{{attempt}}": attempts.get,
    "/app/{app}/attempt/endpoint/{endpoint}": attempts.list_by_endpoint,
    "/app/{app}/attempt/msg/{msg}": attempts.list_by_message,
    "/app/{app}/delivery": deliveries.list_all,
    "/app/{app}/delivery/{delivery}": deliveries.get,
    "/app/{app}/delivery/{delivery}/ledger": deliveries.ledger,
    "/app/{app}/rejected": rejected.list_all,
    "/app/{app}/rejected/{rejected}": rejected.get,
}

WRITES: Final[dict[tuple[str, str], Write]] = {
    ("POST", "/app"): applications.create,
    ("PUT", _APP): applications.put,
    ("PATCH", _APP): applications.patch,
    ("DELETE", _APP): applications.delete,
    ("POST", "/app/{app}/endpoint"): endpoints.create,
    ("PUT", _ENDPOINT): endpoints.put,
    ("PATCH", _ENDPOINT): endpoints.patch,
    ("DELETE", _ENDPOINT): endpoints.delete,
    ("POST", f"{_ENDPOINT}/secret/rotate"): endpoint_secrets.rotate,
    ("POST", "/app/{app}/source"): sources.create,
    ("PUT", _SOURCE): sources.put,
    ("PATCH", _SOURCE): sources.patch,
    ("DELETE", _SOURCE): sources.delete,
    ("POST", f"{_SOURCE}/secret/rotate"): sources.rotate_secret,
    ("POST", "/event-type"): event_types.create,
    ("PUT", _EVENT_TYPE): event_types.put,
    ("PATCH", _EVENT_TYPE): event_types.patch,
    ("DELETE", _EVENT_TYPE): event_types.delete,
}


def add_routes(app: web.Application) -> None:
    """Add every route."""
    for path in ("/health", "/health/ping"):
        app.router.add_get(_with_slash(path), _healthy)
    for path, read in READS.items():
        app.router.add_get(_with_slash(path), reading(read))
    for (method, path), write in WRITES.items():
        app.router.add_route(method, _with_slash(path), writing(write))


def _with_slash(path: str) -> str:
    return f"{API}{path}{{_:/?}}"


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(status=204)
