"""The operations of the registry, as one table. A trailing slash is optional everywhere.

Each row says what the document shows and what the request is judged by: see `Operation`. Who may call is `access`: keys
of scope `read` for GET, of scope `admin` for the rest, unless the row says otherwise.
"""

from typing import Final

from aiohttp import web

from libs.common.contracts.operations import ANYONE, Operation
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
from services.registry.applications import ApplicationIn, ApplicationOut, ApplicationPatch
from services.registry.attempts import AttemptOut
from services.registry.calls import Route, read, write
from services.registry.deliveries import DeliveryOut, LedgerEventOut
from services.registry.destinations import EndpointMessageOut, MessageEndpointOut
from services.registry.endpoint_secrets import EndpointSecretOut, EndpointSecretRotateIn
from services.registry.endpoint_stats import EndpointStatsOut
from services.registry.endpoints import EndpointIn, EndpointOut, EndpointPatch
from services.registry.event_types import EventTypeIn, EventTypeOut, EventTypePatch, EventTypeUpdate
from services.registry.messages import MessageOut
from services.registry.paging import PageOut
from services.registry.parameters import ORDERED_PAGE, PAGE
from services.registry.rejected import RejectedOut
from services.registry.sources import SourceIn, SourceOut, SourcePatch, SourceSecretRotateIn

_APP: Final = "/app/{app}"
_ENDPOINT: Final = "/app/{app}/endpoint/{endpoint}"
_SOURCE: Final = "/app/{app}/source/{source}"
_MESSAGE: Final = "/app/{app}/msg/{msg}"
_DELIVERY: Final = "/app/{app}/delivery/{delivery}"
_EVENT_TYPE: Final = "/event-type/{name}"


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(status=204)


def _health(path: str, id: str) -> Route:  # noqa: A002  OpenAPI's word
    operation = Operation(
        method="GET", path=path, id=id, summary="Say that the API answers", access=ANYONE, answers={204: None}
    )
    return Route(operation=operation, handler=_healthy)


