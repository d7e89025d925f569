"""The broker connection: what is declared, what a confirm means, and how it comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import aio_pika
import aiormq
import pytest
from aiormq.exceptions import AMQPConnectionError
from msgspec.structs import replace
from yarl import URL

from deploy.stack.ports import free_port
from libs.common.rabbitmq import frames
from libs.common.rabbitmq.broker import Broker, Published
from libs.common.rabbitmq.connection import BrokerRefusedError, BrokerUnavailableError
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.publishing import MOST_BYTES, MOST_MESSAGES, Outgoing, bursts
from libs.common.rabbitmq.topology import DELIVERY_LIMIT, Names
from libs.common.rabbitmq.wire import Wire
from libs.common.runtime.clock import random_bytes
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import cable, connected, raw_channel
from tests.support.certificates import write_certificate

Handle = Callable[[Incoming], Awaitable[None]]


async def test_everything_is_declared_and_declaring_it_again_changes_nothing(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    async with connected(amqp), connected(amqp), raw_channel(amqp) as channel:
        for exchange in (
            *(names.publish, names.messages, names.registry, names.deliveries, names.accepted, names.dead),
        ):
            await channel.get_exchange(exchange, ensure=True)
        for queue in (names.publish_queue, names.messages_queue, names.dead):
            declared = await channel.declare_queue(queue, passive=True)
            assert declared.declaration_result.message_count == 0


async def test_what_is_published_is_persistent_and_arrives_as_it_is(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[Incoming] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        message.ack()
        await got.put(message)

    async with connected(amqp, Consumer(handle=handle, queue=names.messages_queue)) as broker:
        await broker.publish(
            names.messages,
            b"\0\xff",
            routing_key=names.messages_queue,
            content_type="application/octet-stream",
            mandatory=True,
        )
        message = await asyncio.wait_for(got.get(), 5)
    assert (message.body, message.properties.content_type) == (b"\0\xff", "application/octet-stream")
    assert message.properties.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


@pytest.mark.parametrize("size", [0, 1, 131072 - 8, 131072, 1024 * 1024])
async def test_a_message_of_any_size_arrives_whole(amqp: Amqp, size: int) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        message.ack()
        await got.put(message.body)

    body = random_bytes(size)
    async with connected(amqp, Consumer(handle=handle, queue=names.messages_queue)) as broker:
        for _ in range(2):
            await _publish(broker, body)
            assert await asyncio.wait_for(got.get(), 5) == body


async def test_a_mandatory_message_that_nobody_would_get_raises_and_those_beside_it_do_not(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    nowhere, queue = "nowhere", names.messages_queue
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        results = await asyncio.gather(
            *(
                broker.publish(names.messages, b"body", routing_key=key, content_type="x/x", mandatory=True)
                for key in (queue, nowhere, queue, nowhere, queue)
            ),
            return_exceptions=True,
        )
        assert [isinstance(result, Exception) for result in results] == [False, True, False, True, False]
        assert [type(result) for result in results[1::2]] == [BrokerUnavailableError] * 2
        await (await channel.get_queue(queue, ensure=False)).purge()
        # Where consumers are optional, nobody has to listen.
        await broker.publish(names.accepted, b"", routing_key="order.completed", content_type="x/x")


async def test_a_message_with_a_routing_key_that_is_no_text_is_taken_like_any_other(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[Incoming] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        message.ack()
        await got.put(message)

    async with connected(amqp) as broker:
        publisher, heads = broker._publisher, frames.plain_heads(1, names.publish, "gr..e", "x/x", mandatory=False)
        assert publisher is not None
        latin = replace(heads, method=heads.method.replace(b"..", "öß".encode("latin-1")))
        written = b"".join(frames.publication(latin, b"", b"body", number=1, most=MOST_BYTES))
        await publisher._write(written, 1, {})
    async with connected(amqp, Consumer(handle=handle, queue=names.publish_queue)) as broker:
        message = await asyncio.wait_for(got.get(), 5)
        assert (message.body, message.routing_key) == (b"body", "gr\ufffd\ufffde")
        assert broker.ready


async def test_over_tls_it_publishes_and_consumes_from_a_server_whose_certificate_is_trusted(
    amqp: Amqp, tmp_path: Path
) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        message.ack()
        await got.put(message.body)

    certificate, other = tmp_path / "server.pem", tmp_path / "other.pem"
    write_certificate(certificate)
    write_certificate(other)
    async with cable(amqp, certificate=certificate) as line:
        async with connected(line.amqp, Consumer(handle=handle, queue=names.messages_queue)) as broker:
            await _publish(broker, b"encrypted")
            assert await asyncio.wait_for(got.get(), 5) == b"encrypted"
        url = URL(line.amqp.url).update_query(cafile=str(other))
        with pytest.raises(AMQPConnectionError, match="certificate"):
            await aiormq.connect(url, transport_factory=Wire())


async def test_an_announcement_reaches_every_process(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    heard: asyncio.Queue[str] = asyncio.Queue()

    def listener(name: str) -> Consumer:
        async def handle(message: Incoming) -> None:
            message.ack()
            await heard.put(name)

        return Consumer(handle=handle, exchange=names.registry)

    async with connected(amqp, listener("a")) as broker, connected(amqp, listener("b")):
        await broker.publish(names.registry, b"{}", content_type="application/json")
        assert {await asyncio.wait_for(heard.get(), 5) for _ in range(2)} == {"a", "b"}


async def test_many_are_published_at_once_in_their_order_each_one_confirmed(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    count = MOST_MESSAGES + 100
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(names.deliveries, "delivery.*")
        messages = [Outgoing(routing_key="delivery.succeeded", body=b"%d" % number) for number in range(count)]
        await asyncio.gather(
            broker.publish_many(names.deliveries, messages, content_type="x/x"),
            *(broker.publish(names.accepted, b"", routing_key="among.them", content_type="x/x") for _ in range(5)),
        )
        got = [await queue.get(no_ack=True) for _ in range(count)]
    assert [message.body for message in got] == [message.body for message in messages]
    assert {message.delivery_mode for message in got} == {aio_pika.DeliveryMode.PERSISTENT}


async def test_whoever_publishes_many_learns_which_routing_keys_nobody_listens_for(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    async with connected(amqp) as broker, raw_channel(amqp) as channel:

        async def told(*routing_keys: str) -> Published:
            messages = [Outgoing(routing_key=key, body=b"") for key in routing_keys]
            return await broker.publish_many(names.deliveries, messages, content_type="x/x", asking=True)

        assert await told() == Published(count=0, unheard=frozenset())
        assert await told("a", "b", "a") == Published(count=3, unheard=frozenset("ab"))
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(names.deliveries, "a")
        assert await told("b", "a", "b", "a") == Published(count=4, unheard=frozenset("b"))
        got = [await queue.get(no_ack=True) for _ in range(2)]
        assert [message.routing_key for message in got] == ["a", "a"]
        await queue.unbind(names.deliveries, "a")
        await queue.bind(names.deliveries, "b")
        assert await told(*["a"] * MOST_MESSAGES, *["b"] * MOST_MESSAGES) == Published(
            count=2 * MOST_MESSAGES, unheard=frozenset("a")
        )


def test_a_burst_is_bounded_in_number_and_in_bytes() -> None:
    small = [Outgoing(routing_key="", body=b"x")] * (MOST_MESSAGES + 1)
    assert [len(burst) for burst in bursts(small)] == [MOST_MESSAGES, 1]
    large = [Outgoing(routing_key="", body=bytes(MOST_BYTES // 2 + 1))] * 3
    assert [len(burst) for burst in bursts(large)] == [1, 1, 1]
    assert list(bursts([])) == []


async def test_a_burst_that_the_connection_breaks_under_raises_and_the_next_one_goes_through(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    back: asyncio.Queue[None] = asyncio.Queue()

    async def on_connected() -> None:
        await back.put(None)

    messages = [Outgoing(routing_key="delivery.succeeded", body=bytes(2000))] * MOST_MESSAGES
    async with cable(amqp) as line, connected(line.amqp, then=on_connected) as broker:
        publishing = asyncio.create_task(broker.publish_many(names.deliveries, messages, content_type="x/x"))
        await asyncio.sleep(0)
        line.cut()
        with pytest.raises(BrokerUnavailableError):
            await publishing
        await asyncio.wait_for(back.get(), 10)
        await broker.publish_many(names.deliveries, messages, content_type="x/x")
        await _publish_nowhere(broker)


async def test_what_the_broker_refuses_raises_and_what_comes_after_it_is_confirmed(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        full = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await full.bind(names.deliveries, "#")
        messages = [Outgoing(routing_key="delivery.succeeded", body=b"")] * 5
        with pytest.raises(BrokerUnavailableError, match="refused"):
            await broker.publish_many(names.deliveries, messages, content_type="x/x")
        await full.unbind(names.deliveries, "#")
        await broker.publish_many(names.deliveries, messages, content_type="x/x")


async def test_what_the_broker_refuses_says_nothing_of_what_was_published_before_it(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        full = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        await full.bind(names.deliveries, "#")
        queue = names.messages_queue  # it is durable, so that its confirm comes later than the refusal
        *taken, refused = await asyncio.gather(
            *(broker.publish(names.messages, b"", routing_key=queue, content_type="x/x") for _ in range(5)),
            broker.publish(names.deliveries, b"", routing_key="any", content_type="x/x"),
            return_exceptions=True,
        )
        assert not any(isinstance(result, BaseException) for result in taken)
        assert isinstance(refused, BrokerUnavailableError)
        await (await channel.get_queue(queue, ensure=False)).purge()


async def test_a_burst_whose_publisher_is_cancelled_leaves_the_confirms_of_others_alone(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    messages = [Outgoing(routing_key="delivery.succeeded", body=b"")] * MOST_MESSAGES
    async with connected(amqp) as broker:
        publishing = asyncio.create_task(broker.publish_many(names.deliveries, messages, content_type="x/x"))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        assert publishing.cancelled()
        await _publish_nowhere(broker)
        await broker.publish_many(names.deliveries, messages, content_type="x/x")
        assert broker._publisher is not None
        assert not broker._publisher._waiting


async def test_publishing_without_a_broker_fails_fast() -> None:
    broker = Broker(f"amqp://guest:guest@127.0.0.1:{free_port()}/", Names("absent"), "test")
    running = asyncio.create_task(broker.run())
    await asyncio.sleep(0.05)  # it has tried, and failed
    began = monotonic()
    with pytest.raises(BrokerUnavailableError):
        await broker.publish("absent.messages", b"", content_type="x/x")
    assert monotonic() - began < 2
    assert not broker.ready
    broker.close()
    await asyncio.wait_for(running, 2)


async def test_at_start_an_absent_broker_and_a_wrong_url_are_told_apart(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    with pytest.raises(BrokerUnavailableError, match="HOOKLEDGER_AMQP_URL"):
        await Broker(f"amqp://guest:guest@127.0.0.1:{free_port()}/", names, "test").check()
    wrong = amqp.url.rpartition("@")[2]
    with pytest.raises(BrokerRefusedError, match="refuses the user"):
        await Broker(f"amqp://nobody:wrong@{wrong}", names, "test").check()
    with pytest.raises(BrokerRefusedError, match="cannot be used"):
        await Broker(f"http://{wrong}", names, "test").check()
    await Broker(amqp.url, names, "test").check()


@pytest.mark.parametrize("how", ["channel", "connection", "queue"])
async def test_after_whatever_the_server_closes_it_is_ready_and_consumes_again(amqp: Amqp, how: str) -> None:
    """A channel that the server closes, a connection that breaks, a queue that is deleted under its consumer."""
    names = Names(amqp.prefix)
    got: asyncio.Queue[bytes] = asyncio.Queue()
    connections: asyncio.Queue[None] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        message.ack()
        await got.put(message.body)

    async def on_connected() -> None:
        await connections.put(None)

    consumer = Consumer(handle=handle, queue=names.messages_queue)
    async with cable(amqp) as line, connected(line.amqp, consumer, then=on_connected) as broker:
        await _publish(broker, b"before")
        assert await asyncio.wait_for(got.get(), 5) == b"before"
        match how:
            case "channel":
                underlying = await broker._consumptions[0].channel.get_underlay_channel()
                await underlying.basic_ack(4711)  # an unknown tag: the server closes the channel
            case "connection":
                line.cut()
            case _:
                async with raw_channel(amqp) as channel:
                    await channel.queue_delete(names.messages_queue)
        await asyncio.wait_for(connections.get(), 10)
        assert broker.ready
        await _publish(broker, b"after")
        assert await asyncio.wait_for(got.get(), 5) == b"after"


async def test_it_is_not_ready_while_a_channel_is_closed(amqp: Amqp) -> None:
    async with connected(amqp) as broker:
        before = broker.ready
        await broker._publishing.channels[0].close()
        assert (before, broker.ready) == (True, False)
        with pytest.raises(BrokerUnavailableError):
            await _publish(broker, b"")


async def test_what_was_not_acknowledged_comes_again_after_a_reconnect(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[bool] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        await got.put(bool(message.redelivered))
        if message.redelivered:
            message.ack()

    async with connected(amqp, Consumer(handle=handle, queue=names.messages_queue)) as broker:
        await _publish(broker, b"once more")
        assert await asyncio.wait_for(got.get(), 5) is False
        await broker._consumptions[0].channel.close()
        assert await asyncio.wait_for(got.get(), 10) is True


async def test_what_is_in_hand_when_its_channel_closes_is_let_go(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    got: asyncio.Queue[Incoming] = asyncio.Queue()
    let_go = asyncio.Event()

    async def handle(message: Incoming) -> None:
        await got.put(message)
        if not message.redelivered:
            try:
                await asyncio.Event().wait()
            finally:
                let_go.set()
        message.ack()

    async with connected(amqp, Consumer(handle=handle, queue=names.messages_queue)) as broker:
        await _publish(broker, b"once more")
        first = await asyncio.wait_for(got.get(), 5)
        await broker._consumptions[0].channel.close()
        await asyncio.wait_for(let_go.wait(), 5)
        assert first.lost
        with pytest.raises(ConnectionAbortedError):
            first.ack()
        assert (await asyncio.wait_for(got.get(), 10)).redelivered


async def test_a_message_that_no_handler_can_take_is_parked_and_those_behind_it_flow(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    tries = 0
    got: asyncio.Queue[bytes] = asyncio.Queue()
    parked: asyncio.Queue[Incoming] = asyncio.Queue()

    async def handle(message: Incoming) -> None:
        nonlocal tries
        if message.body == b"poison":
            tries += 1
            raise RuntimeError("this one again")
        message.ack()
        await got.put(message.body)

    async def park(message: Incoming) -> None:
        message.ack()
        await parked.put(message)

    consumers = (
        Consumer(handle=handle, queue=names.publish_queue, limited=True),
        Consumer(handle=park, queue=names.dead),
    )
    async with connected(amqp, *consumers), raw_channel(amqp) as producer:
        exchange = await producer.get_exchange(names.publish)
        for body in (b"poison", b"1", b"2", b"3"):
            await exchange.publish(aio_pika.Message(body), routing_key="any")
        assert [await asyncio.wait_for(got.get(), 10) for _ in range(3)] == [b"1", b"2", b"3"]
        dead = await asyncio.wait_for(parked.get(), 10)
    assert dead.body == b"poison"
    assert DELIVERY_LIMIT <= tries <= DELIVERY_LIMIT + 1
    assert "delivery_limit" in str(dead.headers["x-death"])


async def test_a_rejected_envelope_is_kept_among_the_dead_letters(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    parked: asyncio.Queue[bytes] = asyncio.Queue()

    async def reject(message: Incoming) -> None:
        message.nack(requeue=False)

    async def park(message: Incoming) -> None:
        message.ack()
        await parked.put(message.body)

    consumers = (Consumer(handle=reject, queue=names.messages_queue), Consumer(handle=park, queue=names.dead))
    async with connected(amqp, *consumers) as broker:
        await _publish(broker, b"malformed")
        assert await asyncio.wait_for(parked.get(), 5) == b"malformed"


async def test_after_it_stops_consuming_it_still_publishes_and_acknowledges(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    in_hand: asyncio.Queue[Incoming] = asyncio.Queue()
    consumer = Consumer(handle=in_hand.put, queue=names.messages_queue)
    async with connected(amqp, consumer) as broker:
        await _publish(broker, b"1")
        first = await asyncio.wait_for(in_hand.get(), 5)
        await broker.stop_consuming()
        assert broker.ready
        await _publish(broker, b"2")
        first.ack()
        async with raw_channel(amqp) as channel:
            queue = await channel.declare_queue(names.messages_queue, passive=True)
            assert queue.declaration_result.message_count == 1
            await queue.purge()
        assert in_hand.empty()


async def test_a_connection_that_comes_back_after_it_stopped_consuming_consumes_nothing(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    in_hand: asyncio.Queue[Incoming] = asyncio.Queue()
    back: asyncio.Queue[None] = asyncio.Queue()

    async def on_connected() -> None:
        await back.put(None)

    consumer = Consumer(handle=in_hand.put, queue=names.messages_queue)
    async with cable(amqp) as line, connected(line.amqp, consumer, then=on_connected) as broker:
        await broker.stop_consuming()
        line.cut()
        async with asyncio.timeout(15):
            await back.get()
            while not broker.ready:
                await back.get()
        await _publish(broker, b"for somebody else")
        async with raw_channel(amqp) as channel:
            queue = await channel.declare_queue(names.messages_queue, passive=True)
            counts = queue.declaration_result
            await queue.purge()
    assert (counts.message_count, counts.consumer_count, in_hand.qsize()) == (1, 0, 0)


async def _publish_nowhere(broker: Broker) -> None:
    """Confirms are still told apart after bursts: this one's refusal is its own."""
    with pytest.raises(BrokerUnavailableError):
        await broker.publish(broker.names.messages, b"", routing_key="nowhere", content_type="x/x", mandatory=True)


async def _publish(broker: Broker, body: bytes) -> None:
    names = broker.names
    await broker.publish(names.messages, body, routing_key=names.messages_queue, content_type="x/x", mandatory=True)
