"""The operations of the registry, as one table. A trailing slash is optional everywhere.

Each row says what the document shows and what the request is judged by: see `Operation`. Who may call stands in
`access`.
"""

from typing import Final

from aiohttp import web

from libs.common.contracts.messages import MessageOut
from libs.common.contracts.operations import ANYONE, Operation
from services.registry import (
    app_tokens,
    applications,
    attempts,
    audit,
    deliveries,
    destinations,
    endpoint_config,
    endpoint_headers,
    endpoint_health,
    endpoint_secrets,
    endpoint_stats,
    endpoints,
    erasures,
    event_type_import,
    event_types,
    examples,
    jobs,
    keys,
    listening,
    messages,
    organisation_settings,
    rejected,
    sources,
    transformations,
)
from services.registry.app_tokens import ApplicationTokenExpireIn, AppPortalAccessIn, AppPortalAccessOut
from services.registry.applications import ApplicationIn, ApplicationOut, ApplicationPatch
from services.registry.attempts import AttemptOut
from services.registry.audit import AuditEntryOut
from services.registry.calls import Route, read, wait, write
from services.registry.deliveries import DeliveryInDetailOut, DeliveryOut, LedgerEventOut
from services.registry.destinations import EndpointMessageOut, MessageEndpointOut
from services.registry.endpoint_config import EndpointConfigOut
from services.registry.endpoint_headers import EndpointHeadersIn, EndpointHeadersOut, EndpointHeadersPatchIn
from services.registry.endpoint_health import EndpointHealthOut
from services.registry.endpoint_secrets import EndpointSecretOut, EndpointSecretRotateIn
from services.registry.endpoint_stats import EndpointStatsOut
from services.registry.endpoints import EndpointIn, EndpointOut, EndpointPatch
from services.registry.event_type_import import EventTypeImportOpenApiIn, EventTypeImportOpenApiOut
from services.registry.event_types import EventTypeIn, EventTypeOut, EventTypePatch, EventTypeUpdate
from services.registry.examples import EventExampleIn
from services.registry.jobs import JobOut, RecoverIn, ReplayIn
from services.registry.keys import ApiKeyIn, ApiKeyOut, ApiKeyPatch, ApiKeyRotateIn
from services.registry.listening import ListenOut
from services.registry.organisation_settings import SettingsIn, SettingsOut, SettingsPatch
from services.registry.paging import PageOut
from services.registry.parameters import PAGE
from services.registry.rejected import RejectedContentOut, RejectedOut
from services.registry.sources import SourceIn, SourceOut, SourcePatch, SourceSecretRotateIn
from services.registry.transformations import (
    EndpointTransformationOut,
    EndpointTransformationPatch,
    TransformationPreviewIn,
    TransformationPreviewOut,
)

