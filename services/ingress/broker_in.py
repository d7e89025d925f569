"""What producers publish to the broker: CloudEvents, committed before they are acknowledged.

While Postgres is away a message is held unacknowledged and tried again, never sent back: a message that goes to and fro
would use up its delivery limit. An event that cannot be accepted goes to the dead letters with its reason, and those
beside and behind it flow. The events of a batch are each accepted or parked, and then the message is acknowledged;
if it comes again after a crash in between, `source` and `id` tell which were accepted.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from libs.common.contracts.cloudevents import carried
from libs.common.contracts.cloudevents.event import CloudEvent, MalformedCloudEventError
from libs.common.contracts.registry import RegistryObject
from libs.common.rabbitmq.connection import BrokerUnavailableError
from libs.common.rabbitmq.consuming import Incoming
from libs.common.rabbitmq.dead_letters import publisher_of
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.ingress.accept import Acceptor, UnavailableError, UnstorableError
from services.ingress.candidate import Forbidden, Violating
from services.ingress.directory import Directory
from services.ingress.event_in import application_of, candidate_of, organisation_of
from services.ingress.poison import Parking, PoisonError
from services.ingress.schemas import told

_LOG: Final = logger("broker_in")
PREFETCH: Final = 32
"""Messages in hand at most. A batch may have 5 MiB, so what is held while Postgres is away comes to 160 MiB, and to a
small multiple of that once it is opened. Single events still share commits by the dozen."""
FIRST_BACKOFF_SECONDS: Final = 0.1
LONGEST_BACKOFF_SECONDS: Final = 5.0
_AWAY: Final = (UnavailableError, BrokerUnavailableError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """One event that is offered, or a whole message that is poison, with the bytes to park it by."""

    judged: tuple[RegistryObject, CloudEvent] | PoisonError
    content_type: str | None
    body: bytes = field(repr=False)


class BrokerIn:
    """The consumer of producers' messages."""

    def __init__(self, names: Names, acceptor: Acceptor, directory: Directory, parking: Parking) -> None:
        self._names = names
        self._acceptor = acceptor
        self._directory = directory
        self._parking = parking
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_hand = 0

    async def handle(self, incoming: Incoming) -> None:
        """Accept the events of one message or park them with their reasons, then acknowledge it."""
        self._in_hand += 1
        self._idle.clear()
        try:
            await self._settle(incoming)
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    async def drain(self) -> None:
        """Settle what is in hand; what waits for a server that is away goes back to the queue with the connection."""
        self._stopping.set()
        await self._idle.wait()

    async def _settle(self, incoming: Incoming) -> None:
        offers: list[_Offer] | None = None
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                if offers is None:
                    offers = await self._open(incoming)
                offers, away = await self._settle_each(incoming, offers)
            except UnavailableError as error:
                away = error
            if away is None:
                incoming.ack()
                return
            _LOG.warning("broker_in.held", reason=str(away), retry_seconds=backoff)
            if await set_within(self._stopping, backoff) or incoming.lost:
                return
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)

    async def _open(self, incoming: Incoming) -> list[_Offer]:
        """What the message offers.

        Raises:
            UnavailableError: whose it is cannot be told now.
        """
        try:
            organisation = await organisation_of(self._directory, publisher_of(incoming, self._names))
            return [_offer(organisation, each) for each in _read(incoming, organisation)]
        except PoisonError as poison:
            return [_Offer(judged=poison, content_type=incoming.properties.content_type, body=incoming.body)]

    async def _settle_each(self, incoming: Incoming, offers: list[_Offer]) -> tuple[list[_Offer], Exception | None]:
        """Accept or park each, all at the same time, so that they share commits; those that must wait, and for what."""
        if len(offers) == 1:  # nearly always, and it needs no task
            away = [await self._settle_one(incoming, offers[0])]
        else:
            away = await asyncio.gather(*(self._settle_one(incoming, offer) for offer in offers))
        left = [offer for offer, error in zip(offers, away, strict=True) if error is not None]
        return left, next((error for error in away if error is not None), None)

    async def _settle_one(self, incoming: Incoming, offer: _Offer) -> Exception | None:
        """Accept or park one; or why neither can be done now."""
        try:
            poison = await self._refusal(offer)
            if poison is not None:
                await self._parking.park(incoming, poison, content_type=offer.content_type, body=offer.body)
        except _AWAY as error:
            return error
        return None

    async def _refusal(self, offer: _Offer) -> PoisonError | None:
        """None once it is accepted; or why it never can be."""
        if isinstance(offer.judged, PoisonError):
            return offer.judged
        try:
            await self._accept(*offer.judged)
        except PoisonError as poison:
            return poison
        return None

    async def _accept(self, organisation: RegistryObject, event: CloudEvent) -> None:
        """Commit the event, or see that an earlier one was.

        Raises:
            PoisonError: it cannot be accepted.
            UnavailableError: not now.
        """
        app = await application_of(self._directory, organisation, event)
        try:
            acceptance = await self._acceptor.accept(candidate_of(self._directory, app, event))
        except UnstorableError as error:
            raise PoisonError(str(error), org=organisation.id, app=app.id) from None
        if isinstance(acceptance, Forbidden):
            raise PoisonError(str(acceptance.error.detail), org=organisation.id, app=app.id)
        if isinstance(acceptance, Violating):
            reason = f"the schema of {event.type} is violated: {told(acceptance.violations)}"
            raise PoisonError(reason, org=organisation.id, app=app.id)


def _read(incoming: Incoming, organisation: RegistryObject) -> list[carried.Carried]:
    if incoming.properties.content_encoding:
        raise PoisonError("the content is encoded: send it plain", org=organisation.id)
    try:
        return carried.read(incoming.properties.content_type, incoming.headers, incoming.body)
    except MalformedCloudEventError as error:
        raise PoisonError(str(error), org=organisation.id) from None


def _offer(organisation: RegistryObject, found: carried.Carried) -> _Offer:
    judged: tuple[RegistryObject, CloudEvent] | PoisonError
    if isinstance(found.event, MalformedCloudEventError):
        judged = PoisonError(str(found.event), org=organisation.id)
    else:
        judged = organisation, found.event
    return _Offer(judged=judged, content_type=found.content_type, body=found.body)
