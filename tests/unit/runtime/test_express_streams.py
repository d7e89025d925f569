"""Streams of requests, plain and odd, however they are cut: with and without an express way the same bytes come back."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pytest
from aiohttp import web

from libs.common.runtime.connection import Connection
from libs.common.runtime.express import Express, Head
from libs.common.runtime.express_connection import ExpressConnection
from libs.common.runtime.http import Reply, middlewares
from tests.unit.runtime.test_express import HALF, ODD, PLAIN, Asked, request

STREAMS: Final = 800
MOST_PIECES: Final = 5
SETTLED: Final = 300
"""So many turns of the loop, and everything that can happen without waiting has happened."""
PLAINLY: Final = (
    *[request(body=b"x" * size) for size in (1, 2, 7, 200)],
    request("X-Request-Id: mine"),
    request("Connection: keep-alive"),
)
NEARLY: Final = (
    request(target="/other"),
    request(target="/other", body=b"y" * 30),
    request("TE: trailers"),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"\r\n",
    HALF,
    PLAIN[:-1],
    PLAIN[:30],
)
KINDS: Final = (*PLAINLY * 8, *NEARLY * 2, *ODD.values())


class Wire(asyncio.Transport):
    """A connection's other end: keeps what is written, and says whether anything may be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reads = True
        self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Taker:
    """Takes what is for `/`, and answers as the handler does, some turns of the loop later."""

    def __init__(self, chance: random.Random) -> None:
        self.taken = 0
        self._chance = chance

    def take(self, head: Head, body: bytes) -> Asked | None:
        if head.path != "/":
            return None
        self.taken += 1
        loop = asyncio.get_running_loop()
        asked = Asked(body, loop.create_future())
        self._later(asked, self._chance.choice([0, 0, 1, 5, 20]))
        return asked

    def _later(self, asked: Asked, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._later, asked, turns - 1)
        else:
            asked.say(self._chance.choice([None, answer(asked.body), answer(asked.body)]))


def answer(body: bytes) -> Reply:
    return Reply(status=202, body=b'{"got":"%b"}' % body)


async def handle(request: web.Request) -> web.Response:
    return answer(await request.read()).response()


@asynccontextmanager
async def served() -> AsyncIterator[web.Server]:
    app = web.Application(middlewares=middlewares())
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        yield cast("web.Server", runner.server)
    finally:
        await runner.cleanup()


def pieces(chance: random.Random) -> list[bytes]:
    """Some requests behind one another, cut anywhere, or between them."""
    sent = [chance.choice(KINDS) for _ in range(chance.randint(1, 5))]
    if chance.random() < 0.5:
        return sent
    data = b"".join(sent)
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(MOST_PIECES)))})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)]


async def converse(server: web.Server, sent: list[bytes], express: Express | None, chance: random.Random) -> str:
    """All that comes back, without what differs from answer to answer; and whether the connection was closed."""
    wire = Wire()
    loop = asyncio.get_running_loop()
    if express is None:
        connection = Connection(server, loop=loop, head_seconds=60)
    else:
        connection = ExpressConnection(server, loop=loop, head_seconds=60, express=express)
    connection.connection_made(wire)
    for piece in sent:
        await turns(chance.choice([0, 1, 3, SETTLED]))
        while not wire.reads and not wire.closed:
            await turns(1)
        if not wire.closed:
            connection.data_received(piece)
    await turns(SETTLED)
    closed = wire.closed
    wire.close()
    connection.connection_lost(None)
    text = re.sub(r"Date: [^\r]+|[0-9a-f]{32}-\d+", "…", wire.written.decode("latin-1"))
    return f"{text}{closed=}"


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_in_both_ways_answer_alike(seed: int) -> None:
    chance = random.Random(seed)
    taker = Taker(chance)
    async with served() as server:
        for _ in range(STREAMS // 4):
            sent = pieces(chance)
            whole_way = await converse(server, sent, None, chance)
            assert await converse(server, sent, Express(take=taker.take), chance) == whole_way, sent
    assert taker.taken > STREAMS // 40, "too few to say anything"
