"""The pool: a connection that is given back is at hand for the next, and nobody is worse off for that."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest
from prometheus_client import REGISTRY

from libs.common.postgres import pool as pools
from libs.common.postgres.pool import Connection, Pool, open_pool

SIZE = 3
PATIENCE_SECONDS = 10.0
WHO = "SELECT pg_backend_pid()"


Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Owner]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, "ingress", size=SIZE) as opened:
        yield opened


async def test_a_connection_that_is_given_back_is_at_hand_at_once(pool: Pool) -> None:
    first = await pool.fetchval(WHO)
    taking = pool.acquire().__aenter__()
    with pytest.raises(StopIteration) as taken:
        taking.send(None)
    assert await taken.value.value.fetchval(WHO) == first, "without a turn of the loop"
    await pool.release(taken.value.value)


async def test_many_who_ask_at_once_are_all_served_and_none_is_busy_then(pool: Pool) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        served = await asyncio.gather(*(pool.fetchval(WHO) for _ in range(50 * SIZE)))
        assert 1 < len(set(served)) <= SIZE
        async with pool.acquire(), pool.acquire(), pool.acquire():  # what is kept for the next is there for any
            assert REGISTRY.get_sample_value("hookledger_pool_connections_busy") == SIZE
    assert REGISTRY.get_sample_value("hookledger_pool_connections_busy") == 0


async def test_who_waits_has_the_connection_that_is_given_back(pool: Pool) -> None:
    async with pool.acquire(), pool.acquire():
        async with pool.acquire() as last:
            waiting = asyncio.create_task(pool.fetchval(WHO))
            await asyncio.sleep(0)
            given_back = await last.fetchval(WHO)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting == given_back


async def test_a_connection_that_its_server_ended_while_it_was_kept_is_not_given_out(pool: Pool, owner: Owner) -> None:
    async with pool.acquire() as connection:
        ended, ending = await connection.fetchval(WHO), end_of(connection)
    await end(owner, ended, ending)
    assert REGISTRY.get_sample_value("hookledger_pool_connections_busy") == 0
    assert await pool.fetchval(WHO) != ended


async def test_a_connection_that_its_server_ended_in_use_is_not_kept(pool: Pool, owner: Owner) -> None:
    async with pool.acquire() as connection:
        ended, ending = await connection.fetchval(WHO), end_of(connection)
        await end(owner, ended, ending)
    assert await pool.fetchval(WHO) != ended


async def test_a_transaction_that_was_left_open_is_ended(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        left = await connection.fetchval(WHO)
    async with pool.acquire() as connection:
        assert await connection.fetchval(WHO) == left
        assert not connection.is_in_transaction()


async def test_a_connection_is_renewed_after_so_many_queries(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "QUERIES_A_CONNECTION", 10)
    async with await open_pool(database, "ingress", size=1) as pool:
        served = [await pool.fetchval(WHO) for _ in range(3 * pools.LOOKED_AFTER_EVERY)]
    assert len(set(served)) > 1


def end_of(connection: Connection) -> asyncio.Event:
    """Is set when that connection is found to have ended."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    return ended


async def end(owner: Owner, served: int, ended: asyncio.Event) -> None:
    """End a session, and wait until its client knows."""
    await owner.execute("SELECT pg_terminate_backend($1)", served)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ended.wait()
