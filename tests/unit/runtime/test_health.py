"""Health: what `/healthz` and `/readyz` answer, and for whom a dependency can be left out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from libs.common.runtime.http import add_health, middlewares

# The services keep the request's id under a plain name; that is not what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def service(**up: bool) -> AsyncIterator[Client]:
    """A service whose dependencies answer or do not."""

    def check(name: str) -> Any:
        async def answers() -> bool:
            return up[name]

        return answers

    app = web.Application(middlewares=middlewares())
    add_health(app, {name: check(name) for name in up})
    async with TestClient(TestServer(app)) as client:
        yield client


async def asked(client: Client, path: str) -> tuple[int, dict[str, Any]]:
    response = await client.get(path)
    return response.status, await response.json()


async def test_it_is_alive_whatever_its_dependencies_do() -> None:
    async with service(postgres=False, rabbitmq=False) as client:
        assert await asked(client, "/healthz") == (200, {"status": "alive"})


async def test_it_is_ready_when_all_of_them_answer() -> None:
    async with service(postgres=True, rabbitmq=True) as client:
        assert await asked(client, "/readyz") == (200, {"status": "ready", "postgres": "ok", "rabbitmq": "ok"})


async def test_it_is_unready_when_one_does_not() -> None:
    async with service(postgres=True, rabbitmq=False) as client:
        state = {"status": "unready", "postgres": "ok", "rabbitmq": "unavailable"}
        assert await asked(client, "/readyz") == (503, state)


async def test_one_that_is_left_out_does_not_count_and_is_still_told() -> None:
    async with service(postgres=True, rabbitmq=False) as client:
        state = {"status": "ready", "postgres": "ok", "rabbitmq": "unavailable"}
        assert await asked(client, "/readyz?exclude=rabbitmq") == (200, state)


async def test_the_others_count_all_the_same() -> None:
    async with service(postgres=False, rabbitmq=True) as client:
        assert (await asked(client, "/readyz?exclude=rabbitmq"))[0] == 503
        assert (await asked(client, "/readyz?exclude=rabbitmq&exclude=postgres"))[0] == 200


@pytest.mark.parametrize("name", ["rabitmq", "", "lease"])
async def test_a_dependency_that_it_does_not_have_cannot_be_left_out(name: str) -> None:
    async with service(postgres=True, rabbitmq=True) as client:
        status, body = await asked(client, f"/readyz?exclude={name}")
        assert status == 422
        assert "is none of postgres, rabbitmq" in body["detail"][0]["msg"]
