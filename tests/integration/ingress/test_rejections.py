"""What is kept of rejected requests ends with its bytes and its age; its number and rate: `test_inbound.py`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from libs.common.domain.facts import Origin
from libs.common.postgres.pool import Pool, open_pool
from libs.common.runtime.clock import new_id, now
from services.ingress.rejections import KEPT_BYTES_PER_SOURCE, KEPT_FOR, Rejection, Rejections, forget_old

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database, "ingress", size=1)
    yield opened
    await opened.close()


def rejection(
    source: UUID, *, size: int = 1, age: timedelta = timedelta(0), reason: str = "mismatch: by nobody we know"
) -> Rejection:
    return Rejection(
        org=new_id(),
        app=new_id(),
        source=source,
        origin=Origin.SOURCE,
        status=401,
        reason=reason,
        headers={},
        body=b"x" * size,
        size=size,
        at=now() - age,
    )


async def write(pool: Pool, *kept: Rejection) -> None:
    """Write them as the ingress does, in pieces that it lets wait."""
    for each in range(0, len(kept), 15):
        rejections = Rejections(pool)
        for one in kept[each : each + 15]:
            rejections.keep(one)
        rejections.stop()
        await asyncio.wait_for(rejections.run(), 20)


async def left(pool: Pool, source: UUID) -> list[UUID]:
    rows = await pool.fetch("SELECT id FROM hookledger.rejected WHERE source = $1 ORDER BY id", source)
    return [row["id"] for row in rows]


async def test_of_one_source_the_newest_64_mebibytes_are_kept(pool: Pool) -> None:
    loud, quiet = new_id(), new_id()
    await write(pool, rejection(quiet, size=MEBIBYTE))
    came = [rejection(loud, size=MEBIBYTE) for _ in range(KEPT_BYTES_PER_SOURCE // MEBIBYTE + 3)]
    await write(pool, *came)
    assert await left(pool, loud) == sorted(each.id for each in came)[3:]
    assert len(await left(pool, quiet)) == 1


async def test_what_is_older_than_30_days_is_forgotten(pool: Pool) -> None:
    source = new_id()
    old = [rejection(source, age=KEPT_FOR + timedelta(minutes=1)) for _ in range(3)]
    recent = rejection(source, age=KEPT_FOR - timedelta(minutes=1))
    await write(pool, *old, recent)
    assert await forget_old(pool, most=2) == 2
    assert await forget_old(pool, most=2) == 1
    assert await forget_old(pool, most=2) == 0
    assert await left(pool, source) == [recent.id]


@pytest.mark.parametrize("text", ["a\0b", "half a pair: \ud800"])
async def test_one_that_postgres_does_not_take_is_lost_without_those_beside_it(pool: Pool, text: str) -> None:
    source = new_id()
    came = [rejection(source) for _ in range(4)] + [rejection(new_id(), reason=text)] + [rejection(source)]
    with capture_logs() as logs:
        await write(pool, *came)
    assert await left(pool, source) == sorted(each.id for each in came if each.source == source)
    assert [(entry["event"], entry["count"]) for entry in logs] == [("rejections.lost", 1)]
