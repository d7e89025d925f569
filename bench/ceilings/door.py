"""What the front door costs: requests forwarded, beside a bare aiohttp handler in the same process, in turns.

`python -m bench.ceilings.door ROUNDS`. The registry is played by a bare socket in the process of the clients, so that
the other process spends its time on nothing but answering. Prints microseconds of processor time for each request, of
the best round: what others take of the machine is not the door's.
"""

import asyncio
import json
import subprocess
import sys
import time
from typing import Final

import uvloop
from aiohttp import web

from deploy.stack.ports import free_port
from libs.common.runtime.http import middlewares
from libs.common.runtime.listening import listening
from services.ingress.front_door import FrontDoor
from services.ingress.registry import Registry, open_session

CONNECTIONS: Final = 8
REQUESTS: Final = 1000
ANSWER: Final = b'{"data":[%b]}' % b",".join(
    b'{"id":"app_%022d","name":"Shop %d","metadata":{}}' % (n, n) for n in range(6)
)
_HEAD: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
_REQUEST: Final = (
    b"GET %b HTTP/1.1\r\nHost: hooks.example.com\r\nAuthorization: Bearer hlk_0123456789abcdef0123456789abcdef\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: svix-libs/1.0/python\r\n\r\n"
)
PATHS: Final = {"bare": b"/bare", "forwarded": b"/api/v1/app?limit=3"}


class _Upstream(asyncio.Protocol):
    """The registry's part: one and the same answer to each request."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        assert data.endswith(b"\r\n\r\n"), "a question without a body comes in one piece"
        self._transport.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (_HEAD, len(ANSWER), ANSWER))


async def answer_bare(_: web.Request) -> web.Response:
    """What any answer costs."""
    return web.Response(body=ANSWER, content_type="application/json")


async def serve(upstream: str) -> None:
    """The process that is measured: prints its ports, and for each line that it reads, the processor time it spent."""
    bare = web.Application()
    bare.router.add_get("/bare", answer_bare)
    runner = web.AppRunner(bare, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with open_session() as session:
        door = web.Application(middlewares=middlewares())
        FrontDoor(Registry(session, upstream, seconds=30), body_seconds=10).add_routes(door)
        async with listening(door, "127.0.0.1", port := free_port(), grace=1):
            print(json.dumps({"bare": runner.addresses[0][1], "forwarded": port}), flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                print(time.process_time(), flush=True)


async def load(port: int, path: bytes) -> None:
    """So many requests, one after another on each connection."""
    request = _REQUEST % path

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(REQUESTS // CONNECTIONS):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head, head
            await reader.readexactly(len(ANSWER))
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


async def main(rounds: int) -> None:
    """Measure, print the best of the rounds."""
    registry = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{registry.sockets[0].getsockname()[1]}"
    server = subprocess.Popen(  # noqa: ASYNC220  before anything else runs here
        [sys.executable, "-m", "bench.ceilings.door", "serve", upstream],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    stdin, stdout = server.stdin, server.stdout

    def spent() -> float:
        stdin.write("\n")
        stdin.flush()
        return float(stdout.readline())

    ports = json.loads(stdout.readline())
    cost: dict[str, list[float]] = {name: [] for name in PATHS}
    for turn in range(rounds + 1):
        for name, path in PATHS.items():
            before = spent()
            await load(ports[name], path)
            if turn:  # the first one warms up
                cost[name].append((spent() - before) / REQUESTS * 1e6)
    stdin.close()
    server.wait()
    print(json.dumps({name: round(min(each)) for name, each in cost.items()}))


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[2]) if sys.argv[1] == "serve" else main(int(sys.argv[1])))
