"""Health: no key is asked for."""

from svix.api import SvixAsync, SvixOptions

from tests.e2e.sdk.reference import operation
from tests.support.client import Client
from tests.support.platform import Platform


@operation("v1.health.get")
async def test_health_needs_no_key(platform: Platform) -> None:
    await SvixAsync("nobody", SvixOptions(server_url=platform.url)).health.get()


@operation("get /api/v1/health/ping")
async def test_ping_is_answered_with_nothing(client: Client) -> None:
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/api/v1/health/ping", headers={"Authorization": ""})
        assert (answer.status, answer.body) == (204, b"")
