"""Running the peers: how many deliveries a second each makes, on the same servers, to the same sink."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
import asyncpg
import msgspec

from bench.children import output, said
from deploy.stack.environment import BENCH
from deploy.stack.errors import StackError
from deploy.stack.isolation import Isolation
from deploy.stack.places import CHECKOUT

_WORKERS: Final = 4
_START_S: Final = 30.0
_MODULE: Final = "bench.peers.celery_sender"
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS public.celery_attempt (
        id bigserial PRIMARY KEY, message text, url text, status integer, failure text, at timestamptz)
"""


class Rate(msgspec.Struct, frozen=True):
    """Deliveries a second."""

    per_second: float


async def gathered(corner: Isolation, url: str, *, count: int, size: int) -> float:
    """Deliveries a second of the in-process sender."""
    rate = await said(Rate, "bench.peers.gather_sender", corner.database_url, f"{url}/gather", count, size)
    return rate.per_second


async def celery(corner: Isolation, url: str, *, count: int, size: int) -> float:
    """Deliveries a second of Celery: from the first task's publication to the last attempt's row."""
    os.environ |= {"BENCH_AMQP_URL": corner.amqp_url, "BENCH_DATABASE_URL": corner.database_url}
    os.environ["PYTHONWARNINGS"] = "ignore"  # it warns of root, which is who runs in a container
    database = await asyncpg.connect(corner.database_url)
    try:
        await database.execute(_TABLE)
        at_first: int = await database.fetchval("SELECT count(*) FROM public.celery_attempt")
        publish = (BENCH.python, "-m", _MODULE)
        async with _worker():
            warm_up = _WORKERS * 4
            await output([*publish, warm_up, f"{url}/celery", size])
            await _until(database, at_first + warm_up, _START_S)
            told = await output([*publish, count, f"{url}/celery", size])
            began: float = msgspec.json.decode(told)["began"]
            await _until(database, at_first + warm_up + count, 600.0)
            return count / (time.monotonic() - began)
    finally:
        await database.close()
        await _remove_queue(corner.amqp_url)


@asynccontextmanager
async def _worker() -> AsyncIterator[None]:
    """A worker with a process for each of what a core can keep waiting."""
    options = ["--concurrency", _WORKERS, "--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = await asyncio.create_subprocess_exec(
        *map(str, [BENCH.python, "-m", "celery", "-A", _MODULE, "worker", *options, "--loglevel", "CRITICAL"]),
        stdout=asyncio.subprocess.DEVNULL,
        cwd=CHECKOUT,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until(database: "asyncpg.Connection[asyncpg.Record]", count: int, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while await database.fetchval("SELECT count(*) FROM public.celery_attempt") < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise StackError(f"Celery did not record {count} attempts in {seconds:.0f} s") from None


async def _remove_queue(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.queue_delete("bench.celery")
        await channel.exchange_delete("bench.celery")
