"""What producers publish to the broker: CloudEvents, committed before they are acknowledged.

While Postgres is away a message is held unacknowledged and tried again, never sent back: a message that goes to and fro
would use up its delivery limit. A message that cannot be accepted goes to the dead letters with its reason, and those
behind it flow.
"""

import asyncio
import re
from typing import Any, Final
from uuid import UUID

from aio_pika.abc import AbstractIncomingMessage

from libs.common.contracts import cloudevents
from libs.common.contracts.registry import RegistryObject
from libs.common.domain.facts import Origin
from libs.common.domain.message import JSON, MAX_BODY_BYTES
from libs.common.rabbitmq.broker import Broker, BrokerUnavailableError
from libs.common.runtime.http import ApiError
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.ingress import metrics
from services.ingress.accept import Acceptor, UnavailableError, UnstorableError
from services.ingress.candidate import Candidate, Forbidden, KeyKind, claim
from services.ingress.directory import Directory
from services.ingress.rejections import Rejection, Rejections, kept_headers

_LOG: Final = logger("broker_in")
PREFETCH: Final = 128
REASON: Final = "x-hookledger-reason"
USER: Final = "x-hookledger-user"
ROUTING_KEY: Final = "x-hookledger-routing-key"
APPLICATION: Final = "hookledgerapp"
FIRST_BACKOFF_SECONDS: Final = 0.1
LONGEST_BACKOFF_SECONDS: Final = 5.0
# Room for the attributes, and for data in base64, which is a third longer.
MAX_EVENT_BYTES: Final = 2 * MAX_BODY_BYTES
_NO_CONTENT_TYPE: Final = "application/octet-stream"
_LONGEST_REASON: Final = 500
_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_CONTENT_TYPE: Final = re.compile(r"[!-~]+/[ -~]{1,255}")


class PoisonError(Exception):
    """A message that will not be accepted however often it comes. The producer erred; the text says how.

    Args:
        reason: for whoever looks at the dead letters.
        org: its organisation, where that is known.
        app: its application, where that is known.
    """

    def __init__(self, reason: str, *, org: UUID | None = None, app: UUID | None = None) -> None:
        super().__init__(reason)
        self.org = org
        self.app = app


