"""Whether what was measured is true: the ledger is sound, and says what the sink saw."""

import asyncio
from collections import Counter

from bench.world import World
from deploy.stack.errors import StackError
from libs.common.domain import ids
from libs.common.domain.ids import Prefix

_SENDS = """
    SELECT a.message, a.url, sum(a.sends)::int AS sends FROM projection_1.attempt a GROUP BY a.message, a.url
"""
_LEFT = "SELECT count(*) FROM projection_1.delivery_state WHERE status <> 'succeeded'"


async def check(world: World) -> str:
    """Hold everything against everything; says what was found.

    Raises:
        StackError: `verify` finds a difference, or ledger, sink and load do not tell the same.
    """
    await world.settled()
    await world.told()
    verified = await asyncio.to_thread(world.installation.admin, "verify")
    if left := await world.database.fetchval(_LEFT):
        raise StackError(f"{left} deliveries have not succeeded")
    accepted = await world.database.fetchval("SELECT count(*) FROM hookledger.message")
    if accepted != world.accepted:
        raise StackError(f"{world.accepted} messages were accepted, and the ledger has {accepted}")
    seen = Counter(
        (message_of(request.name), f"{world.sink.url}{request.path}")
        for request in await world.sink.seen()
        if request.name.startswith(f"{Prefix.MESSAGE}_")
    )
    told = Counter({(str(row["message"]), row["url"]): row["sends"] for row in await world.database.fetch(_SENDS)})
    if seen != told:
        more, fewer = (seen - told).total(), (told - seen).total()
        raise StackError(f"the sink saw {more} requests that the ledger does not know, and not {fewer} that it does")
    return f"{verified.splitlines()[-1]}; the sink saw each of {told.total()} sends, and no other"


def message_of(name: str) -> str:
    """The message whose `webhook-id` that is."""
    return str(ids.decode(Prefix.MESSAGE, name))
