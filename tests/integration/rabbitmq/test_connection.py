"""One connection that comes back, and what becomes of those who wait for an answer on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractChannel, AbstractConnection

from libs.common.rabbitmq.connection import LastingConnection
from tests.conftest import Amqp


async def one_channel(connection: AbstractConnection) -> Sequence[AbstractChannel]:
    return [await connection.channel()]


@asynccontextmanager
async def running(amqp: Amqp, opened: asyncio.Queue[None]) -> AsyncIterator[LastingConnection]:
    """A connection, once it is there."""
    connection = LastingConnection(amqp.url, "test", one_channel, lambda: opened.put_nowait(None))
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        group.create_task(connection.run())
        await opened.get()
        yield connection
        connection.close()


async def test_it_comes_back_when_it_is_given_up_while_a_deadline_has_passed_and_its_task_still_unwinds(
    amqp: Amqp,
) -> None:
    opened: asyncio.Queue[None] = asyncio.Queue()
    unwinding = asyncio.Event()
    async with running(amqp, opened) as connection:

        async def ask() -> bool:
            try:
                async with connection.within(0.01):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        unwinding.set()
                        await opened.get()
            except TimeoutError:
                return True
            return False

        asking = asyncio.create_task(ask())
        await unwinding.wait()
        connection.reopen("while it unwinds")
        assert await asking
        assert connection.ready
