"""Resend, recover and replay through the public API, with the dispatcher killed in the middle."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from libs.common.domain.delivery import fold
from libs.common.domain.ids import Prefix, decode
from tests.support.client import Client
from tests.support.invariants import broken, read_deliveries
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

MANY = 300


async def test_a_recovery_whose_dispatcher_is_killed_sends_each_failed_message_and_a_replay_goes_elsewhere(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    url = receiver.script("/", then=404)
    endpoint = (await client.create_endpoint(app, url)).id
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    messages = await asyncio.gather(*(client.send(app, "order.completed", {"n": n}) for n in range(MANY)))
    assert {each["status"] for each in await client.settled(app, MANY)} == {"refused"}

    receiver.script("/", then=Reply(delay=0.1))
    job = await client.post(f"/app/{app}/endpoint/{endpoint}/recover", {"since": since})
    await receiver.wait_for(MANY + MANY // 3)
    await platform.kill("dispatcher")
    await platform.start("dispatcher")
    deliveries = await eventually(
        lambda: client.deliveries(app), lambda found: {each["status"] for each in found} == {"succeeded"}
    )
    assert len(deliveries) == MANY
    over = await client.get(f"/app/{app}/job/{job['id']}")
    assert (over["status"], over["examined"], over["requested"]) == ("finished", MANY, MANY)
    streams = await read_deliveries(platform.corner.database_url)
    mine = [stream for stream in streams.values() if fold(stream).endpoint == decode(Prefix.ENDPOINT, endpoint)]
    assert list(broken(mine, schedule=2)) == []
    assert {Counter(type(fact).__name__ for fact in stream)["ResendRequested"] for stream in mine} == {1}

    new = (await client.create_endpoint(app, receiver.url("/new"))).id
    await client.post(f"/app/{app}/endpoint/{new}/replay-missing", {"since": since})
    await client.post(f"/app/{app}/msg/{messages[0]}/endpoint/{endpoint}/resend", None)
    seen = await receiver.wait_for(MANY, "/new")
    assert {request.id for request in seen} == set(messages)
    example = await client.post(f"/app/{app}/endpoint/{new}/send-example", {"eventType": "svix.ping"})
    assert (await receiver.wait_for(MANY + 1, "/new"))[-1].id == example["id"]
    again = await eventually(
        lambda: client.get(f"/app/{app}/attempt/msg/{messages[0]}"),
        lambda page: sum(item["triggerType"] == 1 and item["endpointId"] == endpoint for item in page["data"]) >= 2,
    )
    assert {item["status"] for item in again["data"] if item["triggerType"] == 1} == {0}
