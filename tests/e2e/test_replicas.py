"""Several replicas of each service share the work and agree on everything."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.stack.services import Service
from libs.common.domain.facts import AttemptOutcomeUnknown, AttemptStarted
from tests.support import senders
from tests.support.broker import cloud_event, producing
from tests.support.client import Answer, Client, connected
from tests.support.invariants import broken, read_deliveries
from tests.support.platform import Platform
from tests.support.receiver import Receiver

MANY = 50
STRIPE_SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"
PAYMENT = b'{"id":"evt_replicated","type":"payment_intent.succeeded"}'


@pytest.fixture(scope="module")
def others(platform: Platform) -> Iterator[dict[str, Service]]:
    """A second replica of each service."""
    registry = platform.services["registry"]
    replicas = {
        name: platform.installation.service(name, replica="2", registry=registry if name == "ingress" else None)
        for name in ("registry", "ingress", "dispatcher")
    }
    try:
        for replica in replicas.values():
            replica.start()
        for replica in replicas.values():
            replica.wait_ready()
        yield replicas
    finally:
        for replica in replicas.values():
            replica.stop()


@pytest.fixture
async def clients(client: Client, others: dict[str, Service]) -> AsyncIterator[list[Client]]:
    """Clients of both front doors."""
    async with connected(others["ingress"].url, client.key) as other:
        yield [client, other]


async def test_duplicates_at_two_front_doors_are_one_message(clients: list[Client], receiver: Receiver) -> None:
    app = await clients[0].create_application()
    source = await clients[0].create_source(app, "stripe", STRIPE_SECRET)
    await clients[0].create_endpoint(app, receiver.url())
    document = {"eventType": "order.completed", "payload": {"order": 7}}

    async def provide(client: Client) -> Answer:
        headers = senders.stripe_headers(PAYMENT, STRIPE_SECRET)
        return await client.request("POST", f"/in/{source.id}", data=PAYMENT, headers=headers)

    async def post(client: Client) -> Answer:
        headers = {"Idempotency-Key": "order-7"}
        return await client.request("POST", f"/api/v1/app/{app}/msg", json=document, headers=headers)

    async def post_event(client: Client) -> Answer:
        return await client.request("POST", f"/api/v1/app/{app}/msg", json=document | {"eventId": "order-7"})

    turns = [clients[number % 2] for number in range(MANY)]
    provided = await asyncio.gather(*(provide(client) for client in turns))
    posted = await asyncio.gather(*(post(client) for client in turns))
    events = await asyncio.gather(*(post_event(client) for client in turns))
    for answers in (provided, posted):
        assert {answer.status for answer in answers} == {202}
        assert len({answer.json["id"] for answer in answers}) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert Counter(answer.status for answer in events) == {202: 1, 409: MANY - 1}
    await clients[0].settled(app, 3)
    assert len(receiver.requests) == 3


async def test_duplicates_on_the_broker_are_one_message_whoever_consumes_them(
    platform: Platform, clients: list[Client], receiver: Receiver
) -> None:
    app = await clients[0].create_application()
    await clients[0].create_endpoint(app, receiver.url())
    async with producing(platform.corner) as producer:
        for number in range(10):
            event = cloud_event(app, "ping", {"n": number}, id=f"event-{number}")
            await asyncio.gather(*(producer.publish_event(event) for _ in range(10)))
    await receiver.wait_for(10)
    await clients[0].settled(app, 10)
    assert sorted(request.body for request in receiver.requests) == [b'{"n":%d}' % number for number in range(10)]


async def test_two_dispatchers_send_each_delivery_once(
    platform: Platform, clients: list[Client], receiver: Receiver
) -> None:
    app = await clients[0].create_application()
    for number in range(3):
        await clients[0].create_endpoint(app, receiver.script(f"/{number}", 500, 500, 500))
    sent = await asyncio.gather(*(clients[number % 2].send(app, "ping", {"n": number}) for number in range(200)))
    deliveries = await clients[0].settled(app, 600)
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}
    taken = Counter((request.id, request.path) for request in receiver.requests if request.status == 200)
    assert taken == {(message, f"/{number}"): 1 for message in sent for number in range(3)}
    streams = await read_deliveries(platform.corner.database_url)
    assert list(broken(streams.values(), schedule=2)) == []
    facts = [fact for stream in streams.values() for fact in stream]
    assert not any(isinstance(fact, AttemptOutcomeUnknown) for fact in facts)
    assert len({fact.process for fact in facts if isinstance(fact, AttemptStarted)}) == 2, "both had their share"


async def test_a_change_at_one_registry_is_in_force_at_both_front_doors(
    clients: list[Client], others: dict[str, Service], receiver: Receiver
) -> None:
    async with connected(others["registry"].url, clients[0].key) as registry:
        for number in range(10):
            app = await registry.create_application()
            await registry.create_endpoint(app, receiver.url(f"/{number}"))
            for client in clients:
                await client.send(app, "ping", {})
            await receiver.wait_for(2, f"/{number}")
