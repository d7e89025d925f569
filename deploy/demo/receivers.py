"""Those who receive: one verifies, one takes the x-webhook profile, one fails twice and recovers, one is down."""

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

FLAKY_FAILURES: Final = 2
_MOST_BODY_BYTES: Final = 2 * 1024 * 1024
_HELD_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request in a receiver's own log."""

    message: str
    body: bytes
    status: int


@dataclass(slots=True, kw_only=True)
class Inbox:
    """A receiver's own log, kept apart from anything that Hookledger knows."""

    name: str
    secret: str = ""
    records: list[Record] = field(default_factory=list)
    forged: int = 0


class Receivers:
    """Three inboxes behind one server, and a port where nobody answers."""

    def __init__(self, port: int, dead_port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._dead = f"http://127.0.0.1:{dead_port}/hooks"
        self.verified = Inbox(name="verified")
        self.x_webhook = Inbox(name="x-webhook")
        self.flaky = Inbox(name="flaky")
        self.down = Inbox(name="down")
        self.held = asyncio.Event()
        self.released = asyncio.Event()

    @property
    def all(self) -> tuple[Inbox, ...]:
        """The four of them."""
        return self.verified, self.x_webhook, self.flaky, self.down

    def url(self, inbox: Inbox) -> str:
        """Where an inbox receives."""
        return self._dead if inbox is self.down else f"{self._base}/{inbox.name}"

    async def receive_verified(self, request: web.Request) -> web.Response:
        """Verify with the library; keep the very first request waiting, so that something is in flight when we kill."""
        body = await request.read()
        if not _is_standard(self.verified.secret, body, request):
            self.verified.forged += 1
            return web.Response(status=401)
        message = request.headers["webhook-id"]
        if not self.held.is_set():
            self.held.set()
            async with asyncio.timeout(_HELD_SECONDS):
                await self.released.wait()  # by then the dispatcher that asked is dead: nobody reads this answer
        self.verified.records.append(Record(message=message, body=body, status=204))
        return web.Response(status=204)

    async def receive_x_webhook(self, request: web.Request) -> web.Response:
        """Verify the simple form, in one line."""
        body = await request.read()
        expected = "sha256=" + hmac.new(self.x_webhook.secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, request.headers.get("X-Webhook-Signature", "")):
            self.x_webhook.forged += 1
            return web.Response(status=401)
        message = orjson.loads(body)["id"]
        self.x_webhook.records.append(Record(message=message, body=body, status=200))
        return web.Response(status=200)

    async def receive_flaky(self, request: web.Request) -> web.Response:
        """Fail each message twice, then take it."""
        body = await request.read()
        if not _is_standard(self.flaky.secret, body, request):
            self.flaky.forged += 1
            return web.Response(status=401)
        message = request.headers["webhook-id"]
        failed = sum(record.message == message for record in self.flaky.records)
        status = 503 if failed < FLAKY_FAILURES else 200
        self.flaky.records.append(Record(message=message, body=body, status=status))
        return web.Response(status=status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receivers]:
    """The receivers, on free ports of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # held, and never listened on: connections are refused
        receivers = Receivers(listening.getsockname()[1], dead.getsockname()[1])
        app = web.Application(client_max_size=_MOST_BODY_BYTES)
        app.router.add_post("/verified", receivers.receive_verified)
        app.router.add_post("/x-webhook", receivers.receive_x_webhook)
        app.router.add_post("/flaky", receivers.receive_flaky)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            yield receivers
        finally:
            receivers.released.set()
            await runner.cleanup()


def _is_standard(secret: str, body: bytes, request: web.Request) -> bool:
    try:
        Webhook(secret).verify(body, dict(request.headers))
    except (WebhookVerificationError, ValueError):
        return False
    return True
