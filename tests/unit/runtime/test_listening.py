"""Listening: how a service stops while connections are open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from deploy.stack.ports import free_port
from libs.common.runtime.listening import listening
from libs.common.runtime.service import StartError

PATIENCE_SECONDS = 5.0
HOST = "127.0.0.1"


class Service:
    """A service with one route, whose handler says that it has begun and waits until it may end."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_post("/", self._handle)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    async def _handle(self, request: web.Request) -> web.Response:
        self.begun.set()
        body = await request.read()
        await self.may_end.wait()
        return web.Response(body=body)


@asynccontextmanager
async def asking() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        yield session


async def test_an_idle_connection_does_not_hold_up_a_stop() -> None:
    service = Service(free_port())
    service.may_end.set()
    async with asyncio.timeout(PATIENCE_SECONDS), asking() as session:
        async with listening(service.app, HOST, service.port, grace=3600):
            response = await session.post(service.url, data=b"1")
            assert (response.status, await response.read()) == (200, b"1")
            # The session keeps the connection for another request that never comes.
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(service.url, data=b"2")


async def test_a_connection_that_never_asked_does_not_hold_up_a_stop() -> None:
    service = Service(free_port())
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with listening(service.app, HOST, service.port, grace=3600):
            reader, writer = await asyncio.open_connection(HOST, service.port)
        assert await reader.read() == b""
        writer.close()


async def test_a_request_in_hand_comes_to_its_end() -> None:
    service = Service(free_port())
    async with asyncio.timeout(PATIENCE_SECONDS), asking() as session:
        async with listening(service.app, HOST, service.port, grace=3600):
            request = asyncio.create_task(session.post(service.url, data=b"in hand"))
            await service.begun.wait()
            asyncio.get_running_loop().call_later(0.1, service.may_end.set)
        response = await request
        assert (response.status, await response.read()) == (200, b"in hand")


async def test_a_request_that_does_not_end_is_cut_off_after_its_grace() -> None:
    service = Service(free_port())
    async with asyncio.timeout(PATIENCE_SECONDS), asking() as session:
        async with listening(service.app, HOST, service.port, grace=0.05):
            request = asyncio.create_task(session.post(service.url, data=b""))
            await service.begun.wait()
        with pytest.raises(aiohttp.ClientError):
            await request


async def test_a_port_that_is_taken_is_refused_in_one_line() -> None:
    service = Service(free_port())
    async with listening(service.app, HOST, service.port, grace=0):
        with pytest.raises(StartError, match=rf"^cannot listen on {HOST}:{service.port}: [^\n]*HOOKLEDGER_PORT$"):
            async with listening(Service(service.port).app, HOST, service.port, grace=0):
                pass
