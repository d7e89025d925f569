"""Parts of a service that go on beside one another, whatever goes wrong in one of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within

_LOG: Final = logger("lasting")
AGAIN_SECONDS: Final = 1.0


async def lasting(part: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Have a part run until it ends by itself; where it fails, it begins again a second later, unless it is to stop.

    What it expects to go wrong it handles itself. What nobody expected, such as a row that cannot be read, would end
    the process and whoever takes over from it, and with it all that has nothing to do with that row.

    Args:
        part: its name in the log.
        run: begins it.
        stopping: when this is set, it does not begin again.
    """
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001  a boundary: the other parts go on
            _LOG.exception("part.failed", of=part)
            if await set_within(stopping, AGAIN_SECONDS):
                return
        else:
            return