# fmt: off
ROUTES: Final = (
    _health("/health", "v1.health.get"),
    _health("/health/ping", "v1.health.ping"),

    read("/app", applications.list_all, "v1.application.list", PageOut[ApplicationOut], query=ORDERED_PAGE),
    write("POST", "/app", applications.create, "v1.application.create",
          {200: ApplicationOut, 201: ApplicationOut}, body=ApplicationIn, query=(applications.GET_IF_EXISTS,)),
    read(_APP, applications.get, "v1.application.get", ApplicationOut),
    write("PUT", _APP, applications.put, "v1.application.update",
          {200: ApplicationOut, 201: ApplicationOut}, body=ApplicationIn),
    write("PATCH", _APP, applications.patch, "v1.application.patch", {200: ApplicationOut}, body=ApplicationPatch),
    write("DELETE", _APP, applications.delete, "v1.application.delete", {204: None}),

    read(f"{_APP}/endpoint", endpoints.list_all, "v1.endpoint.list", PageOut[EndpointOut], query=ORDERED_PAGE),
    write("POST", f"{_APP}/endpoint", endpoints.create, "v1.endpoint.create", {201: EndpointOut}, body=EndpointIn),
    read(_ENDPOINT, endpoints.get, "v1.endpoint.get", EndpointOut),
    write("PUT", _ENDPOINT, endpoints.put, "v1.endpoint.update",
          {200: EndpointOut, 201: EndpointOut}, body=EndpointIn),
    write("PATCH", _ENDPOINT, endpoints.patch, "v1.endpoint.patch", {200: EndpointOut}, body=EndpointPatch),
    write("DELETE", _ENDPOINT, endpoints.delete, "v1.endpoint.delete", {204: None}),
    read(f"{_ENDPOINT}/secret", endpoint_secrets.get, "v1.endpoint.get-secret", EndpointSecretOut),
    write("POST", f"{_ENDPOINT}/secret/rotate", endpoint_secrets.rotate, "v1.endpoint.rotate-secret",
          {200: EndpointSecretOut, 204: None}, body=EndpointSecretRotateIn, body_required=False, refusals=(400,)),
    read(f"{_ENDPOINT}/stats", endpoint_stats.get, "v1.endpoint.get-stats", EndpointStatsOut,
         query=(endpoint_stats.SINCE, endpoint_stats.UNTIL), refusals=(400,)),

    read(f"{_APP}/source", sources.list_all, "v1.source.list", PageOut[SourceOut], query=ORDERED_PAGE),
    write("POST", f"{_APP}/source", sources.create, "v1.source.create", {201: SourceOut}, body=SourceIn),
    read(_SOURCE, sources.get, "v1.source.get", SourceOut),
    write("PUT", _SOURCE, sources.put, "v1.source.update", {200: SourceOut}, body=SourceIn),
    write("PATCH", _SOURCE, sources.patch, "v1.source.patch", {200: SourceOut}, body=SourcePatch),
    write("DELETE", _SOURCE, sources.delete, "v1.source.delete", {204: None}),
    write("POST", f"{_SOURCE}/secret/rotate", sources.rotate_secret, "v1.source.rotate-secret",
          {200: SourceOut}, body=SourceSecretRotateIn, body_required=False, refusals=(400,)),

    read("/event-type", event_types.list_all, "v1.event-type.list", PageOut[EventTypeOut],
         query=(*ORDERED_PAGE, event_types.ARCHIVED, event_types.WITH_SCHEMAS)),
    write("POST", "/event-type", event_types.create, "v1.event-type.create", {201: EventTypeOut}, body=EventTypeIn),
    read(_EVENT_TYPE, event_types.get, "v1.event-type.get", EventTypeOut),
    write("PUT", _EVENT_TYPE, event_types.put, "v1.event-type.update",
          {200: EventTypeOut, 201: EventTypeOut}, body=EventTypeUpdate),
    write("PATCH", _EVENT_TYPE, event_types.patch, "v1.event-type.patch", {200: EventTypeOut}, body=EventTypePatch),
    write("DELETE", _EVENT_TYPE, event_types.delete, "v1.event-type.delete",
          {204: None}, query=(event_types.EXPUNGE,)),

    read(f"{_APP}/msg", messages.list_all, "v1.message.list", PageOut[MessageOut], query=messages.FILTER),
    read(_MESSAGE, messages.get, "v1.message.get", MessageOut, query=(messages.WITH_CONTENT,)),

    read(f"{_APP}/attempt/endpoint/{{endpoint}}", attempts.list_by_endpoint, "v1.message-attempt.list-by-endpoint",
         PageOut[AttemptOut], query=attempts.FILTER_BY_ENDPOINT),
    read(f"{_APP}/attempt/msg/{{msg}}", attempts.list_by_message, "v1.message-attempt.list-by-msg",
         PageOut[AttemptOut], query=attempts.FILTER_BY_MESSAGE),
    read(f"{_MESSAGE}/attempt/{{attempt}}", attempts.get, "v1.message-attempt.get", AttemptOut),
    read(f"{_ENDPOINT}/msg", destinations.attempted_messages, "v1.message-attempt.list-attempted-messages",
         PageOut[EndpointMessageOut], query=destinations.FILTER),
    read(f"{_MESSAGE}/endpoint", destinations.attempted_destinations,
         "v1.message-attempt.list-attempted-destinations", PageOut[MessageEndpointOut], query=PAGE),

    read(f"{_APP}/delivery", deliveries.list_all, "v1.delivery.list", PageOut[DeliveryOut], query=deliveries.FILTER),
    read(_DELIVERY, deliveries.get, "v1.delivery.get", DeliveryOut),
    write("POST", f"{_DELIVERY}/skip", deliveries.skip, "v1.delivery.skip", {202: DeliveryOut}, refusals=(409,)),
    read(f"{_DELIVERY}/ledger", deliveries.ledger, "v1.delivery.ledger", PageOut[LedgerEventOut]),

    read(f"{_APP}/rejected", rejected.list_all, "v1.rejected.list", PageOut[RejectedOut], query=ORDERED_PAGE),
)
# fmt: on


def add_routes(app: web.Application) -> None:
    """Add every route."""
    for route in ROUTES:
        path = f"{route.operation.full_path}{{_:/?}}"
        app.router.add_route(route.operation.method, path, route.handler)
