"""Whether what was measured is true: the ledger is sound, and says what the sink saw."""

import asyncio
from collections import Counter
from collections.abc import Collection

from bench.world import Application, World
from deploy.stack.errors import StackError
from libs.common.domain import ids
from libs.common.domain.ids import Prefix

_SENDS = """
    SELECT a.message, a.url, sum(a.sends)::int AS sends FROM projection_1.attempt a GROUP BY a.message, a.url
"""
_LEFT = "SELECT count(*) FROM projection_1.delivery_state WHERE status <> 'succeeded' AND app <> ALL($1)"


async def sound(world: World, gone: Collection[Application] = ()) -> str:
    """Hold the ledger against its projections and against what was accepted; says what was found.

    Args:
        world: in which everything is over, or will soon be.
        gone: applications whose deliveries may have ended otherwise than well.

    Raises:
        StackError: `verify` finds a difference, or something was not delivered.
    """
    await world.settled()
    await world.told()
    verified = await asyncio.to_thread(world.installation.admin, "verify")
    if left := await world.database.fetchval(_LEFT, [ids.decode(Prefix.APPLICATION, it.id) for it in gone]):
        raise StackError(f"{left} deliveries have not succeeded")
    accepted = await world.database.fetchval("SELECT count(*) FROM hookledger.message")
    if accepted != world.accepted:
        raise StackError(f"{world.accepted} messages were accepted, and the ledger has {accepted}")
    return verified.splitlines()[-1]


async def check(world: World) -> str:
    """Hold everything against everything; says what was found.

    Raises:
        StackError: `verify` finds a difference, or ledger, sink and load do not tell the same.
    """
    verified = await sound(world)
    seen = Counter(
        (message_of(request.name), f"{world.sink.url}{request.path}")
        for request in await world.sink.seen()
        if request.name.startswith(f"{Prefix.MESSAGE}_")
    )
    told = Counter({(str(row["message"]), row["url"]): row["sends"] for row in await world.database.fetch(_SENDS)})
    if seen != told:
        more, fewer = (seen - told).total(), (told - seen).total()
        raise StackError(f"the sink saw {more} requests that the ledger does not know, and not {fewer} that it does")
    return f"{verified}; the sink saw each of {told.total()} sends, and no other"


def message_of(name: str) -> str:
    """The message whose `webhook-id` that is."""
    return str(ids.decode(Prefix.MESSAGE, name))
