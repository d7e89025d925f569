"""Looking through the dead letters, sending them again, dropping them.

They are taken from their queue, not acknowledged, and given back when all have been seen; should this process die, the
broker puts them back when the connection closes. A quorum queue puts them behind what was not taken, so all are taken,
and shown by the time at which they were put aside. While somebody looks, others see only what has come since.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from yarl import URL

from libs.common.rabbitmq.connection import CONNECTION_ERRORS, BrokerUnavailableError, connect
from libs.common.rabbitmq.dead_letters import DeadLetter, NowhereError, read, redriven
from libs.common.rabbitmq.topology import Names

ANSWER_SECONDS: Final = 10.0
_LOOK_AGAIN_SECONDS: Final = 0.01
_LOOKS: Final = 200
"""For two seconds: whoever has taken them by then will give them back."""
_DEFAULT_USER: Final = "guest"
_ALL_OUTSTANDING: Final = 0
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

Say = Callable[[str], None]


class DeadLetters:
    """The dead letters of one platform.

    Args:
        connection: to its broker.
        channel: on which they are looked through.
        names: its exchanges and queues.
        user: the broker's, that the connection is under.
    """

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, names: Names, user: str) -> None:
        self._connection = connection
        self._channel = channel
        self._names = names
        self._user = user

    async def oldest(self, most: int) -> tuple[list[DeadLetter], int]:
        """The oldest, without their bodies, and how many there are in all."""
        letters = [replace(letter, body=b"") async for _, letter in self._waiting()]
        letters.sort(key=lambda letter: letter.at or _LONG_AGO)
        return letters[:most], len(letters)

    async def find(self, identity: str) -> DeadLetter | None:
        """The one with that id."""
        found = None
        async for _, letter in self._waiting():
            if letter.id == identity:
                found = letter
        return found

    async def redrive(self, wanted: Collection[str] | None, say: Say) -> bool:
        """Send those with these ids again, or all; whether all of them went.

        Each is removed when the broker has confirmed the one that was sent: it may come twice, and is never lost.
        """
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        left = set(wanted or ())
        complete = True
        async for message, letter in self._waiting():
            if wanted is not None and letter.id not in left:
                continue
            left.discard(letter.id)
            try:
                exchange, routing_key, again = redriven(letter, self._names, self._user)
                target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
                await target.publish(again, routing_key, mandatory=True, timeout=ANSWER_SECONDS)
            except NowhereError as error:
                say(f"{letter.id} stays: {error}")
                complete = False
            except aiormq.exceptions.ChannelNotFoundEntity as error:
                # That closes the channel; and what one letter misses, the next one does too.
                raise BrokerUnavailableError(
                    f"there is no exchange {self._names.redrive}: start a service, which declares it"
                ) from error
            except aiormq.exceptions.PublishError:
                say(f"{letter.id} stays: there is no queue {letter.queue} any more")
                complete = False
            else:
                await message.ack()
                say(f"{letter.id} sent again to {letter.queue}")
        return _all_found(left, say) and complete

    async def drop(self, wanted: Collection[str], say: Say) -> bool:
        """Remove those with these ids for good; whether all of them were there."""
        left = set(wanted)
        async for message, letter in self._waiting():
            if letter.id in left:
                left.discard(letter.id)
                await message.ack()
                say(f"{letter.id} dropped")
        return _all_found(left, say)

    async def _waiting(self) -> AsyncIterator[tuple[AbstractIncomingMessage, DeadLetter]]:
        """What is there now: what comes meanwhile, such as one that dies again, is not taken."""
        dead = await self._dead()
        kept = 0
        for _ in range(dead.declaration_result.message_count or 0):
            message = await dead.get(fail=False, timeout=ANSWER_SECONDS)
            if message is None:
                break
            yield message, read(message, self._names, self._user)
            kept += not message.processed
        if kept:
            await self._give_back(kept)

    async def _give_back(self, count: int) -> None:
        """Put back what was taken, and wait until the next one who looks will see it.

        A quorum queue takes it back after the broker has answered whatever comes behind the request, the end of the
        connection too. The wait is bounded, since somebody else may take it at once.
        """
        channel = await self._channel.get_underlay_channel()
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.basic_nack(_ALL_OUTSTANDING, multiple=True, requeue=True)
        for _ in range(_LOOKS):
            if ((await self._dead()).declaration_result.message_count or 0) >= count:
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _dead(self) -> AbstractQueue:
        return await self._channel.declare_queue(self._names.dead, passive=True, timeout=ANSWER_SECONDS)


@asynccontextmanager
async def dead_letters_of(url: str, names: Names) -> AsyncIterator[DeadLetters]:
    """The dead letters of the platform whose names these are.

    Raises:
        BrokerUnavailableError: the broker does not answer, or nothing was declared there yet.
        BrokerRefusedError: the URL cannot be used.
    """
    connection = await connect(url, "hookledger dead-letter")
    try:
        yield DeadLetters(connection, await connection.channel(), names, URL(url).user or _DEFAULT_USER)
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        raise BrokerUnavailableError(
            f"there is no queue {names.dead}: check HOOKLEDGER_AMQP_PREFIX, or start a service, which declares it"
        ) from error
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailableError(f"RabbitMQ: {error or 'no answer'}") from error
    finally:
        await connection.close()


def _all_found(left: Collection[str], say: Say) -> bool:
    for identity in sorted(left):
        say(f"{identity} is no dead letter")
    return not left
