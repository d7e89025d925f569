"""Forwarding the messages of a feed to a server of the developer's, signed, and telling what it answers."""

import asyncio
import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from libs.common.domain.signatures import standard
from libs.common.runtime import clock
from services.admin.feed import Api, Feed, FeedAwayError, Item, Items

Say = Callable[[str], None]
ANSWER_SECONDS: Final = 30.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
EMPTY_PAUSE: Final = 1.0
"""After an empty answer that came at once: so many listen that nobody may wait."""
USER_AGENT: Final = "Hookledger-listen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The developer's server, and the key (24 to 64 bytes) that its requests are signed with."""

    url: str
    key: bytes


class Listener:
    """Forwards message by message, in the order of their commits.

    Attributes:
        reached: the iterator behind the last message that was forwarded.
    """

    def __init__(self, session: aiohttp.ClientSession, api: Api, feed: Feed, target: Target, say: Say) -> None:
        self._session = session
        self._api = api
        self._feed = feed
        self._target = target
        self._say = say
        self.reached: str | None = None

    async def begin(self, iterator: str | None) -> None:
        """Take up the place of the iterator, or now.

        Raises:
            FeedError: the platform refuses.
            FeedAwayError: it does not answer.
        """
        self.reached = iterator or (await self._api.after(self._feed, None)).iterator

    async def run(self) -> None:
        """Forward until cancelled; a platform that is away is asked again, from where this has come to.

        Raises:
            FeedError: the platform refuses.
        """
        while True:
            asked = clock.monotonic()
            items = await self._next()
            for item in items.data:
                await self._forward(item)
                self.reached = item.iterator
            self.reached = items.iterator
            if not items.data and clock.monotonic() - asked < EMPTY_PAUSE:
                await asyncio.sleep(EMPTY_PAUSE)

    async def _next(self) -> Items:
        failures = 0
        while True:
            try:
                items = await self._api.after(self._feed, self.reached)
            except FeedAwayError as away:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures)
                self._say(f"{_time()}  {away}; trying again in {pause:g} s")
                await asyncio.sleep(pause)
                failures += 1
            else:
                if failures:
                    self._say(f"{_time()}  listening again")
                return items

    async def _forward(self, item: Item) -> None:
        began = clock.monotonic()
        came = await self._post(item)
        took = (clock.monotonic() - began) * 1000
        self._say(f"{_time()}  {item.event_type}  {item.id}  {came}  {took:.0f} ms")

    async def _post(self, item: Item) -> str:
        """What came of it: the status, or in words why there is none."""
        if item.body_base64 is None:
            return "not sent: its payload was erased"
        body = base64.b64decode(item.body_base64)
        headers = {"Content-Type": item.content_type, "User-Agent": USER_AGENT}
        timestamp = math.floor(clock.now().timestamp())
        headers |= standard.headers([self._target.key], message_id=item.id, timestamp=timestamp, body=body)
        try:
            async with self._session.post(
                self._target.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            ) as response:
                return str(response.status)
        except TimeoutError:
            return f"no answer within {ANSWER_SECONDS:.0f} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"no answer: {str(error) or type(error).__name__}"


def _time() -> str:
    return f"{clock.now().astimezone():%H:%M:%S}"
