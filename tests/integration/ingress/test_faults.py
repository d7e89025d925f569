"""When a server behind the ingress goes away: never a 2xx for what is not committed, and back at once."""

import asyncio
from typing import Any

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel

from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.ingress.stand import (
    Stand,
    Tenant,
    cloud_event,
    publish,
    started,
    stripe_event,
    stripe_signed,
)
from tests.support.client import Answer, Client, connected


@pytest.fixture
def postgres(servers: Servers) -> Any:
    if not servers.owned_postgres:
        pytest.skip("Postgres is somebody's: it cannot be killed here")
    yield servers.postgres
    servers.postgres.start()


@pytest.fixture
def broker(servers: Servers) -> Any:
    if not servers.owned_broker:
        pytest.skip("RabbitMQ is somebody's: it cannot be killed here")
    yield servers.broker
    servers.broker.start()


async def create(client: Client, tenant: Tenant, event_type: str, **more: Any) -> Answer:
    return await client.request("POST", tenant.path, json={"eventType": event_type, "payload": {}}, **more)


async def ready(client: Client) -> None:
    async with asyncio.timeout(30):
        while (await client.request("GET", "/readyz")).status != 200:  # noqa: ASYNC110  another process's state
            await asyncio.sleep(0.1)


async def recovered(send: Any, status: int) -> Answer:
    async with asyncio.timeout(20):
        while True:
            answer: Answer = await send()
            if answer.status == status:
                return answer
            assert answer.status == 503
            await asyncio.sleep(0.1)


async def test_postgres_killed_is_503_with_retry_after_and_recovers(
    client: Client, tenant: Tenant, postgres: Any
) -> None:
    body = stripe_event("evt_fault")
    await asyncio.to_thread(postgres.kill)
    for answer in (
        await create(client, tenant, "down"),
        await client.request("POST", tenant.path_in("stripe"), data=body, headers=stripe_signed(body)),
        await client.request("POST", f"/in/{ids.encode(Prefix.SOURCE, ids.lowest(5))}", data=body),
        await create(client, tenant, "down", headers={"Authorization": "Bearer hlk_unknown"}),
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json["code"] == "unavailable"
    assert (await client.request("GET", "/readyz")).json["postgres"] == "unavailable"
    await asyncio.to_thread(postgres.start)
    await recovered(lambda: create(client, tenant, "up"), 202)


async def test_postgres_killed_under_load_no_2xx_is_lost(
    ingress: Service, client: Client, stand: Stand, tenant: Tenant, postgres: Any
) -> None:
    accepted: list[str] = []
    done = asyncio.Event()
    statuses: set[int] = set()

    async def send(number: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            key = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": f"load-{number}-{count}"}
            answer = await create(client, tenant, "load", headers=key)
            while answer.status == 503:
                statuses.add(503)
                await asyncio.sleep(0.05)
                answer = await create(client, tenant, "load", headers=key)
            statuses.add(answer.status)
            assert answer.status == 202, [
                line for line in ingress.log.read_text().splitlines() if "http.failed" in line
            ]
            accepted.append(answer.json["id"])

    sending = [asyncio.create_task(send(number)) for number in range(32)]
    for _ in range(2):
        await asyncio.sleep(0.7)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
    await asyncio.sleep(1)
    done.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*sending)
    assert statuses <= {202, 503}
    rows = await stand.observer.fetch("SELECT id FROM hookledger.message WHERE event_type = 'load'")
    stored = {ids.encode(Prefix.MESSAGE, row["id"]) for row in rows}
    assert len(accepted) > 100
    assert stored == set(accepted)
    assert len(stored) == len(accepted)


async def test_producers_messages_wait_for_postgres_and_none_is_lost(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, postgres: Any
) -> None:
    await asyncio.to_thread(postgres.kill)
    for n in range(300):
        await publish(channel, stand, cloud_event(tenant, f"waits-{n}", type="waits"))
    await asyncio.sleep(2)
    await asyncio.to_thread(postgres.start)
    await stand.until(300, "message", event_type="waits", seconds=30)
    dead = await channel.get_queue(stand.names.dead, ensure=False)
    assert (await channel.declare_queue(dead.name, passive=True)).declaration_result.message_count == 0


async def test_without_the_broker_messages_are_accepted_and_afterwards_it_is_used_again(
    ingress: Service, client: Client, stand: Stand, tenant: Tenant, broker: Any
) -> None:
    await asyncio.to_thread(broker.kill)
    for _ in range(20):
        answer = await create(client, tenant, "without-broker")
        assert answer.status == 202
    assert await stand.count("message", event_type="without-broker") == 20
    await asyncio.to_thread(broker.start)
    await ready(client)
    async with await aio_pika.connect(stand.installation.corner.amqp_url) as connection:
        channel = await stand.declared(connection)
        await publish(channel, stand, cloud_event(tenant, "after-broker", type="after-broker"))
    await stand.until(1, "message", event_type="after-broker")


async def test_a_broker_that_was_wiped_is_set_up_anew(
    ingress: Service, client: Client, stand: Stand, tenant: Tenant, broker: Any
) -> None:
    await asyncio.to_thread(broker.wipe)
    assert (await create(client, tenant, "wiped")).status == 202
    await asyncio.to_thread(broker.start)
    await ready(client)
    async with await aio_pika.connect(stand.installation.corner.amqp_url) as connection:
        channel = await stand.declared(connection)
        await publish(channel, stand, cloud_event(tenant, "after-wipe", type="after-wipe"))
    await stand.until(1, "message", event_type="after-wipe")


async def test_a_replica_killed_under_load_loses_no_2xx(stand: Stand, tenant: Tenant) -> None:
    replica = stand.replica("victim")
    accepted: list[str] = []

    async def send(client: Client) -> None:
        while True:
            try:
                answer = await create(client, tenant, "killed")
            except (aiohttp.ClientError, OSError):
                return
            accepted.append(answer.json["id"])

    with started(replica):
        async with connected(replica.url, tenant.key) as client:
            sending = [asyncio.create_task(send(client)) for _ in range(16)]
            await asyncio.sleep(0.7)
            await asyncio.to_thread(replica.kill)
            await asyncio.gather(*sending)
    rows = await stand.observer.fetch("SELECT id FROM hookledger.message WHERE event_type = 'killed'")
    assert set(accepted) <= {ids.encode(Prefix.MESSAGE, row["id"]) for row in rows}
    assert len(accepted) > 50
