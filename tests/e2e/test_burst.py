"""A burst of ten times what the disk takes: bounded in time and memory, and nothing that was accepted is lost."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.support import databases
from tests.support.client import connected
from tests.support.platform import Platform
from tests.support.receiver import Receiver

BODY = b'{"eventType":"big.one","payload":{"number":%d,"fill":"' + b"x" * 1_000_000 + b'"}}'
COMMIT_SECONDS = 1.0
"""Two writers, two messages of a megabyte in each commit: the disk takes four a second."""
BURST = 120
"""Within three seconds or less: ten times that."""
MOST_SECONDS = 20.0
"""Five in which a message may wait, its commit, and what it takes to send a hundred megabytes on a busy machine."""
MOST_MEMORY = 512 * 1024
"""KiB: the limit of ingress in `deploy/kubernetes`."""


@pytest.fixture
async def slow_disk(platform: Platform) -> AsyncIterator[None]:
    """A Postgres whose commits of messages take a second each."""
    await databases.slow_down(platform.corner.database_url, {"INSERT hookledger.message": COMMIT_SECONDS})
    yield
    await databases.speed_up(platform.corner.database_url)


@pytest.mark.usefixtures("slow_disk")
async def test_what_is_accepted_is_delivered_the_rest_is_503_and_memory_is_bounded(
    platform: Platform, receiver: Receiver
) -> None:
    async with connected(platform.url, platform.key, patience=60) as client:
        app = await client.create_application()
        await client.create_endpoint(app, receiver.url())
        loop = asyncio.get_running_loop()
        headers = {"Content-Type": "application/json"}

        async def send(number: int) -> tuple[int, int, float]:
            began = loop.time()
            answer = await client.request(
                "POST", f"/api/v1/app/{app}/msg?with_content=false", data=BODY % number, headers=headers
            )
            assert answer.status == 202 or int(answer.headers["Retry-After"]) >= 1
            return number, answer.status, loop.time() - began

        answers = await asyncio.gather(*(send(number) for number in range(BURST)))
        assert {status for _, status, _ in answers} == {202, 503}
        accepted = {number for number, status, _ in answers if status == 202}
        took = loop.time()
        received = await receiver.wait_for(len(accepted))
        assert {orjson.loads(request.body)["number"] for request in received} == accepted
        await client.settled(app, len(accepted))
        print(f"{len(accepted)} of {BURST} accepted, the slowest in {max(s for *_, s in answers):.1f} s, ", end="")
        print(f"delivered after {loop.time() - took:.1f} s; at most {memory(platform)} KiB")
    assert max(seconds for *_, seconds in answers) < MOST_SECONDS
    assert memory(platform) < MOST_MEMORY


def memory(platform: Platform) -> int:
    """The most that ingress has held at any time, in KiB."""
    process = platform.services["ingress"].pid
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("there is no /proc")
    [most] = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)
    return int(most)
