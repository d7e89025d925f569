"""Statistics, as a dispatcher keeps them: beside its work, current within a second or so, left to others at the end."""

import asyncio

from libs.common.domain.ids import delivery_id
from libs.common.postgres.pool import open_pool
from services.dispatcher import projecting
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver


async def test_what_a_dispatcher_did_is_counted_once_it_has_ended(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/hook", 500, 200))
    stopping = asyncio.Event()
    async with dispatching(world) as parts, await open_pool(world.url, "dispatcher", size=1) as pool:
        keeping = asyncio.create_task(projecting.run(pool, parts.lease.process, projecting.STATISTICS, stopping))
        parts.start_claiming()
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        await world.until_over(app, 1)

        async def counted() -> dict[str, tuple[int, int]] | None:
            rows = await world.owner.fetch(
                "SELECT result, attempts, total_us FROM projection_1.endpoint_hour WHERE endpoint = $1", endpoint
            )
            return {row["result"]: (row["attempts"], row["total_us"]) for row in rows} if len(rows) > 1 else None

        found = await until(counted, "two attempts counted")
        stopping.set()
        await keeping
    rows = await world.owner.fetch(
        "SELECT result, total_us FROM projection_1.attempt WHERE delivery = $1", delivery_id(message.id, endpoint)
    )
    assert found == {row["result"]: (1, row["total_us"]) for row in rows}
    owner = await world.owner.fetchval("SELECT owner FROM hookledger.checkpoint WHERE follower = 'statistics'")
    assert owner is None, "another may count at once"
