"""The dispatcher as a process: it works, it stops without losing anything, and it can be killed."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aio_pika
import pytest

from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.ports import free_port
from deploy.stack.services import Service, environment
from libs.common.contracts import envelope
from libs.common.domain.message import Message
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.integration.dispatcher.world import MASTER_KEY, World, until
from tests.support.receiver import Receiver, Reply

OVERDUE = timedelta(seconds=10)


@pytest.fixture
def installation(tmp_path: Path, world: World, amqp: Amqp) -> Installation:
    """A Hookledger around the world's database."""
    corner = Isolation(database_url=world.url, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
    return Installation(folder=tmp_path, corner=corner, settings={"MASTER_KEY": MASTER_KEY})


async def test_envelopes_are_delivered_and_outcomes_told(
    world: World, installation: Installation, amqp: Amqp, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/hook", 500))
    async with running(installation.service("dispatcher")), await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        outcomes = await channel.declare_queue(exclusive=True)
        await outcomes.bind(Names(amqp.prefix).deliveries, "#")
        batch = await world.accept(app, 5)
        for _ in range(2):  # an envelope may come twice
            await _publish(channel, amqp, batch)
        assert await world.until_over(app, 5) == {"succeeded": 5}
        keys = [event.routing_key for event in await _take(outcomes, 6)]
    assert sorted(key or "" for key in keys) == ["attempt.failed", *["delivery.succeeded"] * 5]
    assert len(receiver.requests) == 6


async def test_a_malformed_envelope_is_parked_and_those_behind_it_are_delivered(
    world: World, installation: Installation, amqp: Amqp, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    names = Names(amqp.prefix)
    async with running(installation.service("dispatcher")), await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(names.messages)
        await exchange.publish(aio_pika.Message(b"\xc1 not msgpack"), routing_key=names.messages_queue)
        await _publish(channel, amqp, await world.accept(app, 3))
        assert await world.until_over(app, 3) == {"succeeded": 3}
        [message] = await _take(await channel.get_queue(names.dead), 1)
        assert message.body == b"\xc1 not msgpack"


async def test_a_stop_lets_what_is_under_way_end_and_leaves_the_rest_to_others(
    world: World, installation: Installation, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/hook", then=Reply(delay=1.0)))
    dispatcher = installation.service("dispatcher", settings={"MAX_CONCURRENCY": "8"})
    async with running(dispatcher):
        await world.accept(app, 20, overdue=OVERDUE)
        await receiver.wait_for(4)
        await asyncio.to_thread(dispatcher.stop)
        sent = len(receiver.requests)
        statuses = await world.statuses(app)
    assert statuses == {"succeeded": sent, "waiting": 20 - sent}
    assert 8 <= sent < 20
    assert await world.owner.fetchval("SELECT count(*) FROM hookledger.process") == 0
    async with running(installation.service("dispatcher", replica="2")):
        assert await world.until_over(app, 20) == {"succeeded": 20}
    assert len(receiver.requests) == 20


async def test_what_a_killed_process_had_in_flight_moves_to_another_within_seconds(
    world: World, installation: Installation, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/hook", *[Reply(hang=True)] * 8))
    first, second = (installation.service("dispatcher", replica=name) for name in ("1", "2"))
    async with running(first):
        await world.accept(app, 30, overdue=OVERDUE)
        await receiver.wait_for(8)
        await asyncio.to_thread(first.kill)
    async with running(second):
        assert await world.until_over(app, 30) == {"succeeded": 30}
    # The receiver saw each message, and each request that it saw is a send in the ledger.
    assert len({request.id for request in receiver.requests}) == 30
    sends = await world.owner.fetchval("SELECT sum(sends) FROM projection_1.attempt WHERE app = $1", app)
    assert len(receiver.requests) <= sends


async def test_without_a_broker_it_starts_and_delivers_from_postgres(
    world: World, installation: Installation, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    absent = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    dispatcher = installation.service("dispatcher", settings={"AMQP_URL": absent})
    async with running(dispatcher, ready=False):
        await world.accept(app, 5, overdue=OVERDUE)
        assert await world.until_over(app, 5) == {"succeeded": 5}


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x", "Postgres cannot be reached"),
        ("MASTER_KEY", "c2hvcnQ=", "HOOKLEDGER_MASTER_KEY: each master key is"),
        ("MAX_CONCURRENCY", "many", "HOOKLEDGER_MAX_CONCURRENCY"),
        ("ALLOW_NETWORKS", "10.0.0.0/99", "HOOKLEDGER_ALLOW_NETWORKS"),
        ("MAX_CONCURENCY", "8", "HOOKLEDGER_MAX_CONCURENCY is not a setting"),
    ],
)
async def test_what_the_operator_has_to_mend_is_one_clear_line_and_exit_2(
    installation: Installation, setting: str, value: str, line: str
) -> None:
    settings = dict(installation.service("dispatcher").settings) | {setting: value, "HOST": "127.0.0.1", "PORT": "0"}
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.dispatcher"],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("hookledger-dispatcher: ")
    assert line in ended.stderr
    assert ended.stderr.count("\n") == 1


@asynccontextmanager
async def running(service: Service, *, ready: bool = True) -> AsyncIterator[None]:
    """The process, ready; stopped at the end, if it still runs."""
    service.start()
    try:
        if ready:
            await asyncio.to_thread(service.wait_ready)
        yield
    finally:
        await asyncio.to_thread(service.stop)


async def _publish(channel: aio_pika.abc.AbstractChannel, amqp: Amqp, batch: list[Message]) -> None:
    names = Names(amqp.prefix)
    exchange = await channel.get_exchange(names.messages)
    message = aio_pika.Message(envelope.encode(batch), content_type=envelope.CONTENT_TYPE)
    await exchange.publish(message, routing_key=names.messages_queue)


async def _take(queue: aio_pika.abc.AbstractQueue, count: int) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """So many messages of a queue, as soon as they are there."""

    async def next_one() -> aio_pika.abc.AbstractIncomingMessage | None:
        return await queue.get(fail=False, no_ack=True)

    return [await until(next_one, f"{count} messages") for _ in range(count)]
