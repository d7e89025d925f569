"""A registry of a module's own, asked directly, and those who ask it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from svix.api import SvixAsync, SvixOptions

from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.contracts.registry import SecretReveal
from tests.conftest import Amqp
from tests.support.client import Client, connected
from tests.support.organisations import admin_key, found


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A running registry, an organisation whose secrets can be read again, and its admin key."""

    installation: Installation
    service: Service
    organisation: str
    key: str

    @property
    def url(self) -> str:
        return self.service.url

    def tenant(self, **settings: Any) -> str:
        """The admin key of another organisation, with these settings."""
        return found(self.installation.corner.database_url, "tenant", **settings).key

    def another_key(self) -> str:
        """Of the organisation, with scope admin."""
        return admin_key(self.installation.corner.database_url, self.organisation)


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest, servers: Servers, database: str, amqp: Amqp) -> Iterator[Registry]:
    corner = Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
    folder = servers.folder / "registries" / request.path.stem
    installation = Installation(folder=folder, corner=corner)
    service = installation.service("registry")
    service.start()
    try:
        first = found(database, "tests", secret_reveal=SecretReveal.ALWAYS)
        service.wait_ready()
        yield Registry(installation=installation, service=service, organisation=first.organisation, key=first.key)
    finally:
        service.stop(grace_s=10)


@pytest.fixture
async def api(registry: Registry) -> AsyncIterator[Client]:
    async with connected(registry.url, registry.key) as client:
        yield client


@pytest.fixture
def svix(registry: Registry) -> SvixAsync:
    """The official SDK, given one base URL."""
    return SvixAsync(registry.key, SvixOptions(server_url=registry.url))


@pytest.fixture
async def sql(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection with the operator's rights."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()
