"""One connection that comes back, and what becomes of those who wait for an answer on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection

from libs.common.rabbitmq.connection import GiveUp, LastingConnection, Open
from libs.common.rabbitmq.wire import Wire
from tests.conftest import Amqp


async def one_channel(connection: AbstractConnection, _: Wire, __: GiveUp) -> Sequence[AbstractChannel]:
    return [await connection.channel()]


@asynccontextmanager
async def running(
    amqp: Amqp, opened: asyncio.Queue[None], open_channels: Open = one_channel
) -> AsyncIterator[LastingConnection]:
    """A connection, once it is there."""
    connection = LastingConnection(amqp.url, "test", open_channels, lambda: opened.put_nowait(None))
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


async def test_an_answer_that_is_called_off_is_an_error_of_the_connection_and_no_cancellation() -> None:
    connection = LastingConnection("amqp://nowhere", "test", one_channel, lambda: None)
    called_off = asyncio.get_running_loop().create_future()
    called_off.set_exception(asyncio.CancelledError())  # as aiormq does when its heartbeat gives up
    with pytest.raises(ConnectionAbortedError):
        async with connection.within(5):
            await called_off


async def test_who_is_cancelled_while_waiting_for_an_answer_ends_as_cancelled() -> None:
    connection = LastingConnection("amqp://nowhere", "test", one_channel, lambda: None)

    async def ask() -> None:
        async with connection.within(5):
            await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def test_a_deadline_is_a_deadline_whatever_it_interrupts() -> None:
    connection = LastingConnection("amqp://nowhere", "test", one_channel, lambda: None)
    with pytest.raises(TimeoutError):
        async with connection.within(0):
            await asyncio.Event().wait()


async def test_an_end_that_is_told_late_gives_up_its_own_connection_and_no_later_one(amqp: Amqp) -> None:
    told: list[GiveUp] = []

    async def open_channels(connection: AbstractConnection, wire: Wire, give_up: GiveUp) -> Sequence[AbstractChannel]:
        told.append(give_up)
        return await one_channel(connection, wire, give_up)

    opened: asyncio.Queue[None] = asyncio.Queue()
    async with running(amqp, opened, open_channels) as connection:
        told[0]("at first")
        await opened.get()
        told[0]("late")
        assert not connection._gone.is_set()
        told[1]("in its turn")
        await opened.get()
