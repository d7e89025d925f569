"""What will not be accepted however often it comes: parked with its reason, and kept among the rejected."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from libs.common.domain.facts import Origin
from libs.common.rabbitmq import dead_letters
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.consuming import Incoming
from libs.common.runtime.clock import now
from libs.common.runtime.logs import logger
from services.ingress import metrics
from services.ingress.rejections import Rejection, Rejections, kept_headers, kept_text

_LOG: Final = logger("poison")
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

    async def park(self, incoming: Incoming, poison: PoisonError, *, content_type: str | None, body: bytes) -> None:
        """Publish what is poison to the dead letters, with the reason.

        Args:
            incoming: the message that it came in.
            poison: why.
            content_type: of `body`.
            body: the message's, or that of the one event.

        Raises:
            BrokerUnavailableError: whether it is there is not known.
        """
        reason = kept_text(str(poison)[:_LONGEST_REASON])
        names = self._broker.names
        letter = dead_letters.parked(incoming, names, reason=reason, at=now(), content_type=content_type, body=body)
        await self._broker.send(names.dead, letter, mandatory=True)
        metrics.REJECTED.labels(str(Origin.BROKER), "poison").inc()
        user = dead_letters.publisher_of(incoming, names) or ""
        _LOG.warning("poison.parked", reason=reason, user=user)
        if poison.org is not None:
            told = {
                "Content-Type": content_type or "",
                dead_letters.USER: user,
                dead_letters.ROUTING_KEY: incoming.routing_key or "",
            }
            self._rejections.keep(_rejection(poison.org, poison.app, reason, told, body))


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
