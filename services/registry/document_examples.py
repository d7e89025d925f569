"""What the document says beyond the types: examples of bodies, and what the words in paths and tags mean."""

from collections.abc import Mapping
from typing import Any, Final

from libs.common.contracts.front_door import ReverifyIn
from libs.common.contracts.messages import MessageBatchIn, MessageIn
from services.registry.app_tokens import ApplicationTokenExpireIn, AppPortalAccessIn
from services.registry.applications import ApplicationIn, ApplicationPatch
from services.registry.endpoint_headers import EndpointHeadersIn, EndpointHeadersPatchIn
from services.registry.endpoint_secrets import EndpointSecretRotateIn
from services.registry.endpoints import EndpointIn, EndpointPatch
from services.registry.event_type_import import EventTypeImportOpenApiIn
from services.registry.event_types import EventTypeIn, EventTypePatch, EventTypeUpdate
from services.registry.examples import EventExampleIn
from services.registry.jobs import RecoverIn, ReplayIn
from services.registry.keys import ApiKeyIn, ApiKeyPatch, ApiKeyRotateIn
from services.registry.organisation_settings import SettingsIn, SettingsPatch
from services.registry.sources import SourceIn, SourcePatch, SourceSecretRotateIn
from services.registry.transformations import EndpointTransformationPatch, TransformationPreviewIn

TAGS: Final[Mapping[str, str]] = {
    "Api Key": "What a program shows to be let in: hashed, with scopes, and two at a time while one is rotated.",
    "Application": "The tenants of an organisation: each owns endpoints, sources and messages.",
    "Audit": "Each change of what is configured: who, when, and what.",
    "Authentication": "Tokens for an application's own users, that reach their application and nothing else.",
    "Background Task": "Jobs, by the name that the reference gives them.",
    "Delivery": "A message at an endpoint, with all that the ledger has on it.",
    "Endpoint": "Where an application's messages are sent.",
    "Event Type": "The dotted names that messages carry.",
    "Health": "Whether the API answers.",
    "Inbound": "What providers send, each to an address of its own.",
    "Job": "What runs on after its answer: recoveries, replays, examples.",
    "Message": "What was accepted, with its exact bytes.",
    "Message Attempt": "Each HTTP try of a delivery, and how it went.",
    "Rejected": "Inbound requests and broker messages that could not be accepted.",
    "Settings": "What an organisation's endpoints follow where they say nothing themselves.",
    "Source": "The providers whose webhooks an application receives.",
}
PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "app": "The application's id or uid.",
    "attempt": "The attempt's id.",
    "delivery": "The delivery's id.",
    "endpoint": "The endpoint's id or uid.",
    "job": "The job's id.",
    "key": "The API key's id.",
    "msg": "The message's id, or the event id that its sender gave it.",
    "name": "The event type's name.",
    "rejected": "The rejected request's id.",
    "source": "The source's id or uid; in `/in/{source}` its id.",
}
_ORDER: Final = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "total": {"type": "number"}},
    "required": ["id"],
}
EXAMPLES: Final[Mapping[type, Any]] = {
    ApplicationIn: {"name": "Acme", "uid": "acme", "metadata": {"plan": "gold"}},
    ApplicationPatch: {"throttleRate": 50},
    EndpointIn: {
        "url": "https://example.com/webhooks",
        "description": "Orders to the warehouse",
        "eventTypes": ["order.completed"],
        "retrySchedule": [5, 300, 1800],
    },
    EndpointPatch: {"disabled": True},
    EndpointSecretRotateIn: {"gracePeriodSeconds": 3600},
    EndpointHeadersIn: {"headers": {"X-Tenant": "acme", "Authorization": "Bearer 7"}, "sensitive": ["Authorization"]},
    EndpointHeadersPatchIn: {"headers": {"X-Tenant": None}},
    EndpointTransformationPatch: {"expression": "{id: id, total: total}", "enabled": True},
    TransformationPreviewIn: {"payload": {"id": 7, "total": 12.5}, "expression": "{id: id}"},
    RecoverIn: {"since": "2026-01-31T00:00:00Z"},
    ReplayIn: {"since": "2026-01-31T00:00:00Z", "until": "2026-02-01T00:00:00Z", "onlyFailed": True},
    EventExampleIn: {"eventType": "order.completed"},
    EventTypeImportOpenApiIn: {"spec": {"openapi": "3.1.0", "webhooks": {}}, "dryRun": True},
    ApiKeyIn: {"name": "checkout", "scopes": ["publish"]},
    ApiKeyPatch: {"name": "checkout, Europe"},
    ApiKeyRotateIn: {"gracePeriodSeconds": 3600},
    SettingsIn: {"endpointHttpsOnly": True, "schemaValidation": "warn"},
    SettingsPatch: {"payloadRetentionDays": 30},
    AppPortalAccessIn: {"expiry": 3600, "readOnly": True},
    ApplicationTokenExpireIn: {"expiry": 60},
    EventTypeIn: {"name": "order.completed", "description": "An order was paid for", "schemas": {"1": _ORDER}},
    EventTypeUpdate: {"description": "An order was paid for", "deprecated": True},
    EventTypePatch: {"archived": True},
    MessageIn: {"eventType": "order.completed", "payload": {"id": 7, "total": 12.5}, "eventId": "order-7"},
    MessageBatchIn: {"messages": [{"eventType": "order.completed", "payload": {"id": 7}}]},
    ReverifyIn: {"ignoreTimestamp": True},
    SourceIn: {"name": "Payments", "provider": "stripe", "secret": "whsec_from_the_providers_own_page"},
    SourcePatch: {"name": "Payments in euros"},
    SourceSecretRotateIn: {"secret": "whsec_the_providers_new_one", "gracePeriodSeconds": 3600},
}