class BrokerIn:
    """The consumer of producers' messages."""

    def __init__(self, broker: Broker, acceptor: Acceptor, directory: Directory, rejections: Rejections) -> None:
        self._broker = broker
        self._acceptor = acceptor
        self._directory = directory
        self._rejections = rejections
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_hand = 0

    async def handle(self, incoming: AbstractIncomingMessage) -> None:
        """Accept one message and acknowledge it, or park it with its reason."""
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

    async def _settle(self, incoming: AbstractIncomingMessage) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                try:
                    await self._accept(incoming)
                except PoisonError as poison:
                    await self._park(incoming, poison)
            except (UnavailableError, BrokerUnavailableError) as error:
                _LOG.warning("broker_in.held", reason=str(error), retry_seconds=backoff)
                if await set_within(self._stopping, backoff) or incoming.channel.is_closed:
                    return
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            else:
                await incoming.ack()
                return

    async def _accept(self, incoming: AbstractIncomingMessage) -> None:
        """Commit the message, or see that an earlier one was.

        Raises:
            PoisonError: it cannot be accepted.
            UnavailableError: not now.
        """
        organisation = await self._organisation(incoming.user_id)
        try:
            event = _decode(incoming)
        except cloudevents.MalformedCloudEventError as error:
            raise PoisonError(str(error), org=organisation.id) from None
        app = await self._application(organisation, event)
        try:
            candidate = self._candidate(organisation, app, event)
            acceptance = await self._acceptor.accept(candidate)
        except (cloudevents.MalformedCloudEventError, UnstorableError) as error:
            raise PoisonError(str(error), org=organisation.id, app=app.id) from None
        if isinstance(acceptance, Forbidden):
            raise PoisonError(str(acceptance.error.detail), org=organisation.id, app=app.id)

    async def _organisation(self, user: str | None) -> RegistryObject:
        """The organisation that the broker's user publishes for: the broker vouches for it, the content does not."""
        if not user:
            raise PoisonError("user_id is missing: the producer must set it to its own user of the broker")
        found = self._directory.snapshot.organisation_of(user)
        if found is None:
            await self._directory.refresh()
            found = self._directory.snapshot.organisation_of(user)
        if found is None:
            raise PoisonError("no organisation has this user of the broker")
        return found

    async def _application(self, organisation: RegistryObject, event: cloudevents.CloudEvent) -> RegistryObject:
        named = event.extensions.get(APPLICATION)
        if not named:
            raise PoisonError(f"the extension attribute {APPLICATION} is missing", org=organisation.id)
        app = await self._directory.fresh_application(organisation.id, named)
        if app is None:
            raise PoisonError(f"the organisation has no application that {APPLICATION} names", org=organisation.id)
        return app

    def _candidate(self, organisation: RegistryObject, app: RegistryObject, event: cloudevents.CloudEvent) -> Candidate:
        if not _EVENT_TYPE.fullmatch(event.type):
            raise cloudevents.MalformedCloudEventError(
                "the type is not 1 to 256 letters, digits, full stops, hyphens or underscores"
            )
        if event.data is None:
            raise cloudevents.MalformedCloudEventError("the event has no data")
        if len(event.data) > MAX_BODY_BYTES:
            raise cloudevents.MalformedCloudEventError(f"the data is larger than {MAX_BODY_BYTES} bytes")
        content_type = event.datacontenttype or JSON
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise cloudevents.MalformedCloudEventError("the datacontenttype is not a content type")

        def authorise() -> ApiError | None:
            if self._directory.owns(organisation.id, app.id):
                return None
            return ApiError(404, "the application was deleted")

        parts = event.source.encode(), event.id.encode()
        return Candidate(
            org=organisation.id,
            app=app.id,
            event_type=event.type,
            body=event.data,
            origin=Origin.BROKER,
            registry_version=self._directory.snapshot.version,
            authorise=authorise,
            content_type=content_type,
            publish=self._directory.publishes_accepted(app.id),
            claims=(claim(app.id, KeyKind.CLOUD_EVENT, parts, event.data),),
        )

    async def _park(self, incoming: AbstractIncomingMessage, poison: PoisonError) -> None:
        """Publish the message to the dead letters, with the reason.

        Raises:
            BrokerUnavailableError: whether it is there is not known.
        """
        reason = str(poison)[:_LONGEST_REASON]
        headers: dict[str, Any] = {name: _passable(value) for name, value in incoming.headers.items()}
        headers |= {REASON: reason, USER: incoming.user_id or "", ROUTING_KEY: incoming.routing_key or ""}
        await self._broker.publish(
            self._broker.names.dead,
            incoming.body,
            content_type=incoming.content_type or _NO_CONTENT_TYPE,
            headers=headers,
            mandatory=True,
        )
        metrics.REJECTED.labels(str(Origin.BROKER), "poison").inc()
        _LOG.warning("broker_in.parked", reason=reason, user=incoming.user_id)
        if poison.org is not None:
            self._rejections.keep(_rejection(incoming, poison, reason))


def _passable(value: Any) -> Any:
    """A header's value in a form that can be published again: bytes that are no text are spelled out."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(name): _passable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_passable(item) for item in value]
    return value


def _decode(incoming: AbstractIncomingMessage) -> cloudevents.CloudEvent:
    if len(incoming.body) > MAX_EVENT_BYTES:
        raise cloudevents.MalformedCloudEventError(f"the event is larger than {MAX_EVENT_BYTES} bytes")
    if incoming.content_encoding:
        raise cloudevents.MalformedCloudEventError("the content is encoded: send it plain")
    return cloudevents.decode(incoming.content_type, incoming.body)


def _rejection(incoming: AbstractIncomingMessage, poison: PoisonError, reason: str) -> Rejection:
    assert poison.org is not None
    told = [
        ("Content-Type", incoming.content_type or ""),
        (USER, incoming.user_id or ""),
        (ROUTING_KEY, incoming.routing_key or ""),
    ]
    return Rejection(
        org=poison.org,
        app=poison.app,
        source=None,
        origin=Origin.BROKER,
        status=422,
        reason=reason,
        headers=kept_headers(told),
        body=incoming.body,
        size=len(incoming.body),
    )
