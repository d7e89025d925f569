"""The story that lists of attempts are asked about: three messages at four endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from svix.api import (
    ApplicationIn,
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageAttemptOut,
    MessageIn,
    MessageOut,
    SvixAsync,
)
from svix.models import EndpointOut, MessageStatus

from tests.support.client import Client
from tests.support.patience import eventually
from tests.support.receiver import Receiver, Reply

SUCCESS, PENDING = MessageStatus.SUCCESS, MessageStatus.PENDING
FAIL, SENDING = MessageStatus.FAIL, MessageStatus.SENDING

REPLIES = {
    "good": Reply(body=b"thank you"),
    "refusing": Reply(status=400, body=b"no"),
    "overloaded": Reply(status=503),
    "silent": Reply(reset=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """An application's messages, the oldest first, and its endpoints by how they answer, each with an attempt at each.

    After a failure that is worth a retry, the retry is an hour away.
    """

    svix: SvixAsync
    app: str
    messages: Sequence[MessageOut]
    endpoints: dict[str, EndpointOut]

    async def at(self, name: str, **options: Any) -> list[MessageAttemptOut]:
        """The attempts at an endpoint."""
        wanted = MessageAttemptListByEndpointOptions(**options)
        return (await self.svix.message_attempt.list_by_endpoint(self.app, self.endpoints[name].id, wanted)).data

    async def of(self, message: int, **options: Any) -> list[MessageAttemptOut]:
        """The attempts of a message."""
        wanted = MessageAttemptListByMsgOptions(**options)
        return (await self.svix.message_attempt.list_by_msg(self.app, self.messages[message].id, wanted)).data

    async def attempted(self, name: str, **options: Any) -> list[int]:
        """Which messages went to an endpoint."""
        wanted = MessageAttemptListAttemptedMessagesOptions(**options)
        endpoint = self.endpoints[name].id
        found = (await self.svix.message_attempt.list_attempted_messages(self.app, endpoint, wanted)).data
        return self.numbers([item.id for item in found])

    def numbers(self, ids: Sequence[str]) -> list[int]:
        """Messages by their place in the story."""
        return [[message.id for message in self.messages].index(each) for each in ids]

    def names(self, attempts: Sequence[MessageAttemptOut]) -> set[str]:
        """The endpoints of attempts."""
        by_id = {endpoint.id: name for name, endpoint in self.endpoints.items()}
        return {by_id[attempt.endpoint_id] for attempt in attempts}


async def tell(svix: SvixAsync, client: Client, receiver: Receiver) -> Story:
    """The story, once all its attempts have ended."""
    app = (await svix.application.create(ApplicationIn(name="story"))).id
    endpoints = {}
    for name, reply in REPLIES.items():
        url = receiver.script(f"/{name}", then=reply)
        made = await client.create_endpoint(app, url, uid=name, retrySchedule=[3600])
        endpoints[name] = await svix.endpoint.get(app, made.id)
    messages = []
    for number, (event_type, channels) in enumerate(
        [("order.new", ["eu"]), ("order.paid", ["eu", "us"]), ("order.sent", None)], start=1
    ):
        wanted = MessageIn(event_type=event_type, event_id=f"e-{number}", channels=channels, payload={"n": number})
        message = await svix.message.create(app, wanted)
        messages.append(message)
        await eventually(
            partial(svix.message_attempt.list_by_msg, app, message.id),
            lambda page: sum(attempt.status is not SENDING for attempt in page.data) == len(REPLIES),
        )
    return Story(svix=svix, app=app, messages=messages, endpoints=endpoints)
