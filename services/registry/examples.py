"""What the document says beyond the types: examples of bodies, and what the words in paths and tags mean."""

from collections.abc import Mapping
from typing import Any, Final

from libs.common.contracts.messages import MessageIn
from services.registry.applications import ApplicationIn, ApplicationPatch
from services.registry.endpoint_secrets import EndpointSecretRotateIn
from services.registry.endpoints import EndpointIn, EndpointPatch
from services.registry.event_types import EventTypeIn, EventTypePatch, EventTypeUpdate
from services.registry.sources import SourceIn, SourcePatch, SourceSecretRotateIn

TAGS: Final[Mapping[str, str]] = {
    "Application": "The tenants of an organisation: each owns endpoints, sources and messages.",
    "Delivery": "A message at an endpoint, with all that the ledger has on it.",
    "Endpoint": "Where an application's messages are sent.",
    "Event Type": "The dotted names that messages carry.",
    "Health": "Whether the API answers.",
    "Inbound": "What providers send, each to an address of its own.",
    "Message": "What was accepted, with its exact bytes.",
    "Message Attempt": "Each HTTP try of a delivery, and how it went.",
    "Rejected": "Inbound requests and broker messages that could not be accepted.",
    "Source": "The providers whose webhooks an application receives.",
}
PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "app": "The application's id or uid.",
    "attempt": "The attempt's id.",
    "delivery": "The delivery's id.",
    "endpoint": "The endpoint's id or uid.",
    "msg": "The message's id, or the event id that its sender gave it.",
    "name": "The event type's name.",
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
    EventTypeIn: {"name": "order.completed", "description": "An order was paid for", "schemas": {"1": _ORDER}},
    EventTypeUpdate: {"description": "An order was paid for", "deprecated": True},
    EventTypePatch: {"archived": True},
    MessageIn: {"eventType": "order.completed", "payload": {"id": 7, "total": 12.5}, "eventId": "order-7"},
    SourceIn: {"name": "Payments", "provider": "stripe", "secret": "whsec_from_the_providers_own_page"},
    SourcePatch: {"name": "Payments in euros"},
    SourceSecretRotateIn: {"secret": "whsec_the_providers_new_one", "gracePeriodSeconds": 3600},
}
