"""One platform for all tests of this folder: what each of them makes, the others must bear."""

from collections.abc import AsyncIterator

import pytest
from svix.api import ApplicationIn, EndpointIn, SvixAsync, SvixOptions

from deploy.stack.isolation import Isolation
from deploy.stack.servers import Servers
from tests.conftest import corner
from tests.e2e.sdk.story import Story, tell
from tests.support import databases
from tests.support.client import connected
from tests.support.platform import Platform, running
from tests.support.receiver import Receiver, receiving


@pytest.fixture(scope="package")
async def platform(servers: Servers, database_template: str) -> AsyncIterator[Platform]:
    """The three services, for this folder."""
    async with databases.cloned(servers.database_url, database_template) as database:
        with corner(servers) as amqp:
            isolation = Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
            with running(servers.folder / "platforms" / "sdk", isolation) as started:
                yield started


@pytest.fixture(scope="package")
def svix(platform: Platform) -> SvixAsync:
    """The official SDK, given nothing but a key and the front door's URL."""
    return SvixAsync(platform.key, SvixOptions(server_url=platform.url))


@pytest.fixture(scope="package")
async def story(svix: SvixAsync, platform: Platform) -> Story:
    """Attempts of every kind, for all who list them."""
    async with receiving() as receiver, connected(platform.url, platform.key) as client:
        return await tell(svix, client, receiver)


@pytest.fixture
async def app(svix: SvixAsync) -> str:
    """The id of a new application."""
    return (await svix.application.create(ApplicationIn(name="Shop"))).id


@pytest.fixture
async def endpoint(svix: SvixAsync, app: str, receiver: Receiver) -> str:
    """The id of a new endpoint of the application, for every message and at the receiver's `/`."""
    return (await svix.endpoint.create(app, EndpointIn(url=receiver.url()))).id
