"""Dead letters: what is said of a message when it is put aside, read back, and the way by which it goes again.

Ingress parks what producers published, with headers of its own. Everything else the broker puts aside by itself, from
the queue that `x-death` names; ingress passes no `x-death` on, so that whoever has none was parked by ingress.

None of that is believed of what did not come by the exchange `dead`: whoever may write to the default exchange can put
a message straight into the queue.

The broker vouches for `user_id` only while its user is connected, so nobody else can publish a message under it again.
What ingress parked says in a header whose it was, and ingress believes that header of what came by the exchange
`redrive`, to which no producer may write. If the broker puts such a message aside, `x-death` alone does not prove the
way by which it came: RabbitMQ 3 goes on with an `x-death` that a sender had made up. So what is sent again bears the
platform's own user, for whom the broker vouches.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractMessage, DeliveryMode

from libs.common.rabbitmq.consuming import Incoming
from libs.common.rabbitmq.topology import Names

REASON: Final = "x-hookledger-reason"
USER: Final = "x-hookledger-user"
ROUTING_KEY: Final = "x-hookledger-routing-key"
PARKED_AT: Final = "x-hookledger-parked-at"
MESSAGE_ID: Final = "x-hookledger-message-id"
_DEATH: Final = "x-death"
_ADDED: Final = frozenset({REASON, USER, ROUTING_KEY, PARKED_AT, MESSAGE_ID, _DEATH})
_ADDED_FAMILIES: Final = ("x-first-death-", "x-last-death-")
_COUNTS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
_ID_DIGITS: Final = 12

Received = Incoming | AbstractIncomingMessage
"""A message that a service consumes, or one that somebody has fetched by aio-pika."""


class NowhereError(Exception):
    """A dead letter does not say which queue it came from: somebody else put it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was put aside.

    Attributes:
        id: the same at each look.
        at: when it was put aside, if it says so.
        queue: the one that it was taken from, if it says so.
        reason: why, in ingress's words or the broker's.
        user: the broker's user that published it, if it is known and vouched for.
        size: of the body, in bytes.
        headers: its sender's own.
        properties: the rest that its sender set.
    """

    id: str
    at: datetime | None
    queue: str | None
    routing_key: str
    reason: str
    user: str
    content_type: str | None
    headers: Mapping[str, Any]
    size: int
    body: bytes = field(repr=False)
    properties: Mapping[str, Any]


def publisher_of(incoming: Received, names: Names) -> str | None:
    """The broker's user that published a message which producers sent: the broker or `redrive` vouches for it."""
    if incoming.exchange != names.redrive:
        return incoming.properties.user_id
    said = incoming.headers.get(USER)
    return said if isinstance(said, str) else None


def parked(
    incoming: Received,
    names: Names,
    *,
    reason: str,
    at: datetime,
    content_type: str | None,
    body: bytes,
) -> AbstractMessage:
    """What ingress publishes to the dead letters for a message, or for one event of it."""
    headers = _own_headers(incoming)
    headers |= {
        REASON: reason,
        USER: publisher_of(incoming, names) or "",
        ROUTING_KEY: incoming.routing_key or "",
        PARKED_AT: at.isoformat(),
    }
    properties = _properties(incoming)
    # The publisher tells by this property which of its messages the broker returned: it must not be shared.
    message_id = properties.pop("message_id")
    if message_id is not None:
        headers[MESSAGE_ID] = message_id
    return aio_pika.Message(
        body, headers=headers, content_type=content_type, delivery_mode=DeliveryMode.PERSISTENT, **properties
    )


def read(incoming: Received, names: Names, platform: str) -> DeadLetter:
    """A message of the queue of dead letters.

    Args:
        incoming: it.
        names: the platform's exchanges and queues.
        platform: the broker's user that sends dead letters again.
    """
    said: Mapping[str, Any] = incoming.headers if incoming.exchange == names.dead else {}
    deaths = said.get(_DEATH)
    death: Mapping[str, Any] = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    properties = _properties(incoming)
    queue: str | None
    if death:
        at, queue, reason = death.get("time"), str(death.get("queue", "")), str(death.get("reason", ""))
        keys = death.get("routing-keys")
        routing_key = str(keys[0]) if isinstance(keys, list) and keys else ""
        sent_again = death.get("exchange") == names.redrive and incoming.properties.user_id == platform
        user = str(said.get(USER, "")) if sent_again else incoming.properties.user_id or ""
    else:
        at = _time(said.get(PARKED_AT))
        queue = names.publish_queue if REASON in said else None
        reason, user, routing_key = (str(said.get(name, "")) for name in (REASON, USER, ROUTING_KEY))
        properties["message_id"] = said.get(MESSAGE_ID)
    return DeadLetter(
        id=_id(incoming),
        at=at if isinstance(at, datetime) and at.tzinfo else None,
        queue=queue,
        routing_key=routing_key,
        reason=reason,
        user=user,
        content_type=incoming.properties.content_type,
        headers=_own_headers(incoming),
        size=len(incoming.body),
        body=incoming.body,
        properties=properties,
    )


def redriven(letter: DeadLetter, names: Names, platform: str) -> tuple[str, str, AbstractMessage]:
    """The exchange and routing key by which a dead letter goes back to the queue that it came from, and the message.

    Not by the exchange that it was published to: others may have bound queues there, and have had it.

    Args:
        letter: it.
        names: the platform's exchanges and queues.
        platform: the broker's user that will publish it.

    Raises:
        NowhereError: it does not say where it came from.
    """
    if letter.queue is None:
        raise NowhereError("it does not say which queue it came from")
    headers = dict(letter.headers)
    exchange, routing_key = "", letter.queue
    if letter.queue == names.publish_queue:
        exchange, routing_key = names.redrive, letter.routing_key
        headers[USER] = letter.user
    message = aio_pika.Message(
        letter.body,
        headers=headers,
        content_type=letter.content_type,
        delivery_mode=DeliveryMode.PERSISTENT,
        user_id=platform,
        **letter.properties,
    )
    return exchange, routing_key, message


def _own_headers(incoming: Received) -> dict[str, Any]:
    return {
        name: _passable(value)
        for name, value in incoming.headers.items()
        if name not in _ADDED | _COUNTS and not name.startswith(_ADDED_FAMILIES)
    }


def _properties(incoming: Received) -> dict[str, Any]:
    # Not its expiration: it would be gone from among the dead letters before anybody looked.
    said = incoming.properties
    return {
        "content_encoding": said.content_encoding,
        "correlation_id": said.correlation_id,
        "message_id": said.message_id,
        "timestamp": said.timestamp,
        "type": said.message_type,
        "app_id": said.app_id,
    }


def _passable(value: Any) -> Any:
    """A header's value in a form that can be published again: what came as bytes is written from a `bytearray` only."""
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, dict):
        return {str(name): _passable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_passable(item) for item in value]
    return value


def _id(incoming: Received) -> str:
    """From what is the same at each look; the time when it was put aside tells two that are otherwise alike apart."""
    lasting = sorted((name, repr(value)) for name, value in incoming.headers.items() if name not in _COUNTS)
    digest = hashlib.sha256(repr((incoming.properties.content_type, lasting)).encode())
    digest.update(incoming.body)
    return digest.hexdigest()[:_ID_DIGITS]


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
