"""A crowd that waits for an endpoint which is taken away: cancelled in chunks, beside the others' deliveries."""

from datetime import timedelta
from functools import partial
from uuid import UUID

from services.dispatcher.cancelling import CHUNK
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World, until, world_in
from tests.support.receiver import Receiver


async def test_of_50_000_that_wait_each_transaction_cancels_a_chunk_while_others_are_delivered_to(
    database: str, receiver: Receiver
) -> None:
    """In a database of its own, and not verified after: that would take longer than all else."""
    async with world_in(database) as world:
        await _cancel_a_crowd(world, receiver)


async def _cancel_a_crowd(world: World, receiver: Receiver) -> None:
    app = await world.application()
    crowded = await world.endpoint(app, receiver.url("/crowded"))
    other = await world.endpoint(app, receiver.url("/other"))
    await world.waiting(app, crowded, 50_000, due_in=timedelta(hours=1))
    await world.change(crowded, disabled=True)
    async with dispatching(world) as parts:
        parts.start_claiming()
        await until(partial(_cancelled, world, crowded), "the first of them")
        await world.waiting(app, other, 200)
        parts.claims.note([])
        await receiver.wait_for(200, "/other")
        meanwhile = await _cancelled(world, crowded)
        await until(partial(_cancelled, world, crowded, least=meanwhile + 5 * CHUNK), "more of them")
    assert 0 < meanwhile < 40_000, "it takes its time, and the others do not wait for it"
    largest = await world.owner.fetchval(
        """
        SELECT max(n) FROM (
            SELECT count(*) AS n FROM hookledger.fact WHERE endpoint = $1 AND kind = 'DeliveryCancelled' GROUP BY xact
        ) chunks
        """,
        crowded,
    )
    assert largest == CHUNK
    assert "/crowded" not in {request.path for request in receiver.requests}


async def _cancelled(world: World, endpoint: UUID, *, least: int = 1) -> int:
    """How many deliveries of an endpoint are cancelled; 0 if these are not `least`."""
    found: int = await world.owner.fetchval(
        "SELECT count(*) FROM projection_1.delivery_state WHERE endpoint = $1 AND status = 'cancelled'", endpoint
    )
    return found if found >= least else 0
