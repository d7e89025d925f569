"""The ingress under test: real processes, on a database and in a corner of the broker of the module's own."""

from collections.abc import AsyncIterator, Iterator

import aio_pika
import asyncpg
import pytest

from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.postgres.pool import open_pool
from tests.conftest import Amqp
from tests.integration.ingress.stand import Stand, Tenant, started
from tests.support.client import Client, connected
from tests.support.organisations import broker_user


@pytest.fixture(scope="module")
async def stand(request: pytest.FixtureRequest, servers: Servers, database: str, amqp: Amqp) -> AsyncIterator[Stand]:
    """The module's corner."""
    installation = Installation(
        folder=servers.folder / "ingress" / request.path.stem,
        corner=Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix),
    )
    writer = await open_pool(database, "registry", size=4)
    observer = await asyncpg.create_pool(database, min_size=0, max_size=4)
    user = broker_user(amqp.url)
    yield Stand(installation=installation, writer=writer, observer=observer, broker_user=user)
    await observer.close()
    await writer.close()


@pytest.fixture(scope="module")
async def tenant(stand: Stand) -> Tenant:
    """The organisation that the broker's user publishes for."""
    return await stand.create_tenant(broker_user=stand.broker_user)


@pytest.fixture(scope="module")
def ingress(stand: Stand) -> Iterator[Service]:
    """A replica that runs for the whole module."""
    replica = stand.replica()
    with started(replica):
        yield replica


@pytest.fixture
async def client(ingress: Service, tenant: Tenant) -> AsyncIterator[Client]:
    """A client with the tenant's key."""
    async with connected(ingress.url, tenant.key) as connection:
        yield connection


@pytest.fixture
async def channel(stand: Stand) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A producer's channel, with everything declared."""
    async with await aio_pika.connect(stand.installation.corner.amqp_url) as connection:
        yield await stand.declared(connection)
