"""Harm to RabbitMQ, and what is done by way of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel

from deploy.stack.rabbitmq import LocalRabbitMQ
from tests.faults.campaign.plan import Fault
from tests.faults.campaign.world import FIRM_SECONDS, World
from tests.support.broker import CLOUD_EVENT

POISON: Final = b'{"specversion": "1.0", "poison": true}'
SWALLOW_SECONDS: Final = 8.0
REACH_SECONDS: Final = 32.0
_BROKER: Final = "broker"
_ENOUGH_MEMORY: Final = ("set_vm_memory_high_watermark", "absolute", "1GiB")
_BROKER_ERRORS: Final = (OSError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError)


async def restart(world: World, _: Fault) -> bool:
    return await _at_the_broker(world, world.servers.broker.stop)


async def kill(world: World, fault: Fault) -> bool:
    def cut_off() -> None:
        world.servers.broker.kill()
        time.sleep(fault.lasts)

    return await _at_the_broker(world, cut_off)


async def wipe(world: World, _: Fault) -> bool:
    def lose_all() -> None:
        world.servers.broker.kill()
        world.servers.broker.wipe()

    wiped = await _at_the_broker(world, lose_all)
    world.firm_at = time.monotonic() + FIRM_SECONDS
    return wiped


async def _at_the_broker(world: World, harm: Callable[[], None]) -> bool:
    async with world.turn(_BROKER):
        await asyncio.sleep(max(0.0, world.firm_at - time.monotonic()))

        def down_and_up() -> None:
            harm()
            world.servers.broker.start()

        await asyncio.to_thread(down_and_up)
        world.retarget()
    return True


async def alarm(world: World, fault: Fault) -> bool:
    async with world.turn(_BROKER):
        await _control(world, "set_vm_memory_high_watermark", "0.00001")
        await asyncio.sleep(fault.lasts)
        await _control(world, *_ENOUGH_MEMORY)
    return True


async def drops(world: World, _: Fault) -> bool:
    async with world.turn(_BROKER):
        await _control(world, "close_all_connections", "the campaign says so")
    return True


async def _control(world: World, *words: str) -> None:
    broker = world.servers.broker
    assert isinstance(broker, LocalRabbitMQ), "the plan is made for the servers that there are"
    await asyncio.to_thread(broker.control, *words)


async def confirms_lost(world: World, fault: Fault) -> bool:
    confirms = world.confirms[fault.target]
    confirms.arm()
    await asyncio.sleep(fault.lasts)
    confirms.disarm()
    return confirms.swallowed.is_set()


async def unconfirmed_kill(world: World, fault: Fault) -> bool:
    """The broker has it, and whoever published it dies before it knows."""
    async with world.turn(fault.target):
        confirms = world.confirms[fault.target]
        confirms.arm()
        try:
            async with asyncio.timeout(SWALLOW_SECONDS):
                await confirms.swallowed.wait()
        except TimeoutError:
            return False
        finally:
            confirms.disarm()
        await world.kill(fault.target)
        await asyncio.sleep(fault.lasts)
        await world.start(fault.target)
    return True


async def queue_deleted(world: World, _: Fault) -> bool:
    async def delete(channel: AbstractChannel) -> bool:
        await channel.queue_delete(world.names.messages_queue)
        return True

    return await _with_the_broker(world, delete)


async def poison(world: World, _: Fault) -> bool:
    """What no consumer can read, in both of the ways in."""

    async def publish(channel: AbstractChannel) -> bool:
        message = aio_pika.Message(POISON, content_type=CLOUD_EVENT, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        for exchange, key in (
            (world.names.publish, "campaign"),
            (world.names.messages, world.names.messages_queue),
        ):
            found = await channel.get_exchange(exchange, ensure=False)
            await found.publish(message, key, mandatory=True, timeout=5)
        return True

    return await _with_the_broker(world, publish)


async def _with_the_broker(world: World, work: Callable[[AbstractChannel], Awaitable[bool]]) -> bool:
    """Do `work` at the broker as soon as it takes it."""
    async with asyncio.timeout(REACH_SECONDS):
        while True:
            try:
                return await world.on_broker(work)
            except _BROKER_ERRORS:
                await asyncio.sleep(0.3)
