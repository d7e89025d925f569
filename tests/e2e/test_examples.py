"""The examples, run as a user runs them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import orjson
import pytest

from deploy.stack.ports import free_port, is_listening
from deploy.stack.services import environment
from tests.support import senders
from tests.support.client import Client
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver

CHECKOUT = Path(__file__).parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ORDER = b'{"type":"order.completed","data":{"order":7}}'


class Example:
    """A running `examples/receiver.py`, and what it prints."""

    def __init__(self, url: str, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self._process = process

    async def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(10):
            return (await self._process.stdout.readline()).decode().rstrip()

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        """Send it a webhook; the status of its answer."""
        async with aiohttp.ClientSession() as session, session.post(self.url, data=body, headers=headers) as response:
            return response.status


@asynccontextmanager
async def receiving(secret: str) -> AsyncIterator[Example]:
    """Run the example on a free port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "examples/receiver.py", "--port", str(port)),
        env=environment({}) | {"WEBHOOK_SECRET": secret},
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    example = Example(f"http://127.0.0.1:{port}/", process)
    try:
        await eventually(lambda: asyncio.to_thread(is_listening, "127.0.0.1", port), bool)
        while not (await example.line()).startswith("(Press"):
            pass
        yield example
    finally:
        process.terminate()
        await process.wait()


# The receiver


@pytest.fixture(scope="module")
async def example() -> AsyncIterator[Example]:
    async with receiving(SECRET) as running:
        yield running


async def test_the_receiver_takes_what_is_signed_and_hands_it_to_its_types_handler(example: Example) -> None:
    assert await example.post(ORDER, senders.standard_headers(ORDER, SECRET, message="msg_1")) == 204
    assert await example.line() == "order completed: {'order': 7}"


async def test_the_receiver_handles_a_repeated_message_once(example: Example) -> None:
    for _ in range(3):
        assert await example.post(ORDER, senders.standard_headers(ORDER, SECRET, message="msg_2")) == 204
    other = ORDER.replace(b"7", b"8")
    assert await example.post(other, senders.standard_headers(other, SECRET, message="msg_3")) == 204
    assert [await example.line(), await example.line()] == [
        "order completed: {'order': 7}",
        "order completed: {'order': 8}",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="unsigned"),
        pytest.param(senders.standard_headers(ORDER, "whsec_" + "A" * 32, message="msg_4"), id="another secret"),
        pytest.param(senders.standard_headers(ORDER + b" ", SECRET, message="msg_4"), id="another body"),
        pytest.param(
            senders.standard_headers(ORDER, SECRET, message="msg_4", at=datetime.now(UTC) - timedelta(hours=1)),
            id="an hour old",
        ),
        pytest.param(senders.standard_headers(ORDER, SECRET, message="msg_4") | {"webhook-signature": "v1"}, id="cut"),
    ],
)
async def test_the_receiver_refuses_what_is_not(example: Example, headers: dict[str, str]) -> None:
    assert await example.post(ORDER, headers) == 401


@pytest.mark.parametrize("body", [b'{"type":"order.created"}', b'{"no":"type"}', b'{"type":[]}', b"[]", b"7"])
async def test_the_receiver_takes_what_it_has_no_handler_for(example: Example, body: bytes) -> None:
    message = f"msg_{body.hex()}"
    assert await example.post(body, senders.standard_headers(body, SECRET, message=message)) == 204


async def test_the_receiver_takes_the_largest_message_that_hookledger_sends(example: Example) -> None:
    body = b'{"type":"large","data":"' + b"x" * (1024 * 1024 - 26) + b'"}'
    assert len(body) == 1024 * 1024
    assert await example.post(body, senders.standard_headers(body, SECRET, message="msg_large")) == 204


# Together


async def test_the_producers_event_reaches_the_receiver(client: Client, platform: Platform) -> None:
    app = await client.create_application(uid="shop")
    endpoint = await client.create_endpoint(app, "http://127.0.0.1:1/", disabled=True)
    async with receiving(endpoint.secret) as example:
        await client.patch(f"/app/{app}/endpoint/{endpoint.id}", {"url": example.url, "disabled": False})
        event = {"type": "order.completed", "data": {"order": 9}}
        await _produce(platform, "shop", "order.completed", orjson.dumps(event).decode())
        assert await example.line() == "order completed: {'order': 9}"
    [delivery] = await client.settled(app, 1)
    assert (delivery["status"], delivery["eventType"]) == ("succeeded", "order.completed")


async def test_the_producer_ends_when_the_broker_has_the_event(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    said = await _produce(platform, app, "stock.counted", '{"count": 1.50}')
    assert said.startswith("published ")
    [received] = await receiver.wait_for(1)
    assert received.body == b'{"count": 1.5}'


async def _produce(platform: Platform, *arguments: str) -> str:
    corner = platform.corner
    exchange = f"{corner.amqp_prefix}.publish"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "examples/producer.py", *arguments, "--exchange", exchange),
        env=environment({"AMQP_URL": corner.amqp_url}),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
