"""What is said of a dead letter: by ingress or by the broker, and never by its sender."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from yarl import URL

from libs.common.rabbitmq import dead_letters
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import connected, raw_channel
from tests.support.patience import eventually

FORGED: dict[str, Any] = {"x-hookledger-user": "another", "x-hookledger-reason": "forged", "x-death": "forged"}


async def published(channel: AbstractChannel, names: Names, user: str) -> AbstractIncomingMessage:
    """A producer's message, as ingress takes it."""
    exchange = await channel.get_exchange(names.publish, ensure=False)
    message = aio_pika.Message(
        b"\xff",
        user_id=user,
        content_type="image/png",
        headers=FORGED | {"ce-id": bytearray(b"\xfe"), "ce-n": 7},
        message_id="m1",
        correlation_id="c1",
        expiration=60,
    )
    await exchange.publish(message, "order.paid", mandatory=True)
    return await taken(channel, names.publish_queue)


async def taken(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    """The first message of a queue, as soon as there is one: what is dead-lettered is a moment on its way."""
    found = await channel.get_queue(queue, ensure=False)
    message = await eventually(lambda: found.get(fail=False), lambda message: message is not None)
    assert message is not None
    return message


async def test_what_the_broker_puts_aside_is_its_users_whatever_its_headers_say(amqp: Amqp) -> None:
    names, user = Names(amqp.prefix), URL(amqp.url).user or ""
    async with connected(amqp), raw_channel(amqp) as channel:
        incoming = await published(channel, names, user)
        assert dead_letters.publisher_of(incoming, names) == user
        await incoming.reject(requeue=False)
        dead = await taken(channel, names.dead)
        letter = dead_letters.read(dead, names, user)
        await dead.ack()
    assert (letter.user, letter.queue, letter.reason) == (user, names.publish_queue, "rejected")
    assert letter.routing_key == "order.paid"
    assert letter.at is not None
    assert datetime.now(UTC) - letter.at < timedelta(minutes=1)
    assert letter.headers == {"ce-id": bytearray(b"\xfe"), "ce-n": 7}


async def test_what_is_sent_again_is_what_was_sent_and_still_its_users(amqp: Amqp) -> None:
    names, user = Names(amqp.prefix), URL(amqp.url).user or ""
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        incoming = await published(channel, names, user)
        await incoming.ack()
        parked = dead_letters.parked(
            incoming, names, reason="why", at=datetime.now(UTC), content_type="image/png", body=b"\xff"
        )
        await broker.send(names.dead, parked, mandatory=True)
        dead = await taken(channel, names.dead)
        letter = dead_letters.read(dead, names, user)
        await dead.nack(requeue=True)
        dead = await taken(channel, names.dead)
        assert dead_letters.read(dead, names, user).id == letter.id
        await dead.ack()
        assert (letter.reason, letter.user, letter.queue) == ("why", user, names.publish_queue)
        exchange, routing_key, again = dead_letters.redriven(letter, names, user)
        assert (exchange, routing_key) == (names.redrive, "order.paid")
        await (await channel.get_exchange(exchange, ensure=False)).publish(again, routing_key, mandatory=True)
        back = await taken(channel, names.publish_queue)
        await back.ack()
    assert dead_letters.publisher_of(back, names) == user
    assert (back.body, back.content_type, back.routing_key) == (b"\xff", "image/png", "order.paid")
    assert (back.message_id, back.correlation_id, back.expiration) == ("m1", "c1", None)
    own = {name: value for name, value in back.headers.items() if name.startswith("ce-")}
    assert own == {"ce-id": bytearray(b"\xfe"), "ce-n": 7}


async def test_what_was_sent_again_and_put_aside_by_the_broker_is_still_its_users(amqp: Amqp) -> None:
    names, user = Names(amqp.prefix), URL(amqp.url).user or ""
    async with connected(amqp), raw_channel(amqp) as channel:
        exchange = await channel.get_exchange(names.redrive, ensure=False)
        message = aio_pika.Message(b"", user_id=user, headers={"x-hookledger-user": "acme"})
        await exchange.publish(message, "order.paid", mandatory=True)
        await (await taken(channel, names.publish_queue)).reject(requeue=False)
        dead = await taken(channel, names.dead)
        letter = dead_letters.read(dead, names, user)
        await dead.ack()
    assert (letter.user, letter.queue, letter.routing_key) == ("acme", names.publish_queue, "order.paid")


async def test_nobody_makes_a_letter_anothers_by_inventing_its_death_before_the_broker_puts_it_aside(
    amqp: Amqp,
) -> None:
    names, platform = Names(amqp.prefix), "the platform's"
    async with connected(amqp), raw_channel(amqp) as channel:
        exchange = await channel.get_exchange(names.publish, ensure=False)
        death = {"exchange": names.redrive, "queue": names.publish_queue, "reason": "rejected", "count": 0}
        forged: dict[str, Any] = {"x-hookledger-user": "another", "x-death": [death]}
        await exchange.publish(aio_pika.Message(b"", headers=forged), "any", mandatory=True)
        await (await taken(channel, names.publish_queue)).reject(requeue=False)
        dead = await taken(channel, names.dead)
        letter = dead_letters.read(dead, names, platform)
        await dead.ack()
    assert letter.user == ""


@pytest.mark.parametrize("by", ["ingress", "the broker"])
async def test_nothing_is_believed_of_what_somebody_put_straight_into_the_queue(amqp: Amqp, by: str) -> None:
    names, user = Names(amqp.prefix), URL(amqp.url).user or ""
    forged: dict[str, Any] = {"x-hookledger-user": "another", "x-hookledger-reason": "forged"}
    if by == "the broker":
        forged["x-death"] = [{"exchange": names.redrive, "queue": names.publish_queue, "reason": "rejected"}]
    async with connected(amqp), raw_channel(amqp) as channel:
        message = aio_pika.Message(b"", user_id=user, headers=forged)
        await channel.default_exchange.publish(message, names.dead, mandatory=True)
        dead = await taken(channel, names.dead)
        letter = dead_letters.read(dead, names, user)
        await dead.ack()
    assert (letter.user, letter.queue, letter.reason) == ("", None, "")
    with pytest.raises(dead_letters.NowhereError):
        dead_letters.redriven(letter, names, user)
