"""Several replicas of each service share the work and agree on everything."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import aiohttp
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
PACE_SECONDS = 0.02  # a load that leaves the processor to those who start
PAYMENT = b'{"id":"evt_replicated","type":"payment_intent.succeeded"}'


@pytest.fixture(scope="module")
def replicas(platform: Platform) -> Iterator[dict[str, list[Service]]]:
    """Three replicas of each service, by its name; each ingress forwards to a registry of its own."""
    found = {name: [service] for name, service in platform.services.items()}
    for replica in ("2", "3"):
        registry = platform.installation.service("registry", replica=replica)
        found["registry"].append(registry)
        found["ingress"].append(platform.installation.service("ingress", replica=replica, registry=registry))
        found["dispatcher"].append(platform.installation.service("dispatcher", replica=replica))
    others = [service for services in found.values() for service in services[1:]]
    try:
        for service in others:
            service.start()
        for service in others:
            service.wait_ready()
        yield found
    finally:
        for service in others:
            service.stop()


@pytest.fixture
async def clients(client: Client, replicas: dict[str, list[Service]]) -> AsyncIterator[list[Client]]:
    """Clients of all front doors."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(each.url, client.key)) for each in replicas["ingress"]]


async def test_duplicates_at_three_front_doors_are_one_message(clients: list[Client], receiver: Receiver) -> None:
    app = await clients[0].create_application()
    source = await clients[0].create_source(app, "stripe", senders.STRIPE_SECRET)
    await clients[0].create_endpoint(app, receiver.url())
    document = {"eventType": "order.completed", "payload": {"order": 7}}

    async def provide(client: Client) -> Answer:
        headers = senders.stripe_headers(PAYMENT, senders.STRIPE_SECRET)
        return await client.request("POST", f"/in/{source.id}", data=PAYMENT, headers=headers)

    async def post(client: Client) -> Answer:
        headers = {"Idempotency-Key": "order-7"}
        return await client.request("POST", f"/api/v1/app/{app}/msg", json=document, headers=headers)

    async def post_event(client: Client) -> Answer:
        return await client.request("POST", f"/api/v1/app/{app}/msg", json=document | {"eventId": "order-7"})

    turns = [clients[number % len(clients)] for number in range(MANY)]
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


async def test_three_dispatchers_send_each_delivery_once(
    platform: Platform, clients: list[Client], receiver: Receiver
) -> None:
    app = await clients[0].create_application()
    for number in range(3):
        await clients[0].create_endpoint(app, receiver.script(f"/{number}", 500, 500, 500))
    sent = await asyncio.gather(
        *(clients[number % len(clients)].send(app, "ping", {"n": number}) for number in range(200))
    )
    deliveries = await clients[0].settled(app, 600)
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}
    taken = Counter((request.id, request.path) for request in receiver.requests if request.status == 200)
    assert taken == {(message, f"/{number}"): 1 for message in sent for number in range(3)}
    streams = await read_deliveries(platform.corner.database_url)
    assert list(broken(streams.values(), schedule=2)) == []
    facts = [fact for stream in streams.values() for fact in stream]
    assert not any(isinstance(fact, AttemptOutcomeUnknown) for fact in facts)
    assert len({fact.process for fact in facts if isinstance(fact, AttemptStarted)}) == 3, "each had its share"


async def test_a_change_at_one_registry_is_in_force_at_all_front_doors(
    clients: list[Client], replicas: dict[str, list[Service]], receiver: Receiver
) -> None:
    for number, service in enumerate(replicas["registry"] * 3):
        async with connected(service.url, clients[0].key) as registry:
            app = await registry.create_application()
            await registry.create_endpoint(app, receiver.url(f"/{number}"))
        for client in clients:
            await client.send(app, "ping", {})
        await receiver.wait_for(len(clients), f"/{number}")


@pytest.mark.timeout(240)  # six starts, beside their load
async def test_a_rolling_restart_is_seen_by_nobody_who_turns_to_another_replica(
    platform: Platform, clients: list[Client], replicas: dict[str, list[Service]], receiver: Receiver
) -> None:
    app = await clients[0].create_application()
    await clients[0].create_endpoint(app, receiver.url())
    restarted = asyncio.Event()

    async def keep_asking(doors: list[Client], path: str, document: Callable[[str], object]) -> list[str]:
        """Create one thing after the other, at one door or, where that fails, at the next; their ids."""
        ids: list[str] = []
        while not restarted.is_set():
            key = secrets.token_hex(8)
            answer = await at_any_door(doors, key, f"/api/v1/app/{app}/{path}", document(key))
            ids.append(answer.json["id"])
            await asyncio.sleep(PACE_SECONDS)
            doors = [*doors[1:], doors[0]]
        return ids

    async with AsyncExitStack() as stack:
        registries = [
            await stack.enter_async_context(connected(each.url, clients[0].key)) for each in replicas["registry"]
        ]
        async with asyncio.TaskGroup() as group:
            messages = [
                group.create_task(
                    keep_asking(clients, "msg", lambda key: {"eventType": "ping", "payload": {"key": key}})
                )
                for _ in range(3)
            ]
            sources = group.create_task(
                keep_asking(
                    registries,
                    "source",
                    lambda key: {"name": key, "provider": "stripe", "secret": senders.STRIPE_SECRET},
                )
            )
            for together in list(zip(*replicas.values(), strict=True))[:2]:
                await asyncio.gather(*(asyncio.to_thread(restart, service) for service in together))
            restarted.set()

    sent = [message for task in messages for message in task.result()]
    deliveries = await clients[0].settled(app, len(sent))
    assert {(delivery["status"], delivery["attempts"]) for delivery in deliveries} == {("succeeded", 1)}
    assert sorted(request.id for request in receiver.requests) == sorted(sent)
    for source in sources.result():
        await clients[0].get(f"/app/{app}/source/{source}")


async def at_any_door(doors: list[Client], key: str, path: str, document: object) -> Answer:
    """The 2xx of the first door that gives one; each is asked once, since only one of them restarts."""
    failures: list[object] = []
    for door in doors:
        try:
            answer = await door.request("POST", path, json=document, headers={"Idempotency-Key": key})
        except aiohttp.ClientError as error:
            failures.append(error)
            continue
        if answer.status < 300:
            return answer
        failures.append(answer)
    raise AssertionError(f"no door took it: {failures}")


def restart(service: Service) -> None:
    """SIGTERM, wait for the end, start, wait until it is ready."""
    service.stop()
    service.start()
    service.wait_ready()
