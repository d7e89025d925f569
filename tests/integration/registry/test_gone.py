"""An endpoint that answered 410 is disabled: at once when the broker says so, and soon when it does not."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import asyncpg
import msgspec
import pytest

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept, deliver
from tests.support.client import Client


def event(endpoint: str, at: datetime) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/dispatcher",
        "type": "delivery.gone",
        "time": at.isoformat(),
        "data": {"endpointId": endpoint, "applicationId": "app_x", "deliveryId": "dlv_x", "attempts": 1, "more": {}},
    }


async def publish(amqp: Amqp, body: bytes) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(Names(amqp.prefix).deliveries)
        message = aio_pika.Message(body, content_type="application/cloudevents+json")
        await exchange.publish(message, "delivery.gone", mandatory=True)


async def disabled(api: Client, app: str, endpoint: str, *, within: float = 10) -> bool:
    try:
        async with asyncio.timeout(within):
            while not (await api.get(f"/app/{app}/endpoint/{endpoint}"))["disabled"]:  # noqa: ASYNC110  another process's state
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


@pytest.fixture
async def app(api: Client) -> str:
    return await api.create_application()


async def test_an_outcome_from_the_broker_disables_the_endpoint(
    api: Client, amqp: Amqp, app: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    await publish(amqp, msgspec.json.encode(event(endpoint, datetime.now(UTC) + timedelta(seconds=1))))
    assert await disabled(api, app, endpoint)
    fact = await sql.fetchrow(
        "SELECT kind, actor, data FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version DESC LIMIT 1",
        ids.decode(Prefix.ENDPOINT, endpoint),
    )
    assert fact is not None
    assert (fact["kind"], fact["actor"]) == ("EndpointDisabled", "system")
    assert msgspec.json.decode(fact["data"])["reason"] == "gone"


async def test_an_endpoint_that_was_changed_since_stays_enabled(api: Client, amqp: Amqp, app: str) -> None:
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    told = datetime.now(UTC)
    await api.patch(f"/app/{app}/endpoint/{endpoint}", {"url": "http://localhost/elsewhere"})
    await publish(amqp, msgspec.json.encode(event(endpoint, told - timedelta(seconds=1))))
    assert not await disabled(api, app, endpoint, within=1)


@pytest.mark.parametrize(
    "body",
    [b"rubbish", b"{}", b'{"type": "delivery.gone"}', b'{"type": "delivery.gone", "data": {"endpointId": "x"}}'],
)
async def test_what_cannot_be_read_is_a_dead_letter_and_what_comes_after_it_flows(
    api: Client, amqp: Amqp, app: str, body: bytes
) -> None:
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    await publish(amqp, body)
    await publish(amqp, msgspec.json.encode({"type": "delivery.later", "data": 1}))
    await publish(amqp, msgspec.json.encode(event(endpoint, datetime.now(UTC) + timedelta(seconds=1))))
    assert await disabled(api, app, endpoint)
    async with await aio_pika.connect(amqp.url) as connection:
        dead = await (await connection.channel()).get_queue(Names(amqp.prefix).dead)
        letter = await dead.get(timeout=10)
        assert letter is not None
        await letter.ack()
        assert letter.body == body


async def test_what_the_broker_lost_is_found_in_the_projection(
    registry: Registry, api: Client, app: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gone = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost/gone"}))["id"]
    back = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost/back"}))["id"]
    place = Place.of(registry.organisation, app)
    message = await accept(sql, place)
    for endpoint in (gone, back):
        await deliver(sql, place, message, ids.decode(Prefix.ENDPOINT, endpoint), [410])
    await asyncio.sleep(0.1)
    await api.patch(f"/app/{app}/endpoint/{back}", {"disabled": False})
    await asyncio.to_thread(registry.service.stop)
    await asyncio.to_thread(registry.service.start)
    await asyncio.to_thread(registry.service.wait_ready)
    assert await disabled(api, app, gone)
    assert not await disabled(api, app, back, within=0.5)
