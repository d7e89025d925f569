"""What will not be accepted however often it comes: parked with its reason, and kept among the rejected."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from aio_pika.abc import AbstractIncomingMessage

from libs.common.domain.facts import Origin
from libs.common.rabbitmq.broker import Broker
from libs.common.runtime.logs import logger
from services.ingress import metrics
from services.ingress.rejections import Rejection, Rejections, kept_headers

_LOG: Final = logger("poison")
REASON: Final = "x-hookledger-reason"
USER: Final = "x-hookledger-user"
ROUTING_KEY: Final = "x-hookledger-routing-key"
_NO_CONTENT_TYPE: Final = "application/octet-stream"
_LONGEST_REASON: Final = 500


class PoisonError(Exception):
    """A message, or one event of it, that will not be accepted however often it comes. The producer erred.

    Args:
        reason: for whoever looks at the dead letters.
        org: its organisation, where that is known.
        app: its application, where that is known.
    """

    def __init__(self, reason: str, *, org: UUID | None = None, app: UUID | None = None) -> None:
        super().__init__(reason)
        self.org = org
        self.app = app


class Parking:
    """Takes poison out of the way."""

    def __init__(self, broker: Broker, rejections: Rejections) -> None:
        self._broker = broker
        self._rejections = rejections

    async def park(
        self, incoming: AbstractIncomingMessage, poison: PoisonError, *, content_type: str | None, body: bytes
    ) -> None:
        """Publish what is poison to the dead letters, with the reason.

        Args:
            incoming: the message that it came in.
            poison: why.
            content_type: of `body`.
            body: the message's, or that of the one event.

        Raises:
            BrokerUnavailableError: whether it is there is not known.
        """
        reason = str(poison)[:_LONGEST_REASON]
        headers: dict[str, Any] = {name: _passable(value) for name, value in incoming.headers.items()}
        headers |= {REASON: reason, USER: incoming.user_id or "", ROUTING_KEY: incoming.routing_key or ""}
        await self._broker.publish(
            self._broker.names.dead,
            body,
            content_type=content_type or _NO_CONTENT_TYPE,
            headers=headers,
            mandatory=True,
        )
        metrics.REJECTED.labels(str(Origin.BROKER), "poison").inc()
        _LOG.warning("poison.parked", reason=reason, user=incoming.user_id)
        if poison.org is not None:
            told = {"Content-Type": content_type or "", **{name: str(headers[name]) for name in (USER, ROUTING_KEY)}}
            self._rejections.keep(_rejection(poison.org, poison.app, reason, told, body))


def _passable(value: Any) -> Any:
    """A header's value in a form that can be published again: what came as bytes is written from a `bytearray` only."""
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, dict):
        return {str(name): _passable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_passable(item) for item in value]
    return value


def _rejection(org: UUID, app: UUID | None, reason: str, told: Mapping[str, str], body: bytes) -> Rejection:
    return Rejection(
        org=org,
        app=app,
        source=None,
        origin=Origin.BROKER,
        status=422,
        reason=reason,
        headers=kept_headers(told.items()),
        body=body,
        size=len(body),
    )
