"""Ceiling: a bare aiohttp.web handler that reads the body and answers 202, on one core. Prints its port."""

import asyncio

import uvloop
from aiohttp import web


async def accept(request: web.Request) -> web.Response:
    """Take anything."""
    await request.read()
    return web.json_response({"id": "msg_0000000000000000000000", "eventType": "order.completed"}, status=202)


async def main() -> None:
    """Listen on a free port, say which."""
    app = web.Application()
    app.router.add_post("/api/v1/app/{app}/msg", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
