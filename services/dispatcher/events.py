"""Ledger events as the CloudEvents that a team's own services consume. Pure: facts in, events out."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import orjson

from libs.common.contracts import strictjson
from libs.common.contracts.cloudevents import structured
from libs.common.contracts.cloudevents.event import is_json
from libs.common.domain.facts import (
    AttemptEnded,
    AttemptOutcomeUnknown,
    CancelReason,
    DeliveryCancelled,
    DeliveryExhausted,
    DeliveryExpired,
    DeliveryGone,
    DeliveryHeld,
    DeliveryRefused,
    DeliverySkipped,
    Fact,
)
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import JSON, Message
from libs.common.domain.outcome import Outcome
from libs.common.postgres.ledger import Appended
from libs.common.rabbitmq.publishing import Outgoing

_LONGEST_ROUTING_KEY: Final = 255
"""Source: AMQP 0-9-1, section 4.2.5.3. An event type, which is ASCII, may have one character more."""
KINDS: Final = frozenset({
    "MessageAccepted", "AttemptEnded", "AttemptOutcomeUnknown", "DeliveryExhausted", "DeliveryRefused", "DeliveryGone",
    "DeliveryCancelled", "DeliverySkipped", "DeliveryExpired", "DeliveryHeld",
})  # fmt: skip
"""The kinds of fact that may become an event."""

_ENDS: Final[Mapping[type[Fact], str]] = {
    DeliveryExhausted: "delivery.exhausted",
    DeliveryRefused: "delivery.refused",
    DeliveryGone: "delivery.gone",
    DeliveryHeld: "delivery.held",
    DeliveryCancelled: "delivery.cancelled",
    DeliverySkipped: "delivery.cancelled",
    DeliveryExpired: "delivery.expired",
    AttemptOutcomeUnknown: "attempt.unknown",
}


def outcome_type(fact: Fact) -> str | None:
    """The type of the event on `deliveries` for a fact of a delivery's stream; None if it is nobody's business."""
    if isinstance(fact, AttemptEnded):
        return "delivery.succeeded" if fact.outcome is Outcome.SUCCEEDED else "attempt.failed"
    if isinstance(fact, DeliveryCancelled) and fact.reason is CancelReason.NEVER_SCHEDULED:
        return None  # it is about to be sent for the first time
    return _ENDS.get(type(fact))


def outcome(item: Appended, message: UUID, event_type: str) -> Outgoing:
    """The event on `deliveries` for a fact of a delivery's stream, whose `outcome_type` is known."""
    fact = item.fact
    application = encode(Prefix.APPLICATION, item.app)
    delivery = encode(Prefix.DELIVERY, item.stream)
    data: dict[str, Any] = {
        "applicationId": application,
        "endpointId": encode(Prefix.ENDPOINT, item.endpoint) if item.endpoint else None,
        "messageId": encode(Prefix.MESSAGE, message),
        "deliveryId": delivery,
        "version": item.version,
        "at": fact.at,
    }
    if isinstance(fact, AttemptEnded):
        data |= {
            "attemptId": encode(Prefix.ATTEMPT, fact.attempt),
            "outcome": fact.outcome,
            "responseStatusCode": fact.status,
            "failure": fact.failure,
        }
    body = structured.encode(
        id=f"{delivery}-{item.version}",
        source=f"/hookledger/{application}",
        type=event_type,
        time=fact.at,
        data=orjson.dumps(data),
        datacontenttype=JSON,
        subject=delivery,
        extensions={"hookledgerapp": application},
    )
    return Outgoing(routing_key=event_type, body=body)


def accepted(message: Message) -> Outgoing:
    """The event on `accepted` for a message, with its payload's exact bytes where they are JSON."""
    application = encode(Prefix.APPLICATION, message.app)
    source = encode(Prefix.SOURCE, message.source) if message.source else application
    identity = encode(Prefix.MESSAGE, message.id)
    extensions = {"hookledgerapp": application}
    if message.event_id is not None:
        extensions["hookledgereventid"] = message.event_id
    embeddable = strictjson.valid(message.body)
    body = structured.encode(
        id=identity,
        source=f"/hookledger/{source}",
        type=message.event_type,
        time=message.accepted_at,
        data=message.body,
        datacontenttype=JSON if embeddable else _opaque_type(message.content_type),
        subject=identity,
        extensions=extensions,
    )
    return Outgoing(routing_key=message.event_type[:_LONGEST_ROUTING_KEY], body=body)


def _opaque_type(content_type: str) -> str:
    """The type of content that is not JSON, whatever it calls itself."""
    return "application/octet-stream" if is_json(content_type) else content_type
