"""Postgres is killed, RabbitMQ is killed and wiped: what was accepted is delivered all the same."""

import asyncio

import pytest

from deploy.stack.servers import Servers
from libs.common.domain.delivery import Status, fold
from libs.common.domain.ids import Prefix, encode
from tests.support.client import Client
from tests.support.invariants import broken, disagreements, read_deliveries
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver
from tests.support.traffic import STRIPE_SECRET, Traffic, Ways, read_messages, seen_by

MESSAGES = 1000
SENDERS = 16
SCHEDULE = [0.1, 0.2, 0.3]


def kill_postgres(servers: Servers) -> None:
    servers.postgres.kill()
    servers.postgres.start()


def wipe_broker(servers: Servers) -> None:
    servers.broker.kill()
    servers.broker.wipe()
    servers.broker.start()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("harm", [kill_postgres, wipe_broker], ids=lambda harm: harm.__name__)
async def test_what_was_accepted_outlives_its_servers(
    servers: Servers, platform: Platform, client: Client, receiver: Receiver, harm: object
) -> None:
    if not (servers.owned_postgres and servers.owned_broker):
        pytest.skip("the servers were given by URLs: they are not ours to kill")
    assert callable(harm)
    app = await client.create_application()
    source = await client.create_source(app, "stripe", STRIPE_SECRET)
    endpoint = await client.create_endpoint(app, receiver.url("/"), retrySchedule=SCHEDULE)
    traffic = Traffic()
    async with asyncio.TaskGroup() as group:
        group.create_task(Ways(client, app, source.id, traffic).send_all(MESSAGES, senders=SENDERS))
        await receiver.wait_for(100)
        await asyncio.to_thread(harm, servers)

    await client.settled(app, MESSAGES, within=60)
    stored = await read_messages(platform.corner.database_url)
    for number, ids in traffic.answered.items():
        [message] = ids
        assert stored[message] == traffic.bodies[number]
    streams = [
        stream
        for stream in (await read_deliveries(platform.corner.database_url)).values()
        if encode(Prefix.APPLICATION, fold(stream).app) == app
    ]
    assert len(streams) == MESSAGES
    assert {fold(stream).status for stream in streams} == {Status.SUCCEEDED}
    assert list(broken(streams, schedule=len(SCHEDULE))) == []
    assert list(disagreements(streams, seen_by(receiver), {endpoint.id: "/"})) == []
    assert (await platform.admin("verify")).splitlines()[-1].startswith("ledger: verified")

    # And it goes on: the registry changes, the change is known everywhere, a message follows it.
    await client.create_endpoint(app, receiver.url("/afterwards"))
    await client.send(app, "ping", {})
    await receiver.wait_for(1, "/afterwards")
    await eventually(platform.ready, bool)
