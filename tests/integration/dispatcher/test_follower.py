"""The follower: what happened is told on the broker, in the ledger's order, at least once, and nothing is passed over."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import aio_pika
import orjson
import pytest

from libs.common.contracts import ledger
from libs.common.contracts.cloudevents import structured
from libs.common.domain import ids
from libs.common.domain.facts import MessageAccepted, Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.message import Message
from libs.common.domain.operational import DELIVERY_FACTS
from libs.common.postgres.following import Tail
from libs.common.postgres.pool import open_pool
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.clock import new_id
from services.dispatcher import follower as following
from services.dispatcher import projecting
from services.dispatcher.events import KINDS
from services.dispatcher.follower import Follower
from services.dispatcher.metrics import FOLLOWED
from tests.conftest import Amqp
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import BODY, World
from tests.support.following import step_to_the_end
from tests.support.receiver import Receiver


async def test_accepted_messages_and_outcomes_carry_their_type_as_routing_key(
    world: World, amqp: Amqp, receiver: Receiver
) -> None:
    app = await world.application()
    receiver.script("/bad", then=404)
    receiver.script("/gone", then=410)
    receiver.script("/flaky", 500)
    await world.endpoints(app, [receiver.url(path) for path in ("/good", "/bad", "/gone", "/flaky", "/down")])
    async with telling(world, amqp) as (follower, heard):
        receiver.script("/down", then=503)
        async with dispatching(world) as parts:
            parts.start_claiming()
            await parts.fan_outs.take(await world.accept(app, publish=True), path="envelope")
            await world.until_over(app, 5)
        await _follow(world, follower)
        events = await heard.wait_for(10)
    assert sorted(event.routing_key or "" for event in events) == [
        *["attempt.failed"] * 6,  # of /bad, /gone, /flaky once; of /down three times
        *["delivery.exhausted", "delivery.gone", "delivery.refused"],
        *["delivery.succeeded"] * 2,
        "order.completed",
    ]
    for event in events:
        assert event.content_type == structured.CONTENT_TYPE
        assert orjson.loads(event.body)["type"] == event.routing_key
        assert event.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


async def test_an_accepted_message_carries_the_exact_bytes_and_only_where_it_is_asked_for(
    world: World, amqp: Amqp
) -> None:
    app = await world.application()
    exact = b'{"b" : 1.10,"a":\t"\\u00e9", "n":12345678901234567890}'
    async with telling(world, amqp) as (follower, heard):
        await world.accept(app, body=b'{"quiet":true}')
        [message] = await world.accept(app, body=exact, event_type="order.paid", publish=True)
        [text] = await world.accept(app, body=b"not json", publish=True)
        await _follow(world, follower)
        first, second = await heard.wait_for(2)
        assert len(heard.messages) == 2
    assert first.exchange == Names(amqp.prefix).accepted
    assert first.routing_key == "order.paid"
    assert exact in first.body
    event = structured.decode(first.body)
    assert (event.id, event.data) == (ids.encode(Prefix.MESSAGE, message.id), exact)
    assert event.extensions["hookledgerapp"] == ids.encode(Prefix.APPLICATION, app)
    assert structured.decode(second.body).data == text.body


async def test_an_outcome_says_whose_it_is_and_what_was_answered(world: World, amqp: Amqp, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/hook", then=404))
    async with telling(world, amqp) as (follower, heard):
        async with dispatching(world) as parts:
            [message] = await world.accept(app)
            await parts.fan_outs.take([message], path="envelope")
            await world.until_over(app, 1)
        await _follow(world, follower)
        failed, refused = [orjson.loads(event.body) for event in await heard.wait_for(2)]
    delivery = ids.encode(Prefix.DELIVERY, ids.delivery_id(message.id, endpoint))
    whose = {
        "applicationId": ids.encode(Prefix.APPLICATION, app),
        "endpointId": ids.encode(Prefix.ENDPOINT, endpoint),
        "messageId": ids.encode(Prefix.MESSAGE, message.id),
        "deliveryId": delivery,
    }
    assert failed["data"].items() >= (whose | {"responseStatusCode": 404, "outcome": "refused"}).items()
    assert refused["data"].items() >= whose.items()
    assert (failed["id"], refused["id"]) == (f"{delivery}-3", f"{delivery}-4")


async def test_of_outcomes_that_nobody_listens_for_one_in_each_batch_is_told(
    world: World, amqp: Amqp, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/refuses", then=404))
    await world.endpoint(app, receiver.script("/takes"))
    async with telling(world, amqp, to=["delivery.refused"]) as (follower, heard), dispatching(world) as parts:
        published = _published_outcomes(amqp)
        for told in (12, 6, 6):  # the first batch is told whole: somebody may listen
            await parts.fan_outs.take(await world.accept(app, 4), path="envelope")
            await world.until_over(app, 2 * 4)
            before = published()
            await _follow(world, follower)
            assert published() - before == told  # later: those who are listened to, and one each of the two others
        events = await heard.wait_for(12)
    assert {event.routing_key for event in events} == {"delivery.refused"}
    assert len({event.body for event in events}) == 12


async def test_whoever_begins_to_listen_is_told_all_that_is_committed_from_then_on(
    world: World, amqp: Amqp, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/flaky", 500, 500, 500, 500))
    async with telling(world, amqp, to=[]) as (follower, heard), dispatching(world) as parts:
        parts.start_claiming()
        await parts.fan_outs.take(await world.accept(app, 4), path="envelope")
        await world.until_over(app, 4)
        await _follow(world, follower)
        published = _published_outcomes(amqp)
        before = published()
        await parts.fan_outs.take(await world.accept(app, 4), path="envelope")
        await world.until_over(app, 8)
        await _follow(world, follower)
        assert published() - before == 1
        await heard.listen("#")
        receiver.script("/flaky", 500, 500, 500, 500)
        messages = await world.accept(app, 4)
        await parts.fan_outs.take(messages, path="envelope")
        await world.until_over(app, 4)
        await _follow(world, follower)
        events = await heard.wait_for(8)
        assert len(heard.messages) == 8
        await heard.listen("#", no_longer=True)
        for expected in (3, 1):
            before = published()
            await parts.fan_outs.take(await world.accept(app, 3), path="envelope")
            await world.until_over(app, 3)
            await _follow(world, follower)
            assert published() - before == expected
    told = [orjson.loads(event.body)["id"] for event in events]
    rows = await world.owner.fetch(
        """
        SELECT f.stream, f.version FROM hookledger.fact f JOIN projection_1.delivery_state d ON d.delivery = f.stream
        WHERE d.message = ANY($1) AND f.kind = 'AttemptEnded' ORDER BY f.epoch, f.xact, f.position
        """,
        [message.id for message in messages],
    )
    assert told == [f"{ids.encode(Prefix.DELIVERY, row['stream'])}-{row['version']}" for row in rows]


async def test_a_transaction_that_commits_late_is_not_passed_over(world: World, amqp: Amqp) -> None:
    app = await world.application()
    early, late = await _uncommitted(world, app), await _uncommitted(world, app)
    async with telling(world, amqp) as (follower, heard):
        async with world.owner.acquire() as open_longer:
            transaction = open_longer.transaction()
            await transaction.start()
            await world.store(open_longer, [late])
            async with world.owner.acquire() as connection, connection.transaction():
                await world.store(connection, [early])
            await _follow_as_far_as_may_be(follower)
            assert heard.messages == []  # what committed waits for what began before it
            await transaction.commit()
        await _follow(world, follower)
        events = await heard.wait_for(2)
    told = [orjson.loads(event.body)["id"] for event in events]
    assert told == [ids.encode(Prefix.MESSAGE, message.id) for message in (late, early)]


async def test_transaction_ids_are_numbers_also_where_they_gain_a_digit(world: World, amqp: Amqp) -> None:
    """As texts, 100 comes before 99, and everything in between would be passed over."""
    app = await world.application()
    messages = [await _uncommitted(world, app) for _ in range(4)]
    async with telling(world, amqp) as (follower, heard):
        async with world.owner.acquire() as connection, connection.transaction():
            await world.store_messages(connection, messages)
            for message, transaction_id in zip(messages, (9, 10, 99, 100), strict=True):
                await world.store_fact(connection, message, transaction_id=transaction_id)
        await world.owner.execute("UPDATE hookledger.checkpoint SET epoch = $1, xact = '0', position = 0", world.epoch)
        await _follow(world, follower)
        events = await heard.wait_for(4)
    told = [orjson.loads(event.body)["id"] for event in events]
    own = [ids.encode(Prefix.MESSAGE, message.id) for message in messages]
    assert [identity for identity in told if identity in own] == own


async def test_under_many_writers_each_fact_is_told_once_and_in_the_ledgers_order(
    world: World, amqp: Amqp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "BATCH", 7)
    app = await world.application()
    stopping = asyncio.Event()
    async with telling(world, amqp) as (follower, heard):
        task = asyncio.create_task(follower.run(stopping))

        async def write(pause: float) -> list[Message]:
            written = []
            for _ in range(12):
                message = await _uncommitted(world, app)
                async with world.owner.acquire() as connection, connection.transaction():
                    await world.store(connection, [message])
                    await asyncio.sleep(pause)  # transactions of different lengths
                written.append(message)
            return written

        batches = await asyncio.gather(*(write(pause) for pause in (0.0, 0.003, 0.011, 0.03)))
        events = await heard.wait_for(48)
        stopping.set()
        await task
        assert len(heard.messages) == 48
    told = [orjson.loads(event.body)["id"] for event in events]
    written = [ids.encode(Prefix.MESSAGE, message.id) for batch in batches for message in batch]
    assert sorted(told) == sorted(written)
    rows = await world.owner.fetch(
        "SELECT stream FROM hookledger.fact f WHERE app = $1 ORDER BY f.epoch, f.xact, f.position", app
    )
    assert told == [ids.encode(Prefix.MESSAGE, row["stream"]) for row in rows]


async def test_what_was_published_and_not_checkpointed_is_published_again(
    world: World, amqp: Amqp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.application()

    async def dies(*_: object) -> None:
        raise ConnectionResetError

    async with telling(world, amqp) as (follower, heard):
        await world.accept(app, 3, publish=True)
        with monkeypatch.context() as patch:
            patch.setattr(follower._checkpoint, "move", dies)
            with pytest.raises(ConnectionResetError):
                await _follow(world, follower)
        await heard.wait_for(3)
        await _follow(world, follower)
        events = await heard.wait_for(6)
    counts = [orjson.loads(event.body)["id"] for event in events]
    assert sorted(counts[:3]) == sorted(counts[3:])


async def test_one_process_follows_and_another_takes_over_when_it_leaves_or_dies(world: World, amqp: Amqp) -> None:
    app = await world.application()
    async with telling(world, amqp) as (one, heard), telling(world, amqp) as (other, _):
        await world.accept(app, publish=True)
        await _follow(world, one)
        await heard.wait_for(1)
        await world.accept(app, publish=True)
        await _follow_as_far_as_may_be(other)
        assert len(heard.messages) == 1  # it is not its turn
        await one._checkpoint.leave(one._pool)
        await _follow(world, other)
        await heard.wait_for(2)
        await world.accept(app, publish=True)
        await _follow_as_far_as_may_be(one)
        assert len(heard.messages) == 2
        await world.owner.execute("UPDATE hookledger.checkpoint SET owned_until = clock_timestamp()")
        await _follow(world, one)
        await heard.wait_for(3)


async def test_the_facts_of_an_earlier_epoch_are_told_before_those_of_this_one(world: World, amqp: Amqp) -> None:
    """After a logical restore transaction ids start anew, below those of the old cluster."""
    app = await world.application()
    old, new = await _uncommitted(world, app), await _uncommitted(world, app)
    async with telling(world, amqp) as (follower, heard):
        async with world.owner.acquire() as connection, connection.transaction():
            await world.store(connection, [old])
        await world.owner.execute("""
            INSERT INTO hookledger.ledger_epoch (epoch, system_identifier, database_oid)
            SELECT epoch + 1, system_identifier, database_oid FROM hookledger.ledger_epoch ORDER BY epoch DESC LIMIT 1
        """)
        try:
            async with world.owner.acquire() as connection, connection.transaction():
                await world.store(connection, [new], ledger_epoch=world.epoch + 1)
            await _follow(world, follower)
            events = await heard.wait_for(2)
        finally:
            await world.owner.execute("DELETE FROM hookledger.ledger_epoch WHERE epoch > $1", world.epoch)
    told = [orjson.loads(event.body)["id"] for event in events]
    assert told == [ids.encode(Prefix.MESSAGE, message.id) for message in (old, new)]


@pytest.mark.parametrize("publish", [True, False])
async def test_what_a_follower_wants_is_in_the_index_that_it_reads_by(world: World, *, publish: bool) -> None:
    accepted = MessageAccepted(
        at=datetime.now(UTC),
        event_type='publish".true',  # as near as an event type could come to what is looked for
        origin=Origin.API,
        source=None,
        registry_version=1,
        publish=publish,
    )
    kinds = KINDS | projecting.KINDS | DELIVERY_FACTS.keys()
    rows = await world.owner.fetch(
        "SELECT kind FROM unnest($1::text[]) AS kind WHERE hookledger.is_followed(kind, $2)",
        sorted(kinds),
        ledger.encode(accepted)[2],
    )
    assert {row["kind"] for row in rows} == kinds - (set() if publish else {"MessageAccepted"})


class Heard:
    """What came to a queue bound to both exchanges."""

    def __init__(self, queue: aio_pika.abc.AbstractQueue, names: Names) -> None:
        self.messages: list[aio_pika.abc.AbstractIncomingMessage] = []
        self._changed = asyncio.Condition()
        self._queue = queue
        self._names = names

    async def listen(self, routing_key: str, *, no_longer: bool = False) -> None:
        for exchange in (self._names.accepted, self._names.deliveries):
            await (self._queue.unbind if no_longer else self._queue.bind)(exchange, routing_key)

    async def take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    async def wait_for(self, count: int) -> Sequence[aio_pika.abc.AbstractIncomingMessage]:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self.messages) >= count)
        return self.messages


@asynccontextmanager
async def telling(world: World, amqp: Amqp, *, to: Sequence[str] = ("#",)) -> AsyncIterator[tuple[Follower, Heard]]:
    """A follower with a broker of its own, and somebody who listens for these routing keys."""
    names = Names(amqp.prefix)
    connected = asyncio.Event()

    async def on_connected() -> None:
        connected.set()

    broker = Broker(amqp.url, names, "test", connected=on_connected)
    pool = await open_pool(world.url, "dispatcher", size=2)
    connection = await aio_pika.connect(amqp.url)
    async with pool, connection, asyncio.TaskGroup() as group:
        group.create_task(broker.run())
        await asyncio.wait_for(connected.wait(), 10)
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        heard = Heard(queue, names)
        for routing_key in to:
            await heard.listen(routing_key)
        await queue.consume(heard.take, no_ack=True)
        await world.owner.execute("""
            INSERT INTO hookledger.checkpoint (follower, epoch, xact, position)
            SELECT 'outcomes', epoch, xact, position FROM hookledger.fact ORDER BY epoch DESC, xact DESC, position DESC
            LIMIT 1 ON CONFLICT DO NOTHING
        """)  # other tests' facts are behind us
        yield Follower(pool, broker, new_id(), Tail(KINDS)), heard
        broker.close()


async def _follow(world: World, follower: Follower) -> None:
    """Follow to the end of what is committed, for which whatever began before it must be over."""
    await step_to_the_end(world.owner, following.NAME, follower._step)


async def _follow_as_far_as_may_be(follower: Follower) -> None:
    """Follow up to what is still under way, if it is this one's turn at all."""
    while await follower._step():
        pass


def _published_outcomes(amqp: Amqp) -> Callable[[], float]:
    published: Callable[[], float] = FOLLOWED.labels(Names(amqp.prefix).deliveries)._value.get
    return published


async def _uncommitted(world: World, app: UUID) -> Message:
    return Message(
        id=new_id(),
        org=world.org,
        app=app,
        event_type="order.completed",
        body=BODY,
        accepted_at=datetime.now(UTC),
        registry_version=await world.version(),
        origin=Origin.API,
        publish=True,
    )
