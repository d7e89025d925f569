"""Outside of development an endpoint's URL is https and public, but for what organisation and operator allow."""

from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.ports import free_port
from deploy.stack.servers import Servers
from deploy.stack.services import Service
from tests.conftest import Amqp
from tests.support.client import Client, connected
from tests.support.organisations import found


@pytest.fixture(scope="module")
def installation(servers: Servers, database: str, amqp: Amqp) -> Installation:
    corner = Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
    return Installation(folder=servers.folder / "registries" / "production", corner=corner)


@pytest.fixture(scope="module")
def service(installation: Installation) -> Iterator[Service]:
    development = installation.service("registry")
    settings = dict(development.settings) | {"DEV": "0", "ALLOW_NETWORKS": "10.1.0.0/16, fd00::/8"}
    production = Service(name="registry", folder=installation.folder, port=free_port(), settings=settings)
    production.start()
    try:
        production.wait_ready()
        yield production
    finally:
        production.stop(grace_s=10)


@pytest.fixture
async def strict(installation: Installation, service: Service) -> AsyncIterator[Client]:
    """A client of an organisation with the default settings."""
    async with connected(service.url, found(installation.corner.database_url, "strict").key) as client:
        yield client


@pytest.fixture
async def lax(installation: Installation, service: Service) -> AsyncIterator[Client]:
    """A client of an organisation whose endpoints may have http URLs."""
    lax = found(installation.corner.database_url, "lax", endpoint_https_only=False)
    async with connected(service.url, lax.key) as client:
        yield client


async def status(client: Client, url: str) -> int:
    app = await client.create_application()
    answer = await client.request("POST", f"/api/v1/app/{app}/endpoint", json={"url": url})
    if answer.status == 422:
        assert answer.json["detail"][0]["loc"] == ["body", "url"]
    return answer.status


async def test_an_endpoint_is_https_unless_the_organisation_says_otherwise(strict: Client, lax: Client) -> None:
    assert await status(strict, "https://example.com/hook") == 201
    assert await status(strict, "http://example.com/hook") == 422
    assert await status(lax, "http://example.com/hook") == 201


@pytest.mark.parametrize(
    "url",
    ["https://localhost/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/", "https://169.254.169.254/"],
)
async def test_an_endpoint_is_not_within(lax: Client, url: str) -> None:
    assert await status(lax, url) == 422


async def test_an_endpoint_may_be_in_a_network_that_the_operator_allows(strict: Client) -> None:
    assert await status(strict, "https://10.1.2.3/") == 201
    assert await status(strict, "https://[fd00::1]/") == 201


async def test_an_endpoint_whose_url_is_no_longer_allowed_can_still_be_changed_otherwise(lax: Client) -> None:
    app = await lax.create_application()
    endpoint = (await lax.post(f"/app/{app}/endpoint", {"url": "http://example.com"}))["id"]
    changed = await lax.patch(f"/app/{app}/endpoint/{endpoint}", {"disabled": True})
    assert (changed["url"], changed["disabled"]) == ("http://example.com/", True)