_APP: Final = "/app/{app}"
_ENDPOINT: Final = "/app/{app}/endpoint/{endpoint}"
_SOURCE: Final = "/app/{app}/source/{source}"
_MESSAGE: Final = "/app/{app}/msg/{msg}"
_DELIVERY: Final = "/app/{app}/delivery/{delivery}"
_EVENT_TYPE: Final = "/event-type/{name}"
_KEY: Final = "/key/{key}"


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

    read("/app", applications.list_all, "v1.application.list", PageOut[ApplicationOut], query=PAGE),
    write("POST", "/app", applications.create, "v1.application.create",
          {200: ApplicationOut, 201: ApplicationOut}, body=ApplicationIn, query=(applications.GET_IF_EXISTS,)),
    read(_APP, applications.get, "v1.application.get", ApplicationOut),
    write("PUT", _APP, applications.put, "v1.application.update",
          {200: ApplicationOut, 201: ApplicationOut}, body=ApplicationIn),
    write("PATCH", _APP, applications.patch, "v1.application.patch", {200: ApplicationOut}, body=ApplicationPatch),
    write("DELETE", _APP, applications.delete, "v1.application.delete", {204: None}),

    read(f"{_APP}/endpoint", endpoints.list_all, "v1.endpoint.list", PageOut[EndpointOut], query=PAGE),
    write("POST", f"{_APP}/endpoint", endpoints.create, "v1.endpoint.create", {201: EndpointOut}, body=EndpointIn),
    read(_ENDPOINT, endpoints.get, "v1.endpoint.get", EndpointOut),
    write("PUT", _ENDPOINT, endpoints.put, "v1.endpoint.update",
          {200: EndpointOut, 201: EndpointOut}, body=EndpointIn),
    write("PATCH", _ENDPOINT, endpoints.patch, "v1.endpoint.patch", {200: EndpointOut}, body=EndpointPatch),
    write("DELETE", _ENDPOINT, endpoints.delete, "v1.endpoint.delete", {204: None}),
    read(f"{_ENDPOINT}/headers", endpoint_headers.get, "v1.endpoint.get-headers", EndpointHeadersOut),
    write("PUT", f"{_ENDPOINT}/headers", endpoint_headers.put, "v1.endpoint.update-headers",
          {204: None}, body=EndpointHeadersIn),
    write("PATCH", f"{_ENDPOINT}/headers", endpoint_headers.patch, "v1.endpoint.patch-headers",
          {204: None}, body=EndpointHeadersPatchIn),
    read(f"{_ENDPOINT}/secret", endpoint_secrets.get, "v1.endpoint.get-secret", EndpointSecretOut),
    write("POST", f"{_ENDPOINT}/secret/rotate", endpoint_secrets.rotate, "v1.endpoint.rotate-secret",
          {200: EndpointSecretOut, 204: None}, body=EndpointSecretRotateIn, body_required=False, refusals=(400,)),
    read(f"{_ENDPOINT}/transformation", transformations.get, "v1.endpoint.transformation-get",
         EndpointTransformationOut),
    write("PATCH", f"{_ENDPOINT}/transformation", transformations.patch, "v1.endpoint.patch-transformation",
          {204: None}, body=EndpointTransformationPatch),
    write("POST", f"{_ENDPOINT}/transformation/preview", transformations.preview,
          "v1.endpoint.preview-transformation", {200: TransformationPreviewOut}, body=TransformationPreviewIn),
    read(f"{_ENDPOINT}/stats", endpoint_stats.get, "v1.endpoint.get-stats", EndpointStatsOut,
         query=(endpoint_stats.SINCE, endpoint_stats.UNTIL), refusals=(400,)),
    read(f"{_ENDPOINT}/health", endpoint_health.get, "v1.endpoint.get-health", EndpointHealthOut),
    read(f"{_ENDPOINT}/config", endpoint_config.get, "v1.endpoint.get-config", EndpointConfigOut,
         query=(endpoint_config.VERSION, endpoint_config.AT)),
    write("POST", f"{_ENDPOINT}/recover", jobs.recover, "v1.endpoint.recover", {202: JobOut}, body=RecoverIn),
    write("POST", f"{_ENDPOINT}/replay-missing", jobs.replay_missing, "v1.endpoint.replay-missing",
          {202: JobOut}, body=RecoverIn),
    write("POST", f"{_ENDPOINT}/replay", jobs.replay, "v1.endpoint.replay", {202: JobOut}, body=ReplayIn),
    write("POST", f"{_ENDPOINT}/send-example", examples.send, "v1.endpoint.send-example",
          {200: MessageOut}, body=EventExampleIn),

    read(f"{_APP}/source", sources.list_all, "v1.source.list", PageOut[SourceOut], query=PAGE),
    write("POST", f"{_APP}/source", sources.create, "v1.source.create", {201: SourceOut}, body=SourceIn),
    read(_SOURCE, sources.get, "v1.source.get", SourceOut),
    write("PUT", _SOURCE, sources.put, "v1.source.update", {200: SourceOut}, body=SourceIn),
    write("PATCH", _SOURCE, sources.patch, "v1.source.patch", {200: SourceOut}, body=SourcePatch),
    write("DELETE", _SOURCE, sources.delete, "v1.source.delete", {204: None}),
    write("POST", f"{_SOURCE}/secret/rotate", sources.rotate_secret, "v1.source.rotate-secret",
          {200: SourceOut}, body=SourceSecretRotateIn, body_required=False, refusals=(400,)),

    read("/event-type", event_types.list_all, "v1.event-type.list", PageOut[EventTypeOut],
         query=(*PAGE, event_types.ARCHIVED, event_types.WITH_SCHEMAS)),
    write("POST", "/event-type", event_types.create, "v1.event-type.create", {201: EventTypeOut}, body=EventTypeIn),
    write("POST", "/event-type/import/openapi", event_type_import.import_openapi, "v1.event-type.import-openapi",
          {200: EventTypeImportOpenApiOut}, body=EventTypeImportOpenApiIn, refusals=(400,)),
    read(_EVENT_TYPE, event_types.get, "v1.event-type.get", EventTypeOut),
    write("PUT", _EVENT_TYPE, event_types.put, "v1.event-type.update",
          {200: EventTypeOut, 201: EventTypeOut}, body=EventTypeUpdate),
    write("PATCH", _EVENT_TYPE, event_types.patch, "v1.event-type.patch", {200: EventTypeOut}, body=EventTypePatch),
    write("DELETE", _EVENT_TYPE, event_types.delete, "v1.event-type.delete",
          {204: None}, query=(event_types.EXPUNGE,)),

    read(f"{_APP}/msg", messages.list_all, "v1.message.list", PageOut[MessageOut], query=messages.FILTER),
    wait(f"{_APP}/listen", listening.listen, "v1.message.listen", ListenOut, query=listening.QUERY),
    read(_MESSAGE, messages.get, "v1.message.get", MessageOut, query=(messages.WITH_CONTENT,)),
    write("DELETE", f"{_MESSAGE}/content", erasures.message_content, "v1.message.expunge-content", {204: None}),

    read(f"{_APP}/attempt/endpoint/{{endpoint}}", attempts.list_by_endpoint, "v1.message-attempt.list-by-endpoint",
         PageOut[AttemptOut], query=attempts.FILTER_BY_ENDPOINT),
    read(f"{_APP}/attempt/msg/{{msg}}", attempts.list_by_message, "v1.message-attempt.list-by-msg",
         PageOut[AttemptOut], query=attempts.FILTER_BY_MESSAGE),
    read(f"{_MESSAGE}/attempt/{{attempt}}", attempts.get, "v1.message-attempt.get", AttemptOut),
    write("DELETE", f"{_MESSAGE}/attempt/{{attempt}}/content", erasures.attempt_content,
          "v1.message-attempt.expunge-content", {204: None}),
    write("POST", f"{_MESSAGE}/endpoint/{{endpoint}}/resend", jobs.resend, "v1.message-attempt.resend",
          {202: JobOut}),
    read(f"{_ENDPOINT}/msg", destinations.attempted_messages, "v1.message-attempt.list-attempted-messages",
         PageOut[EndpointMessageOut], query=destinations.FILTER),
    read(f"{_MESSAGE}/endpoint", destinations.attempted_destinations,
         "v1.message-attempt.list-attempted-destinations", PageOut[MessageEndpointOut], query=PAGE),

    read(f"{_APP}/delivery", deliveries.list_all, "v1.delivery.list", PageOut[DeliveryOut], query=deliveries.FILTER),
    read(_DELIVERY, deliveries.get, "v1.delivery.get", DeliveryInDetailOut),
    write("POST", f"{_DELIVERY}/skip", deliveries.skip, "v1.delivery.skip", {202: DeliveryOut}, refusals=(409,)),
    read(f"{_DELIVERY}/ledger", deliveries.ledger, "v1.delivery.ledger", PageOut[LedgerEventOut]),

    read("/key", keys.list_all, "v1.api-key.list", PageOut[ApiKeyOut], query=PAGE),
    write("POST", "/key", keys.create, "v1.api-key.create", {201: ApiKeyOut}, body=ApiKeyIn),
    read(_KEY, keys.get, "v1.api-key.get", ApiKeyOut),
    write("PATCH", _KEY, keys.patch, "v1.api-key.patch", {200: ApiKeyOut}, body=ApiKeyPatch),
    write("DELETE", _KEY, keys.delete, "v1.api-key.revoke", {204: None}),
    write("POST", f"{_KEY}/rotate", keys.rotate, "v1.api-key.rotate",
          {201: ApiKeyOut}, body=ApiKeyRotateIn, body_required=False),
    read("/settings", organisation_settings.get, "v1.settings.get", SettingsOut),
    write("PUT", "/settings", organisation_settings.put, "v1.settings.update", {200: SettingsOut}, body=SettingsIn),
    write("PATCH", "/settings", organisation_settings.patch, "v1.settings.patch",
          {200: SettingsOut}, body=SettingsPatch),
    read("/audit", audit.list_all, "v1.audit.list", PageOut[AuditEntryOut], query=audit.FILTER,
         refusals=(404,)),

    write("POST", "/auth/app-portal-access/{app}", app_tokens.grant, "v1.authentication.app-portal-access",
          {200: AppPortalAccessOut}, body=AppPortalAccessIn, body_required=False),
    write("POST", "/auth/dashboard-access/{app}", app_tokens.grant, "v1.authentication.dashboard-access",
          {200: AppPortalAccessOut}, body=AppPortalAccessIn, body_required=False),
    write("POST", "/auth/app/{app}/expire-all", app_tokens.expire_all, "v1.authentication.expire-all",
          {204: None}, body=ApplicationTokenExpireIn, body_required=False),
    write("POST", "/auth/logout", app_tokens.logout, "v1.authentication.logout", {204: None}),
    read(f"{_APP}/job", jobs.list_all, "v1.job.list", PageOut[JobOut], query=PAGE),
    read(f"{_APP}/job/{{job}}", jobs.get, "v1.job.get", JobOut),
    write("POST", f"{_APP}/job/{{job}}/cancel", jobs.cancel, "v1.job.cancel", {200: JobOut}),
    read("/background-task/{job}", jobs.background_task, "v1.background-task.get", JobOut),

    read(f"{_APP}/rejected", rejected.list_all, "v1.rejected.list", PageOut[RejectedOut], query=rejected.FILTER),
    read(f"{_APP}/rejected/{{rejected}}", rejected.get, "v1.rejected.get", RejectedContentOut),
)
# fmt: on


def add_routes(app: web.Application) -> None:
    """Add every route."""
    for route in ROUTES:
        path = f"{route.operation.full_path}{{_:/?}}"
        app.router.add_route(route.operation.method, path, route.handler)
        if route.operation.method == "GET":
            app.router.add_route("HEAD", path, route.handler)
