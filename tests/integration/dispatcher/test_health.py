"""Endpoint health, as dispatchers keep it: the fold of the ledger, each attempt once, whoever folds."""

from datetime import timedelta
from uuid import UUID

import pytest

from libs.common.domain.health import Health
from libs.common.postgres import health
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import open_pool
from libs.common.runtime.clock import new_id
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World
from tests.support.following import follow_to_the_end
from tests.support.receiver import Receiver, Reply


async def test_failures_in_a_row_belong_to_the_configuration_that_met_with_them(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=500))
    async with dispatching(world) as parts:
        parts.start_claiming()
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await world.until_over(app, 1)
        down = await folded(world, endpoint)
        await world.change(endpoint, url=receiver.script("/gone", then=410))
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await world.until_over(app, 2)
        gone = await folded(world, endpoint)
        await world.change(endpoint, url=receiver.script("/up", Reply(status=200, delay=0.05)))
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await world.until_over(app, 3)
        up = await folded(world, endpoint)
    assert (down.failures, down.config_version, down.gone_at) == (3, 1, None)
    assert down.failing_since is not None
    assert (gone.failures, gone.config_version, gone.failing_since) == (1, 2, gone.gone_at)
    assert (up.failures, up.failing_since, up.last_failure_at) == (0, None, gone.gone_at)
    assert sum(up.latencies) + sum(up.latencies_before) == 5


async def test_nothing_follows_from_health_while_the_next_fact_is_of_the_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.application()
    async with await open_pool(world.url, "registry", size=1) as pool:
        await fold_all(world)
        assert await health.current(pool)
        await world.accept(app, publish=True)
        assert await health.current(pool)
        monkeypatch.setattr(health, "BEHIND", timedelta(0))
        assert not await health.current(pool)
        await fold_all(world)
        assert await health.current(pool)


async def folded(world: World, endpoint: UUID) -> Health:
    """The endpoint's health, now that all has been folded; no message left one without an attempt."""
    await fold_all(world)
    return (await health.read(world.owner, [endpoint]))[endpoint].health


async def fold_all(world: World) -> None:
    """Follow the ledger to its end, as a process that then leaves."""
    process = new_id()
    async with await open_pool(world.url, "dispatcher", size=1) as pool, pool.acquire() as connection:
        await follow_to_the_end(connection, health.FOLLOWER, process, health.count)
        await Checkpoint(health.FOLLOWER, process).leave(connection)
